"""Small data sets for the tests of the data pipeline, in the form that their authors publish them."""

import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

# What CIFAR's files are called, by set and version: folder, files of train, files of val.
CIFAR_LAYOUTS = {
    ("CIFAR10", "binary"): (
        "cifar-10-batches-bin",
        ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
        ["test_batch.bin"],
    ),
    ("CIFAR10", "python"): (
        "cifar-10-batches-py",
        ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"],
        ["test_batch"],
    ),
    ("CIFAR100", "binary"): ("cifar-100-binary", ["train.bin"], ["test.bin"]),
    ("CIFAR100", "python"): ("cifar-100-python", ["train"], ["test"]),
}


def picture(seed: int, width: int = 12, height: int = 10) -> Image.Image:
    """An RGB image of smooth random colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def write_folders(root: Path, counts: dict[str, int], suffix: str = ".png") -> Path:
    """``root/<class>/<index><suffix>``, all pictures different."""
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            picture(1000 * label + index).save(root / name / f"{index:03d}{suffix}")
    return root


def cifar_pixels(seed: int, count: int) -> np.ndarray:
    """(count, 3, 32, 32) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def cifar_labels(kind: str, seed: int, count: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, 10 if kind == "CIFAR10" else 100, count).tolist()


def cifar_batch(kind: str, labels: list[int], pixels_NCYX: np.ndarray) -> dict:
    """The dictionary of a batch in CIFAR's Python version."""
    data_NP = pixels_NCYX.reshape(len(labels), -1)
    names = [f"image {index}.png" for index in range(len(labels))]
    if kind == "CIFAR10":
        return {"batch_label": "a batch", "labels": labels, "data": data_NP, "filenames": names}
    coarse = [label // 5 for label in labels]
    return {"filenames": names, "batch_label": "", "fine_labels": labels, "coarse_labels": coarse, "data": data_NP}


def write_cifar(
    root: Path, kind: str, version: str, count: int = 4, dumps: Callable[[dict], bytes] = pickle.dumps
) -> Path:
    """The set in the authors' folder in ``root``, without its class names; returns that folder.

    Batch n, the test files being the last one, has pixels and labels of seed n.
    """
    name, *splits = CIFAR_LAYOUTS[kind, version]
    folder = root / name
    folder.mkdir(parents=True)
    for seed, file in enumerate([*splits[0], *splits[1]]):
        labels, pixels_NCYX = cifar_labels(kind, seed, count), cifar_pixels(seed, count)
        if version == "python":
            content = dumps(cifar_batch(kind, labels, pixels_NCYX))
        else:
            heads = [[label] if kind == "CIFAR10" else [label // 5, label] for label in labels]
            rows = zip(heads, pixels_NCYX, strict=True)
            content = b"".join(bytes(head) + pixels_CYX.tobytes() for head, pixels_CYX in rows)
        (folder / file).write_bytes(content)
    return folder


def python2_pickle(value: object) -> bytes:
    """A pickle as Python 2 wrote it, where texts and bytes were one thing: what the authors' files are."""
    return b"\x80\x02" + _python2(value) + b"."


def _python2(value: object) -> bytes:
    if isinstance(value, dict):
        return b"}(" + b"".join(_python2(k) + _python2(v) for k, v in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_python2, value)) + b"e"
    if isinstance(value, int):
        return b"K" + bytes([value]) if value < 256 else b"J" + struct.pack("<i", value)
    if isinstance(value, str):
        return b"U" + bytes([len(value)]) + value.encode("latin-1")
    rows, columns = value.shape
    empty = b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nK\x00\x85U\x01b\x87Rq\x02"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = _python2(rows) + _python2(columns) + b"\x86"
    raw = b"T" + struct.pack("<i", value.size) + value.tobytes()
    return empty + b"(K\x01" + shape + dtype + b"\x89" + raw + b"tb"


def write_flowers(folder: Path, labels: list[int], splits: dict[str, list[int]]) -> Path:
    """Flowers-102 with other images: image n has ``labels[n - 1]``, from 1, and ``splits`` has image numbers."""
    from scipy.io import savemat

    (folder / "jpg").mkdir(parents=True)
    for number in range(1, len(labels) + 1):
        picture(number).save(folder / "jpg" / f"image_{number:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})
    savemat(folder / "setid.mat", {key: np.array([ids], np.uint16) for key, ids in splits.items()})
    return folder
