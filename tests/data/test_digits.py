"""The built-in data set: the same 1,797 pictures in the same two parts, for ever; written as a whole or not at all."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data import digits
from src.data.digits import NUM_TRAIN, NUM_VAL, write_digits
from src.data.sources import open_source
from src.errors import DataError
from tests.cpp_runner import ROOT

# Of names and pixels in the order of the names; the files themselves depend on the version of zlib.
HASHES = {
    "train": "70b2e0024fde642433d5f94fc2461ffee955e7308aa244caa7062cf24a78a192",
    "val": "c32cd646aac4a760f2a14250502e178f91a467daafe7addd2ca08615dda690ce",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "digits"
    write_digits(path)
    return path


def content_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.png")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(np.asarray(Image.open(path)).tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("split", HASHES)
def test_pictures_never_change(root, split):
    assert content_hash(root / split) == HASHES[split]


def test_parts_have_their_sizes_and_share_no_picture(root):
    train, val = (open_source("digits", str(root), split, 10) for split in ("train", "val"))
    assert (len(train), len(val)) == (NUM_TRAIN, NUM_VAL) == (1437, 360)
    train_ids, val_ids = ({Path(path).stem for path in part.paths} for part in (train, val))
    assert not train_ids & val_ids
    assert train_ids | val_ids == {f"{index:04d}" for index in range(1797)}


def test_every_digit_has_its_share_of_both_parts(root):
    train, val = (Counter(open_source("digits", str(root), split, 10).labels) for split in ("train", "val"))
    for label in range(10):
        assert val[label] / (train[label] + val[label]) == pytest.approx(0.2, abs=0.01)


def test_pictures_are_grey_and_32_pixels_wide(root):
    path = next((root / "val" / "7").iterdir())
    with Image.open(path) as image:
        assert (image.size, image.mode) == ((32, 32), "L")


def test_a_second_call_changes_nothing(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    write_digits(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_folder_of_something_else_is_not_touched():
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("keep me")
    with pytest.raises(DataError, match=r"^data_url: is not the digits set of 1437 and 360 images"):
        write_digits(Path("mine"))
    assert [path.name for path in Path("mine").iterdir()] == ["notes.txt"]


def test_an_error_on_the_way_leaves_nothing(monkeypatch):
    calls = []

    def fail(grey_8x8: np.ndarray) -> Image.Image:
        calls.append(grey_8x8)
        if len(calls) > 50:
            raise OSError(28, "No space left on device")
        return Image.new("L", (32, 32))

    monkeypatch.setattr(digits, "_enlarged", fail)
    with pytest.raises(OSError, match="No space left"):
        write_digits(Path("deep/digits"))
    assert list(Path("deep").iterdir()) == []


def test_two_ranks_may_write_at_once(root, tmp_path):
    # Until both begin, neither sees anything.
    command = "import sys; from pathlib import Path; from src.data.digits import write_digits; write_digits(Path('d'))"
    path = {**os.environ, "PYTHONPATH": str(ROOT)}
    ranks = [subprocess.Popen([sys.executable, "-c", command], cwd=tmp_path, env=path) for _ in range(2)]
    assert [rank.wait() for rank in ranks] == [0, 0]
    assert content_hash(tmp_path / "d" / "val") == HASHES["val"]
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
