"""preprocess.py --check: every fault of a data set is named, whatever the files are, and nothing is written."""

import io
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data.check import CheckConfig, Report, check, list_folder, shown
from src.data.sources import list_class_folders
from src.errors import ConfigError, DataError
from tests import small_run
from tests.command import command
from tests.data.bad_files import GIF, JPEG, PNG, write_bad_files
from tests.data.images import picture, write_cifar, write_flowers, write_folders


@pytest.fixture
def data(tmp_path):
    return small_run.write_images(tmp_path / "data")


def run(data: Path, **flags: object) -> CheckConfig:
    return CheckConfig(**{"check": str(data), "num_parallel_workers": 0, **flags})


def listed(lines: list[str]) -> dict[str, list[str]]:
    """Heading without its count -> the names below it."""
    found: dict[str, list[str]] = {}
    kind = ""
    for line in lines:
        if line.startswith(("finding: ", "note: ")):
            word, _, kind = line.split(" ", 2)
            kind = f"{word} {kind}"
            found[kind] = []
        elif line.startswith("    "):
            found[kind].append(line[4:])
    return found


def findings(data: Path, capsys, **flags: object) -> dict[str, list[str]]:
    """What is printed below the summary of a data set with faults."""
    with pytest.raises(DataError, match="listed above"):
        check(run(data, **flags))
    return listed(capsys.readouterr().out.splitlines())


def notes(data: Path, capsys, **flags: object) -> dict[str, list[str]]:
    """What is printed below the summary of a data set without faults."""
    check(run(data, **flags))
    return listed(capsys.readouterr().out.splitlines())


def tree(root: Path) -> dict[str, tuple[int, int]]:
    return {os.fspath(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in root.rglob("*")}


# ---------------------------------------------------------------------------------------------------------------------
# A data set without faults


@pytest.mark.parametrize("workers", [0, 2])
def test_summary_of_a_good_folder(workers, data):
    before = tree(data.parent)
    code, out, err = command("preprocess", "--check", data, "--num_parallel_workers", workers)
    assert (code, err) == (0, [])
    assert out == [
        "train: 12 images in 3 classes, smallest 4 in circle, largest 4 in circle",
        "  sides in pixels, smallest / median / largest: shorter 18 / 18 / 18, longer 20 / 20 / 20",
        "  modes: RGB 12",
        "val: 7 images in 3 classes, smallest 2 in square, largest 3 in circle",
        "  sides in pixels, smallest / median / largest: shorter 18 / 18 / 18, longer 20 / 20 / 20",
        "  modes: RGB 7",
        "19 images, no findings",
    ]
    assert tree(data.parent) == before
    assert not list(Path().iterdir())


def test_class_folders_without_splits(data, capsys):
    check(run(data / "train"))
    assert capsys.readouterr().out.startswith("images: 12 images in 3 classes, smallest 4 in circle")


def test_a_share_that_training_holds_out_is_a_split_of_its_own(data, capsys):
    copies = data / "train" / "circle"
    for number in range(20):
        shutil.copy(copies / "0.png", copies / f"copy{number}.png")
    with pytest.raises(DataError, match=r"1 contents in both train and val$"):
        check(run(data / "train", val_fraction=0.3))
    assert "train: 23 images in 3 classes" in capsys.readouterr().out


def test_sides_and_modes(tmp_path, capsys):
    write_folders(tmp_path, {"a": 2, "b": 1})
    image = picture(99, 40, 30)
    image.save(tmp_path / "a" / "x.jpg")
    for mode in ("L", "LA", "P", "RGBA", "1"):
        image.convert(mode).save(tmp_path / "b" / f"{mode}.png")
    image.convert("CMYK").save(tmp_path / "b" / "cmyk.jpg")
    Image.fromarray(np.arange(256, 300, dtype=np.uint16)[None]).save(tmp_path / "b" / "deep.png")
    assert notes(tmp_path, capsys) == {
        "note: images of 16 bit, whose values above 255 are read as 255": ["b/deep.png: I;16"],
    }
    check(run(tmp_path))
    out = capsys.readouterr().out
    assert "images: 11 images in 2 classes, smallest 3 in a, largest 8 in b\n" in out
    assert "shorter 1 / 30 / 30, longer 12 / 40 / 44\n" in out
    modes = out.split("modes: ")[1].splitlines()[0].split(", ")
    assert modes[:2] == ["RGB 4", "grey 3"]
    assert sorted(modes[2:]) == ["16 bit 1", "CMYK 1", "RGBA 1", "palette 1"]


def test_the_images_are_those_of_training(tmp_path):
    write_folders(tmp_path, {"a": 2, "b.png": 1, ".hidden": 1, "__MACOSX": 1})
    (tmp_path / "a" / "deep" / "x.png").mkdir(parents=True)
    picture(7).save(tmp_path / "a" / "deep" / "x.png" / "y.JPEG", "JPEG")
    picture(8).save(tmp_path / "a" / "._z.png")
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "a" / "round").symlink_to(tmp_path / "a")
    (tmp_path / "c").symlink_to(tmp_path / "a")
    report = Report()
    found, wanted = list_folder(tmp_path, "", report), list_class_folders(tmp_path)
    assert len(wanted) == 7
    assert (found.paths, found.labels, found.class_names) == (wanted.paths, wanted.labels, wanted.class_names)
    assert not report.findings


