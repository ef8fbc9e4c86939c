"""Class folders to lists of images: what counts as a class and an image, and what is refused."""

from pathlib import Path

import pytest

from src.data.sources import list_class_folders, open_source
from src.errors import DataError
from tests.data.images import picture, write_folders


@pytest.fixture
def root() -> Path:
    write_folders(Path("data/train"), {"bee": 3, "ant": 2})
    write_folders(Path("data/val"), {"bee": 1, "ant": 1})
    return Path("data")


def test_labels_are_ranks_of_sorted_names(root):
    images = open_source("folder", str(root), "train", 2)
    assert images.class_names == ("ant", "bee")
    assert images.labels == (0, 0, 1, 1, 1)
    assert images.paths == ("ant/000.png", "ant/001.png", "bee/000.png", "bee/001.png", "bee/002.png")
    assert images.file(4) == root / "train" / "bee" / "002.png"
    assert len(images) == 5


def test_imagenet_and_folder_are_one_thing(root):
    assert open_source("ImageNet", str(root), "val", 2) == open_source("folder", str(root), "val", 2)


def test_hidden_and_system_names_are_no_classes_and_no_images(root):
    wanted = list_class_folders(root / "train")
    for name in (".git", ".ipynb_checkpoints", "__MACOSX", "lost+found", "ant/.thumbnails", "bee/__MACOSX"):
        (root / "train" / name).mkdir()
        picture(0).save(root / "train" / name / "x.png")
    for name in ("ant/._000.png", "ant/.DS_Store", "ant/notes.txt", "ant/Thumbs.db", "readme.png"):
        (root / "train" / name).write_bytes(b"x")
    assert list_class_folders(root / "train") == wanted


def test_suffixes_in_any_case_and_folders_in_any_depth(root):
    deep = root / "train" / "ant" / "more" / "deep"
    deep.mkdir(parents=True)
    for name in ("a.JPEG", "b.Jpg", "c.PNG", "d.webp", "e.bmp", "f.tiff", "g.png.part"):
        (deep / name).write_bytes(b"x")
    found = [path for path in list_class_folders(root / "train").paths if "deep" in path]
    assert found == [f"ant/more/deep/{name}" for name in ("a.JPEG", "b.Jpg", "c.PNG", "d.webp", "e.bmp")]


def test_links_to_folders_are_followed_and_circles_counted_once(root):
    write_folders(Path("elsewhere"), {"cat": 2})
    (root / "train" / "cat").symlink_to(Path("elsewhere/cat").resolve())
    (root / "train" / "ant" / "again").symlink_to((root / "train" / "ant").resolve())
    images = list_class_folders(root / "train")
    assert images.class_names == ("ant", "bee", "cat")
    assert images.labels == (0, 0, 1, 1, 1, 2, 2)


def test_names_with_blanks_and_other_scripts(root):
    for split in ("train", "val"):
        write_folders(root / split, {"Käfer 甲虫": 1})
    assert open_source("folder", str(root), "train", 3).class_names == ("Käfer 甲虫", "ant", "bee")


@pytest.mark.parametrize(
    ("change", "split", "words"),
    [
        (lambda root: (root / "val").rename("gone"), "val", "data_url: must hold a folder val of class folders"),
        (lambda root: root.rename("gone"), "train", "data_url: no such folder. Received: data"),
        (lambda root: (root / "train/bee").rename("gone"), "train", "data/train: must hold at least two class"),
        (lambda root: (root / "train/cat").mkdir(), "train", "data/train: class folders without images"),
        (lambda root: write_folders(root / "train", {"cat": 1}), "train", "data/train: holds 3 classes, the model"),
        (lambda root: (root / "val/bee").rename(root / "val/wasp"), "val", "data/val: must have the same class"),
    ],
)
def test_refused(root, change, split, words):
    change(root)
    with pytest.raises(DataError) as caught:
        open_source("folder", str(root), split, 2)
    assert str(caught.value).startswith(words)
    assert caught.value.exit_code == 3


def test_what_is_wrong_is_named(root):
    (root / "train" / "cat").mkdir()
    with pytest.raises(DataError, match=r"Received: cat$"):
        list_class_folders(root / "train")
    (root / "val" / "ant").rename(root / "val" / "aunt")
    with pytest.raises(DataError, match=r"differing (ant, aunt|ant, aunt, cat)$"):
        open_source("folder", str(root), "val", 2)


def test_no_folder_is_made_where_none_was():
    with pytest.raises(DataError):
        open_source("folder", "nowhere", "train", 2)
    assert not Path("nowhere").exists()
