"""CIFAR's files as images: every version and layout, what a pickle may do, and what is refused."""

import pickle
import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.data.cifar import CIFAR_SETS
from src.data.cifar_pickle import load_cifar_pickle
from src.data.sources import open_source
from src.errors import DataError
from tests.command import python
from tests.data.images import (
    CIFAR_LAYOUTS,
    cifar_batch,
    cifar_labels,
    cifar_pixels,
    python2_pickle,
    write_cifar,
)

NUM_CLASSES = {"CIFAR10": 10, "CIFAR100": 100}
COUNT = 4


def assert_is_the_set(kind: str, data_url: Path) -> None:
    """Both splits of what `write_cifar` wrote."""
    num_train = 5 if kind == "CIFAR10" else 1
    for split, seeds in (("train", range(num_train)), ("val", [num_train])):
        images = open_source(kind, str(data_url), split, NUM_CLASSES[kind])
        assert list(images.labels) == [label for seed in seeds for label in cifar_labels(kind, seed, COUNT)]
        assert len(images) == len(images.paths) == len(images.labels) == len(set(images.paths))
        wanted = np.concatenate([cifar_pixels(seed, COUNT) for seed in seeds]).transpose(0, 2, 3, 1)
        found = [images.read(index) for index in range(len(images))]
        assert {image.mode for image in found} == {"RGB"}
        np.testing.assert_array_equal(np.stack([np.asarray(image) for image in found]), wanted)


@pytest.mark.parametrize(("kind", "version"), CIFAR_LAYOUTS)
def test_both_versions_from_the_folder_or_the_one_above(kind, version):
    folder = write_cifar(Path("data"), kind, version)
    assert_is_the_set(kind, folder)
    assert_is_the_set(kind, Path("data"))
    images = open_source(kind, "data", "val", NUM_CLASSES[kind])
    assert images.root == folder
    assert images.paths[3] == f"{CIFAR_LAYOUTS[kind, version][2][0]}#3"
    assert images.class_names == CIFAR_SETS[kind].class_names