# ---------------------------------------------------------------------------------------------------------------------
# Files that are bad


@pytest.mark.parametrize("workers", [0, 2])
def test_every_bad_file_is_named_and_ends_nothing(workers, tmp_path):
    write_folders(tmp_path / "train", {"a": 2, "b": 2})
    kinds = write_bad_files(tmp_path / "train" / "b")
    assert len(kinds) >= 40
    (tmp_path / "train" / "a" / "folder.png").mkdir()
    started = time.monotonic()
    words = ("--check", tmp_path, "--details", "true", "--num_parallel_workers", workers)
    code, out, err = command("preprocess", *words)
    assert time.monotonic() - started < 60
    assert code == 3
    assert err[-1].startswith(f"error: {tmp_path}: {len(kinds)} findings, listed above. Received: ")
    assert "warning" not in "".join(err).lower()
    found = listed(out)
    assert found.pop("note: folders with the suffix of an image") == ["train/a/folder.png"]
    seen = {
        line.removeprefix("train/b/").split(":")[0]: kind.removeprefix("finding: ")
        for kind, lines in found.items()
        for line in lines
    }
    assert seen == kinds
    assert out[0] == f"train: {len(kinds) + 4} images in 2 classes, smallest 2 in a, largest {len(kinds) + 2} in b"


def test_readable_files_of_another_type_are_a_note(tmp_path, capsys):
    write_folders(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "a" / "x.jpg").write_bytes(GIF)
    (tmp_path / "a" / "y.jpeg").write_bytes(PNG)
    Image.open(io.BytesIO(JPEG)).save(tmp_path / "b" / "z.jpg", "MPO", save_all=True)
    found = notes(tmp_path, capsys)
    assert found == {"note: readable, but of another type than the suffix says": ["a/x.jpg: GIF", "a/y.jpeg: PNG"]}


# ---------------------------------------------------------------------------------------------------------------------
# Folders and contents


def test_classes_that_differ(data, capsys):
    (data / "val" / "circle").rename(data / "val" / "round")
    shutil.rmtree(data / "train" / "square")
    (data / "train" / "square").mkdir()
    (data / "train" / "square" / "x.gif").write_bytes(GIF)
    assert findings(data, capsys) == {
        "note: not images by their suffix, ignored (1 .gif)": ["train/square/x.gif"],
        "finding: class folders without images": ["train/square"],
        "finding: classes of val that train lacks": ["round"],
        "finding: classes of train that val lacks": ["circle"],
    }


