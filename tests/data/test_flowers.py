"""Flowers-102: which images are in which split, and files that do not fit each other."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from src.data.flowers import CLASS_NAMES
from src.data.sources import open_source
from src.data.transforms import read_image
from src.errors import DataError
from tests.data.images import write_flowers

LABELS = [102, 1, 50, 50, 1, 102, 77]
SPLITS = {"trnid": [6, 2], "valid": [3], "tstid": [7, 1, 5, 4]}


@pytest.fixture
def folder() -> Path:
    return write_flowers(Path("data"), LABELS, SPLITS)


def test_training_images_are_those_of_trnid_and_valid(folder):
    train, val = (open_source("Flowers102", str(folder), split, 102) for split in ("train", "val"))
    assert train.paths == ("jpg/image_00002.jpg", "jpg/image_00003.jpg", "jpg/image_00006.jpg")
    assert list(train.labels) == [0, 49, 101]
    assert val.paths == tuple(f"jpg/image_{number:05d}.jpg" for number in (1, 4, 5, 7))
    assert list(val.labels) == [101, 49, 0, 76]
    assert train.file(1) == folder / "jpg" / "image_00003.jpg"
    assert train.read(1).tobytes() == read_image(folder / "jpg" / "image_00003.jpg").tobytes()


def test_class_names_are_the_authors(folder):
    images = open_source("Flowers102", str(folder), "val", 102)
    assert images.class_names == CLASS_NAMES
    assert len(set(CLASS_NAMES)) == 102
    named = {1: "pink primrose", 51: "petunia", 73: "water lily", 74: "rose", 89: "watercress", 102: "blackberry lily"}
    assert {number: CLASS_NAMES[number - 1] for number in named} == named


def test_the_folder_may_lie_in_the_one_named():
    folder = write_flowers(Path("root/flowers-102"), LABELS, SPLITS)
    assert open_source("Flowers102", "root", "val", 102) == open_source("Flowers102", str(folder), "val", 102)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "setid.mat").unlink(), "data: files of Flowers102 are missing. Received: setid.mat"),
        (lambda folder: (folder / "jpg").rename("gone"), "data: files of Flowers102 are missing. Received: jpg"),
        (
            lambda folder: (folder / "jpg" / "image_00004.jpg").unlink(),
            "data: lacks 1 of the 4 images of val. Received: jpg/image_00004.jpg",
        ),
        (
            lambda folder: (folder / "setid.mat").write_bytes(b"no such thing"),
            "data/setid.mat: is damaged or no MATLAB file: ",
        ),
        (
            lambda folder: (folder / "imagelabels.mat").write_bytes((folder / "imagelabels.mat").read_bytes()[:150]),
            "data/imagelabels.mat: is damaged or no MATLAB file: ",
        ),
        (lambda folder: (folder / "setid.mat").write_bytes(b""), "data/setid.mat: is damaged or no MATLAB file: "),
        (
            lambda folder: savemat(folder / "imagelabels.mat", {"label": [[1]]}),
            "data/imagelabels.mat: must hold variables. Received: labels",
        ),
        (
            lambda folder: savemat(folder / "imagelabels.mat", {"labels": [[1, 2.5]]}),
            "data/imagelabels.mat: labels must be a row of whole numbers. Received: float64 (1, 2)",
        ),
        (
            lambda folder: savemat(folder / "imagelabels.mat", {"labels": "pink primrose"}),
            "data/imagelabels.mat: labels must be a row of whole numbers",
        ),
        (
            lambda folder: savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 2, 103, 4, 5, 6, 7]])}),
            "data/imagelabels.mat: labels must be 1 to 102. Received: 103 of image 3",
        ),
        (
            lambda folder: savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 2, 3]])}),
            "data/setid.mat: image numbers must be 1 to 3, as imagelabels.mat has it. Received: 1 to 7",
        ),
        (
            lambda folder: savemat(folder / "setid.mat", SPLITS | {"tstid": np.array([[1, 2]])}),
            "data/setid.mat: must name an image once in trnid, valid, tstid",
        ),
    ],
)
def test_refused(folder, change, words):
    change(folder)
    with pytest.raises(DataError) as caught:
        open_source("Flowers102", "data", "val", 102)
    assert str(caught.value).startswith(words)
    assert len(caught.value.lines) == 1


def test_another_number_of_classes_is_refused(folder):
    with pytest.raises(DataError, match=r"^data: holds 102 classes, the model has num_classes 10"):
        open_source("Flowers102", "data", "val", 10)
