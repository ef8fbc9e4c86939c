"""One file: what it is, and processes that die or hang over it."""

import os
import signal
import time

import psutil
import pytest
from PIL import ImageFile

from src.data import inspection
from src.data.inspection import Inspection, inspect_file, inspect_files
from src.errors import DataError
from tests.data.bad_files import BAD_FILES
from tests.data.images import picture


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("page.jpg", "HTML"),
        ("text.png", "text"),
        ("lfs.jpg", "Git LFS pointer, not its file"),
        ("half_gif.jpg", "GIF"),
        ("phone.jpg", "HEIC"),
        ("film.png", "video (MP4)"),
        ("drawing.webp", "XML"),
        ("paper.jpg", "PDF"),
        ("noise.jpg", "not an image"),
        ("bomb.bmp", "Image size (2000000000 pixels) exceeds limit"),
        ("cut_04.png", "cannot be decoded: "),
    ],
)
def test_what_a_bad_file_is(name, detail, tmp_path):
    content = next(files[name] for files in BAD_FILES.values() if name in files)
    (tmp_path / name).write_bytes(content)
    found = inspect_file(str(tmp_path / name))
    assert found.detail.startswith(detail)
    assert str(tmp_path) not in found.detail


def test_more_pixels_than_the_reader_takes(tmp_path, monkeypatch):
    # Between the reader's own limit and Pillow's.
    monkeypatch.setattr(inspection, "MAX_PIXELS", 99)
    monkeypatch.setattr("src.data.transforms.MAX_PIXELS", 99)
    picture(1, 20, 10).save(tmp_path / "x.png")
    assert inspect_file(str(tmp_path / "x.png")) == Inspection(inspection.TOO_LARGE, "20 x 10")


def test_errors_that_a_decoder_thinks_of(tmp_path, monkeypatch):
    def fails(image: ImageFile.ImageFile) -> None:
        raise RuntimeError("Failed to\ndecode")

    monkeypatch.setattr(ImageFile.ImageFile, "load", fails)
    picture(1).save(tmp_path / "x.png")
    assert inspect_file(str(tmp_path / "x.png")) == Inspection(
        inspection.DAMAGED, "cannot be decoded: Failed to decode"
    )


def die(name: str) -> Inspection:
    if name == "4":
        os.kill(os.getpid(), signal.SIGKILL)
    return Inspection(mode=name)


def hang(name: str) -> Inspection:
    if name == "4":
        time.sleep(1000)
    return Inspection(mode=name)


@pytest.mark.parametrize(("inspect", "reason"), [(die, "was killed"), (hang, "no answer for 1 s")])
def test_a_decoder_that_dies_or_hangs_is_named(inspect, reason, monkeypatch):
    monkeypatch.setattr(inspection, "_PATIENCE", 1.0)
    monkeypatch.setattr(inspection, "_CHUNK", 3)
    before = set(psutil.Process().children(recursive=True))
    names = [str(index) for index in range(20)]
    found = list(inspect_files(names, 2, inspect))
    assert sorted(index for index, _ in found) == list(range(20))
    lost = {index: one for index, one in found if one.fault}
    assert set(lost) == {4}
    assert lost[4].fault == inspection.LOST
    assert reason in lost[4].detail
    assert all(one.mode == names[index] for index, one in found if index != 4)
    left = set(psutil.Process().children(recursive=True)) - before
    assert not [process for process in left if "spawn_main" in " ".join(process.cmdline())]


def unstartable() -> None:
    os._exit(1)


def test_processes_that_do_not_start(monkeypatch):
    monkeypatch.setattr(inspection, "_begin", unstartable)
    with pytest.raises(DataError, match="cannot be started"):
        list(inspect_files(["x.png"], 1))