def test_what_lies_elsewhere_is_a_note(data, capsys):
    picture(1).save(data / "train" / "loose.png")
    (data / "train" / "list.csv").write_text("x")
    (data / "val" / "circle" / "README").write_text("x")
    (data / "val" / "circle" / "x.tif").write_text("x")
    (data / "val" / "circle" / "y.tif").write_text("x")
    (data / "test").mkdir()
    assert notes(data, capsys) == {
        "note: folders beside train and val, ignored": ["test"],
        "note: not images by their suffix, ignored (2 .tif, 1 .csv, 1 without suffix)": [
            "train/list.csv",
            "val/circle/README",
            "val/circle/x.tif",
            "val/circle/y.tif",
        ],
        "note: images beside the class folders, ignored": ["train/loose.png"],
    }


def test_links_and_single_classes(tmp_path, capsys):
    write_folders(tmp_path, {"a": 1})
    (tmp_path / "ring").symlink_to("ring")
    (tmp_path / "nowhere").symlink_to("absent")
    found = findings(tmp_path, capsys)
    assert found["finding: folders of fewer than two classes"] == [str(tmp_path)]
    (line,) = found["finding: folders that cannot be read"]
    assert line.startswith("ring: Too many levels")
    assert any("nowhere" in names for names in found.values())


def test_equal_contents(data, capsys):
    first = data / "train" / "circle" / "0.png"
    shutil.copy(first, data / "val" / "circle" / "copy.png")
    second = data / "train" / "square" / "1.png"
    shutil.copy(second, data / "train" / "circle" / "other class.png")
    third = data / "val" / "tri angle" / "2.png"
    shutil.copy(third, third.with_name("again.png"))
    for index in range(6):
        shutil.copy(data / "train" / "tri angle" / "2.png", data / "train" / "tri angle" / f"many{index}.png")
    names = " = ".join(f"train/tri angle/{name}.png" for name in ("2", "many0", "many1", "many2"))
    assert findings(data, capsys) == {
        "note: same content in one class": [f"{names} and 3 more", "val/tri angle/2.png = val/tri angle/again.png"],
        "finding: contents in both train and val": ["train/circle/0.png = val/circle/copy.png"],
        "finding: contents under different classes of a split": ["train/circle/other class.png = train/square/1.png"],
    }


def test_names_are_cut_at_twenty(tmp_path, capsys):
    write_folders(tmp_path, {"a": 1, "b": 1})
    for index in range(23):
        (tmp_path / "a" / f"bad {index:02d}.png").write_bytes(b"")
    (names,) = findings(tmp_path, capsys).values()
    assert names == [*(f"a/bad {index:02d}.png" for index in range(20)), "and 3 more, --details true names all"]
    (names,) = findings(tmp_path, capsys, details=True).values()
    assert names == [f"a/bad {index:02d}.png" for index in range(23)]


ODD_NAMES = {
    "with blank.png": "with blank.png",
    "quote'\".png": "quote'\".png",
    "-dash.png": "-dash.png",
    "größe 猫.png": "größe 猫.png",
    "two\nlines.png": "'a/two\\nlines.png'",
    "tab\t.png": "'a/tab\\t.png'",
    "\x1b[31mred.png": "'a/\\x1b[31mred.png'",
    "\u202egnp.png": "'a/\\u202egnp.png'",
    "latin\udce9.png": "'a/latin\\udce9.png'",
}


def test_odd_names_stay_on_one_line(tmp_path):
    write_folders(tmp_path, {"a": 1, "b": 1})
    for name in ODD_NAMES:
        (tmp_path / "a" / name).write_bytes(b"no image")
    code, out, _ = command("preprocess", "--check", tmp_path, "--num_parallel_workers", 2)
    assert code == 3
    (lines,) = (names for kind, names in listed(out).items() if kind.startswith("finding"))
    wanted = {f"{text if text.startswith(chr(39)) else f'a/{text}'}: text" for text in ODD_NAMES.values()}
    assert set(lines) == wanted
    assert len(out) == 3 + 1 + len(ODD_NAMES)