PICKLES = {
    "python2": python2_pickle,
    **{f"protocol {protocol}": partial(pickle.dumps, protocol=protocol) for protocol in range(6)},
    "keys are bytes": lambda batch: pickle.dumps({key.encode(): value for key, value in batch.items()}),
    "labels are an array": lambda batch: pickle.dumps(batch | {"labels": np.array(batch["labels"])}),
    "by columns": lambda batch: pickle.dumps(batch | {"data": np.asfortranarray(batch["data"])}),
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_of_any_age(name):
    write_cifar(Path("data"), "CIFAR10", "python", dumps=PICKLES[name])
    assert_is_the_set("CIFAR10", Path("data"))


def test_folders_of_the_zoo():
    # CCT: data_url/train and data_url/val.
    binary = write_cifar(Path("made"), "CIFAR10", "binary")
    for split, files in zip(("train", "val"), CIFAR_LAYOUTS["CIFAR10", "binary"][1:], strict=True):
        (Path("cct") / split).mkdir(parents=True)
        for file in files:
            (Path("cct") / split / file).write_bytes((binary / file).read_bytes())
    assert_is_the_set("CIFAR10", Path("cct"))
    # ViT: the test files in a folder beside that of the training files, and either may be named.
    vit = Path("vit/cifar-10-batches-bin")
    Path("vit").mkdir()
    Path("cct/train").rename(vit)
    Path("cct/val").rename("vit/cifar-10-verify-bin")
    assert_is_the_set("CIFAR10", Path("vit"))
    assert_is_the_set("CIFAR10", vit)
    assert_is_the_set("CIFAR10", Path("vit/cifar-10-verify-bin"))


def test_class_names_are_those_of_the_files():
    names = [f"class {n}" for n in range(10)]
    binary = write_cifar(Path("binary"), "CIFAR10", "binary")
    (binary / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    python = write_cifar(Path("python"), "CIFAR10", "python")
    (python / "batches.meta").write_bytes(python2_pickle({"num_cases_per_batch": 10000, "label_names": names}))
    for folder in (binary, python):
        for split in ("train", "val"):
            assert open_source("CIFAR10", str(folder), split, 10).class_names == tuple(names)
    python = write_cifar(Path("hundred"), "CIFAR100", "python")
    names = [f"class {n}" for n in range(100)]
    (python / "meta").write_bytes(pickle.dumps({"fine_label_names": names, "coarse_label_names": ["x"]}))
    assert open_source("CIFAR100", str(python), "val", 100).class_names == tuple(names)


def test_splits_of_different_class_names_are_refused():
    for split, names in (("train", "abcdefghij"), ("val", "abcdefghiX")):
        folder = write_cifar(Path("data") / split, "CIFAR10", "binary")
        (folder / "batches.meta.txt").write_text("\n".join(names))
    assert open_source("CIFAR10", "data", "train", 10).class_names == tuple("abcdefghij")
    with pytest.raises(DataError, match=r"must have the class names of .*train.* Received: differing X, j$"):
        open_source("CIFAR10", "data", "val", 10)


@pytest.mark.parametrize(
    ("version", "dumps"),
    [
        ("binary", None),
        ("python", python2_pickle),
        ("python", PICKLES["by columns"]),
        ("python", PICKLES["protocol 2"]),
    ],
)
def test_another_process_maps_the_pixels_itself(version, dumps):
    write_cifar(Path("data"), "CIFAR10", version, 40, *([dumps] if dumps else []))
    images = open_source("CIFAR10", "data", "train", 10)
    before = np.asarray(images.read(123))
    content = pickle.dumps(images)
    # Bytes that Python 3 wrote in the old form are not in the file as they are, and travel.
    assert (len(content) > 5 * 40 * 3072) == (dumps is PICKLES["protocol 2"])
    copy = pickle.loads(content)
    np.testing.assert_array_equal(np.asarray(copy.read(123)), before)
    assert (list(copy.labels), copy.paths) == (list(images.labels), images.paths)


def test_nothing_is_written_beside_the_data():
    folder = write_cifar(Path("data"), "CIFAR10", "python")
    before = {path: path.stat().st_mtime_ns for path in Path("data").rglob("*")}
    assert_is_the_set("CIFAR10", folder)
    assert {path: path.stat().st_mtime_ns for path in Path("data").rglob("*")} == before


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


def test_missing_files_are_named():
    folder = write_cifar(Path("data"), "CIFAR10", "binary")
    (folder / "data_batch_3.bin").unlink()
    (folder / "data_batch_5.bin").unlink()
    with pytest.raises(DataError, match=r"bin: files are missing. Received: data_batch_3.bin, data_batch_5.bin$"):
        open_source("CIFAR10", "data", "train", 10)
    (folder / "test_batch.bin").unlink()
    with pytest.raises(DataError, match=r"^data_url: must be the unpacked folder of CIFAR10.*Received: data. Known: "):
        open_source("CIFAR10", "data", "val", 10)
    with pytest.raises(DataError, match=r"^data_url: no such folder. Received: nowhere$"):
        open_source("CIFAR10", "nowhere", "val", 10)


def test_another_number_of_classes_is_refused():
    write_cifar(Path("data"), "CIFAR10", "binary")
    with pytest.raises(DataError, match=r"holds 10 classes, the model has num_classes 100"):
        open_source("CIFAR10", "data", "val", 100)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "must be a whole number of records of 3073 bytes. Received: 0 bytes"),
        (bytes(4 * 3073 - 1), "must be a whole number of records of 3073 bytes. Received: 12291 bytes"),
        (bytes(4 * 3074), "must be a whole number of records of 3073 bytes"),
        (bytes(3 * 3073), "is short: others of its folder hold 4 images. Received: 3"),
        (bytes(3 * 3073) + b"\x0a" + bytes(3072), "labels must be 0 to 9. Received: 10 in image 3"),
    ],
)
def test_damaged_binary_files(content, words):
    folder = write_cifar(Path("data"), "CIFAR10", "binary")
    (folder / "data_batch_2.bin").write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_source("CIFAR10", "data", "train", 10)
    assert str(caught.value).startswith(f"{folder / 'data_batch_2.bin'}: {words}")
    assert len(caught.value.lines) == 1


