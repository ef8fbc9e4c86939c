"""CIFAR-10 and CIFAR-100 as their authors publish them, in the binary and in the Python version.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. Of CIFAR-100 the fine labels
are taken.

Shape letters: N images, P the 3,072 bytes of an image: 32 rows of red, then green, then blue.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from src.data.cifar_pickle import StoredArray, load_cifar_pickle
from src.errors import DataError

IMAGE_SIDE = 32
_PIXELS = 3 * IMAGE_SIDE**2


@dataclass(frozen=True)
class _Version:
    """How a set is published: folders (the second one is the zoo's), files of the splits, file of the class names."""

    folders: tuple[str, ...]
    files: dict[str, tuple[str, ...]]
    names_file: str


@dataclass(frozen=True)
class _CifarSet:
    class_names: tuple[str, ...]
    # Bytes before the pixels of a record; the last one is the label.
    label_bytes: int
    label_key: str
    names_key: str
    binary: _Version
    python: _Version


_CIFAR100_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm
"""
CIFAR_SETS = {
    "CIFAR10": _CifarSet(
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        1,
        "labels",
        "label_names",
        _Version(
            ("cifar-10-batches-bin", "cifar-10-verify-bin"),
            {"train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "val": ("test_batch.bin",)},
            "batches.meta.txt",
        ),
        _Version(
            ("cifar-10-batches-py",),
            {"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "val": ("test_batch",)},
            "batches.meta",
        ),
    ),
    "CIFAR100": _CifarSet(
        tuple(_CIFAR100_NAMES.split()),
        2,
        "fine_labels",
        "fine_label_names",
        _Version(("cifar-100-binary",), {"train": ("train.bin",), "val": ("test.bin",)}, "fine_label_names.txt"),
        _Version(("cifar-100-python",), {"train": ("train",), "val": ("test",)}, "meta"),
    ),
}


@dataclass(frozen=True, eq=False)
class _Batch:
    """The images of one file; another process gets the place of the pixels and maps them itself.

    Attributes:
        path: the file.
        label_N: of the images.
        offset: of the first byte in the file.
        row_bytes: length of an image's record, its pixels at the end.
        order: C, or F where the file holds the first byte of every image first.
        held_NP: the pixels, where the file does not hold them as they are.
    """

    path: Path
    label_N: np.ndarray
    offset: int
    row_bytes: int
    order: str = "C"
    held_NP: np.ndarray | None = None

    @functools.cached_property
    def pixels(self) -> np.ndarray:
        """(N, P) uint8."""
        if self.held_NP is not None:
            return self.held_NP
        shape = (len(self.label_N), self.row_bytes)
        # As a plain array: a row of a memmap costs several times as much.
        return np.asarray(np.memmap(self.path, np.uint8, "r", self.offset, shape, self.order))[:, -_PIXELS:]

    def __reduce__(self) -> tuple:
        return _Batch, (self.path, self.label_N, self.offset, self.row_bytes, self.order, self.held_NP)


@dataclass(frozen=True, eq=False)
class CifarImages:
    """32x32 images in batch files, read through a map of the file; see `Source`. A path is ``FILE#INDEX``."""

    root: Path
    paths: tuple[str, ...]
    labels: array
    class_names: tuple[str, ...]
    batches: tuple[_Batch, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> Image.Image:
        """One image in RGB."""
        return Image.fromarray(np.ascontiguousarray(self.pixels(index).transpose(1, 2, 0)))

    def pixels(self, index: int) -> np.ndarray:
        """One image as (3, 32, 32) uint8."""
        # Batches of one split are equally long.
        batch, row = divmod(range(len(self))[index], len(self.batches[0].label_N))
        return self.batches[batch].pixels[row].reshape(3, IMAGE_SIDE, IMAGE_SIDE)


def open_cifar(kind: str, root: Path, split: str) -> CifarImages:
    """The training files as split train, the test files as split val.

    Args:
        kind: CIFAR10 or CIFAR100.
        root: the folder of the files; or the one above; or one with folders ``train`` and ``val`` of them.
        split: train or val.

    Raises:
        DataError: files that are missing, damaged, of unequal lengths or of another set.
    """
    cifar = CIFAR_SETS[kind]
    found = _find(cifar, root, split)
    if found is None:
        known = f"{cifar.binary.folders[0]} with {', '.join(cifar.binary.files[split])}, {cifar.python.folders[0]}"
        rule = f"must be the unpacked folder of {kind}, binary or Python version, or the folder above it"
        raise DataError("data_url", rule, root, known)
    folder, version = found
    files = [folder / name for name in version.files[split]]
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise DataError(folder, "files are missing", ", ".join(missing))
    read = _binary_batch if version is cifar.binary else _python_batch
    batches = tuple(read(cifar, path) for path in files)
    for batch in batches:
        _check(cifar, batch, batches)
    paths = tuple(f"{batch.path.name}#{row}" for batch in batches for row in range(len(batch.label_N)))
    labels = array("i", np.concatenate([batch.label_N for batch in batches]).tolist())
    return CifarImages(folder, paths, labels, _class_names(cifar, root, folder, version), batches)


def _find(cifar: _CifarSet, root: Path, split: str) -> tuple[Path, _Version] | None:
    for version in (cifar.binary, cifar.python):
        for folder in _candidates(version, root, split):
            if any((folder / name).is_file() for name in version.files[split]):
                return folder, version
    return None


def _candidates(version: _Version, root: Path, split: str) -> Iterator[Path]:
    parts = (split, "test") if split == "val" else (split,)
    for parent in (root, *(root / part for part in parts)):
        yield parent
        yield from (parent / name for name in version.folders)
    if root.resolve().name in version.folders:
        yield from (root.resolve().parent / name for name in version.folders)


def _binary_batch(cifar: _CifarSet, path: Path) -> _Batch:
    row_bytes = cifar.label_bytes + _PIXELS
    size = path.stat().st_size
    if size == 0 or size % row_bytes:
        raise DataError(path, f"must be a whole number of records of {row_bytes} bytes", f"{size} bytes")
    record_NR = np.memmap(path, np.uint8, "r").reshape(-1, row_bytes)
    return _Batch(path, record_NR[:, cifar.label_bytes - 1].astype(np.int32), 0, row_bytes)


def _python_batch(cifar: _CifarSet, path: Path) -> _Batch:
    found, content = load_cifar_pickle(path)
    missing = [key for key in ("data", cifar.label_key) if key not in found]
    if missing:
        raise DataError(path, f"must hold {', '.join(missing)}", None, [str(key)[:40] for key in found][:10])
    try:
        pixels_NP = found["data"].array()
        label_N = _whole_numbers(found[cifar.label_key])
    except (AttributeError, ValueError, TypeError, OverflowError) as error:
        raise DataError(path, f"is damaged: {error}") from None
    if pixels_NP.dtype != np.uint8 or pixels_NP.shape[1:] != (_PIXELS,) or not len(pixels_NP):
        raise DataError(path, f"data must be rows of {_PIXELS} bytes", f"{pixels_NP.dtype} {pixels_NP.shape}")
    if label_N.shape != pixels_NP.shape[:1] or label_N.dtype.kind not in "iu":
        raise DataError(path, f"must hold {len(pixels_NP)} whole numbers as {cifar.label_key}", label_N.shape)
    order = "C" if pixels_NP.flags.c_contiguous else "F"
    offset = content.find(pixels_NP.ravel(order="K"))
    # Python 3 writes bytes as UTF-8 in the old form of pickles.
    held_NP = pixels_NP if offset < 0 else None
    return _Batch(path, label_N.astype(np.int64), offset, _PIXELS, order, held_NP)


def _whole_numbers(stored: StoredArray | list) -> np.ndarray:
    if isinstance(stored, StoredArray):
        return stored.array()
    if not all(type(number) is int for number in stored):
        raise ValueError("labels that are no whole numbers")
    return np.array(stored, np.int64)


def _check(cifar: _CifarSet, batch: _Batch, batches: tuple[_Batch, ...]) -> None:
    most = max(len(other.label_N) for other in batches)
    if len(batch.label_N) != most:
        raise DataError(batch.path, f"is short: others of its folder hold {most} images", len(batch.label_N))
    wrong_N = (batch.label_N < 0) | (batch.label_N >= len(cifar.class_names))
    if wrong_N.any():
        row = int(wrong_N.argmax())
        rule = f"labels must be 0 to {len(cifar.class_names) - 1}"
        raise DataError(batch.path, rule, f"{batch.label_N[row]} in image {row}")


def _class_names(cifar: _CifarSet, root: Path, folder: Path, version: _Version) -> tuple[str, ...]:
    """Of the training files, else of this folder, else the authors'."""
    train = _find(cifar, root, "train")
    here = _read_names(cifar, folder, version)
    there = None if train is None or train[0] == folder else _read_names(cifar, *train)
    if here and there and here != there:
        differing = sorted(set(here) ^ set(there)) or ["their order"]
        raise DataError(folder, f"must have the class names of {train[0]}", f"differing {', '.join(differing[:5])}")
    return there or here or cifar.class_names


def _read_names(cifar: _CifarSet, folder: Path, version: _Version) -> tuple[str, ...] | None:
    path = folder / version.names_file
    if not path.is_file():
        return None
    if version is cifar.binary:
        try:
            names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        except UnicodeDecodeError:
            raise DataError(path, "must be UTF-8 text") from None
        names = [name for name in names if name]
    else:
        names = load_cifar_pickle(path)[0].get(cifar.names_key)
        if not isinstance(names, list) or not all(isinstance(name, (str, bytes)) for name in names):
            raise DataError(path, f"must hold texts as {cifar.names_key}")
        names = [name.decode("latin-1") if isinstance(name, bytes) else name for name in names]
    if len(set(names)) != len(cifar.class_names) or len(names) != len(cifar.class_names):
        raise DataError(path, f"must hold {len(cifar.class_names)} different class names", len(names))
    return tuple(names)