def test_terminals_without_unicode(tmp_path, monkeypatch):
    write_folders(tmp_path, {"größe": 1, "b": 1})
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    check(run(tmp_path))
    stream.flush()
    assert b"smallest 1 in b, largest 1 in b" in stream.buffer.getvalue()
    (tmp_path / "größe" / "x.png").write_bytes(b"")
    with pytest.raises(DataError):
        check(run(tmp_path))
    stream.flush()
    assert b"gr\\xf6\\xdfe/x.png" in stream.buffer.getvalue()


def test_folders_without_any_image():
    Path("empty").mkdir()
    code, out, err = command("preprocess", "--check", "empty")
    assert code == 3
    assert out[0] == "images: 0 images in 0 classes"
    assert err == [
        "error: empty: 1 finding, listed above. Received: 1 folders of fewer than two classes",
    ]


def test_shown_is_the_name_where_it_can_be():
    assert shown("a b/ö.png") == "a b/ö.png"
    assert shown("a\rb") == "'a\\rb'"


# ---------------------------------------------------------------------------------------------------------------------
# Other kinds of data sets, and what is refused


@pytest.mark.parametrize("version", ["binary", "python"])
def test_cifar(version, tmp_path, capsys):
    folder = write_cifar(tmp_path, "CIFAR10", version)
    check(run(tmp_path, set="CIFAR10"))
    out = capsys.readouterr().out
    assert "train: 20 images in 10 classes" in out
    assert "val: 4 images in 10 classes" in out
    train, test = ("data_batch_2.bin", "test_batch.bin") if version == "binary" else ("data_batch_2", "test_batch")
    shutil.copy(folder / train, folder / test)
    (names,) = findings(tmp_path, capsys, set="CIFAR10").values()
    assert names[0] == f"train: {train}#0 = val: {test}#0"
    assert len(names) == 4


def test_flowers(tmp_path, capsys):
    write_flowers(tmp_path, [1, 2, 3, 4], {"trnid": [1], "valid": [2], "tstid": [3, 4]})
    (tmp_path / "jpg" / "image_00004.jpg").write_bytes(b"")
    assert findings(tmp_path, capsys, set="Flowers102") == {"finding: empty files": ["val: jpg/image_00004.jpg"]}


def test_list(tmp_path, capsys):
    write_folders(tmp_path, {"a": 2, "b": 1})
    path = tmp_path / "train.csv"
    path.write_text("a/000.png,0\na/001.png,0\nb/000.png,1\n")
    assert notes(path, capsys, set="list", num_classes=2) == {}
    (tmp_path / "val.csv").write_text("b/000.png,1\n")
    line = "train: b/000.png = val: b/000.png"
    assert findings(tmp_path, capsys, set="list", num_classes=2) == {"finding: contents in both train and val": [line]}
    with pytest.raises(ConfigError, match="must be given for a list"):
        check(run(path, set="list"))


def test_flags_that_contradict_each_other(data):
    code, _, err = command("preprocess", "--check", data, "--preview", "x.png")
    assert (code, err) == (2, ["error: --check: does not go together with --preview"])
    code, _, err = command("preprocess", "--check", data, "--data_path", "x", "--strict", "--config=y")
    assert (code, err) == (2, ["error: --check: does not go together with --data_path, --strict, --config"])
    code, _, err = command("preprocess", "--check", data, "--set", "synthetic")
    assert code == 2
    assert "not one of the choices" in err[0]
    assert command("preprocess", "--check", data, "--epochs", "3")[0] == 2
    assert command("preprocess", "--check", "absent") == (3, [], ["error: --check: no such folder. Received: absent"])
    assert not Path("x.png").exists()