BATCH = cifar_batch("CIFAR10", [1, 2, 3, 4], cifar_pixels(0, 4))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is damaged or no pickle of CIFAR"),
        (b"not a pickle", "is damaged or no pickle of CIFAR"),
        (pickle.dumps(BATCH)[:-100], "is damaged or no pickle of CIFAR"),
        (python2_pickle(BATCH)[:5000], "is damaged or no pickle of CIFAR"),
        (pickle.dumps([1, 2]), "must hold a dictionary, as CIFAR's pickles do. Received: list"),
        (pickle.dumps({"data": BATCH["data"]}), "must hold labels. Known: data"),
        (pickle.dumps(BATCH | {"data": "pixels"}), "is damaged: "),
        (pickle.dumps(BATCH | {"labels": 7}), "is damaged: "),
        (pickle.dumps(BATCH | {"labels": ["a"] * 4}), "is damaged: labels that are no whole numbers"),
        (pickle.dumps(BATCH | {"labels": [1, 2, 3]}), "must hold 4 whole numbers as labels"),
        (pickle.dumps(BATCH | {"labels": [1, 2, 3, -1]}), "labels must be 0 to 9. Received: -1 in image 3"),
        (pickle.dumps(BATCH | {"labels": [1, 2, 3, 10**30]}), "is damaged: "),
        (pickle.dumps(BATCH | {"data": BATCH["data"].astype(np.int32)}), "data must be rows of 3072 bytes"),
        (pickle.dumps(BATCH | {"data": BATCH["data"].astype(np.float32)}), "is damaged: an array of f4"),
        (pickle.dumps(BATCH | {"data": BATCH["data"][:, :3000].copy()}), "data must be rows of 3072 bytes"),
        (pickle.dumps(BATCH | {"data": BATCH["data"][:0]}), "data must be rows of 3072 bytes"),
        (pickle.dumps(BATCH | {"data": np.array([{}, 1], object)}), "is damaged: "),
        (python2_pickle(BATCH).replace(b"T\x00\x30\x00\x00", b"T\x00\x2f\x00\x00"), "is damaged or no pickle of CIFAR"),
        (python2_pickle(BATCH).replace(b"K\x04J", b"K\x05J"), "is damaged: an array of (5, 3072) in 12288 bytes"),
    ],
)
def test_damaged_pickles(content, words):
    folder = write_cifar(Path("data"), "CIFAR10", "python")
    (folder / "test_batch").write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_source("CIFAR10", "data", "val", 10)
    assert str(caught.value).startswith(f"{folder / 'test_batch'}: {words}")
    assert len(caught.value.lines) == 1


class Touch:
    """Pickles to a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("key", ["labels", "data", "extra"])
def test_nothing_in_a_pickle_is_executed(key, protocol):
    folder = write_cifar(Path("data"), "CIFAR10", "python")
    bad = pickle.dumps(BATCH | {key: Touch(exec, "open('executed', 'w').close()")}, protocol=protocol)
    (folder / "test_batch").write_bytes(bad)
    with pytest.raises(
        DataError, match=r"names something that no CIFAR file needs, and is not loaded. Received: .*exec"
    ):
        open_source("CIFAR10", "data", "val", 10)
    assert not Path("executed").exists()
    # It would have been.
    pickle.loads(bad)
    assert Path("executed").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"(S'touch executed'\nios\nsystem\n.",
        b"cos\nsystem\n(S'touch executed'\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0etouch executed\x85R.",
        b"\x80\x02cnumpy\ndtype\nU\x02u1\x85R}U\x04codeU\x01xsb.",
        # An array as something to call; an attribute of a text; a name made of names.
        b"\x80\x02cnumpy\nndarray\n)Rcos\nsystem\nb.",
        b"\x80\x02U\x01xN\x86b.",
        b"\x80\x02cnumpy\ndtype\n(tR)R.",
    ],
)
def test_other_ways_to_call_are_refused(content):
    Path("batch").write_bytes(content)
    with pytest.raises(DataError):
        load_cifar_pickle(Path("batch"))
    assert not Path("executed").exists()


def test_a_pickle_takes_no_memory_on_its_word():
    huge = struct.pack("<Q", 2**40)
    nested = b"\x80\x02" + b")" + b"\x85" * 200_000
    cases = {
        "long": b"\x80\x04\x8e" + huge + b"x.",
        "memo": b"\x80\x02}r\xff\xff\xff\x7f.",
        "shape": python2_pickle(BATCH).replace(b"K\x04J\x00\x0c\x00\x00", b"\x8a\x06\xff\xff\xff\xff\xff\x00K\x01"),
        "deep key": nested + b"}q\x01h\x01" + nested[2:] + b"K\x01s.",
        "cycle": b"\x80\x02}(U\x04dataU\x01xU\x06labels](h\x05h\x05e" + b"u.",
    }
    for name, content in cases.items():
        folder = Path(name)
        folder.mkdir()
        (folder / "test_batch").write_bytes(content)
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))\n"
        "import sys; from src.data.sources import open_source; from src.errors import DataError\n"
        "for name in sys.argv[1:]:\n"
        "    try: open_source('CIFAR10', name, 'val', 10)\n"
        "    except DataError as error: print(error)\n"
    )
    where = [str(Path(name).resolve()) for name in cases]
    run = python("-c", code, *where)
    assert (run.returncode, len(run.stdout.splitlines())) == (0, len(cases)), run.stderr


@given(st.data())
def test_any_damage_is_an_error_of_the_data_or_none(tmp_path_factory, data):
    content = bytearray(python2_pickle(cifar_batch("CIFAR10", [1], cifar_pixels(0, 1))))
    structure = [*range(200), *range(len(content) - 40, len(content))]
    for place in data.draw(st.lists(st.sampled_from(structure), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("data")
    (folder / "test_batch").write_bytes(content)
    try:
        images = open_source("CIFAR10", str(folder), "val", 10)
    except DataError:
        return
    assert np.asarray(images.read(0)).shape == (32, 32, 3)
