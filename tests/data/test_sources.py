"""One interface for every kind of data set; class folders: what counts as a class and an image, what is refused."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.data.fixed_split import fixed_split
from src.data.sources import ImageList, Source, list_class_folders, open_source
from src.data.synthetic import SyntheticImages
from src.errors import DataError
from tests.data.images import picture, write_cifar, write_flowers, write_folders


@pytest.fixture
def root() -> Path:
    write_folders(Path("data/train"), {"bee": 3, "ant": 2})
    write_folders(Path("data/val"), {"bee": 1, "ant": 1})
    return Path("data")


def test_labels_are_ranks_of_sorted_names(root):
    images = open_source("folder", str(root), "train", 2)
    assert images.class_names == ("ant", "bee")
    assert list(images.labels) == [0, 0, 1, 1, 1]
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
    assert list(images.labels) == [0, 0, 1, 1, 1, 2, 2]


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


def test_a_folder_that_cannot_be_read_is_not_left_out(root, monkeypatch):
    # A class that shrinks in silence changes results.
    (root / "train" / "ant" / "closed").mkdir()
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"^data/train/ant/closed: cannot be read: Permission denied$"):
        list_class_folders(root / "train")


def test_no_folder_is_made_where_none_was():
    with pytest.raises(DataError):
        open_source("folder", "nowhere", "train", 2)
    assert not Path("nowhere").exists()


# ---------------------------------------------------------------------------------------------------------------------
# What all kinds have in common


def made(kind: str) -> tuple[str, int]:
    """data_url and number of classes of a small set of a kind."""
    root = Path("set")
    if kind in ("CIFAR10", "CIFAR100"):
        write_cifar(root, kind, "binary")
        return "set", int(kind.removeprefix("CIFAR"))
    if kind == "Flowers102":
        write_flowers(root, [1, 2, 3, 4], {"trnid": [1], "valid": [2], "tstid": [3, 4]})
        return "set", 102
    if kind == "digits":
        return "set", 10
    for split in ("train", "val"):
        write_folders(root / split, {"ant": 2, "bee": 3})
        lines = [f"{path.relative_to(root)},{path.parent.name}" for path in (root / split).rglob("*.png")]
        (root / f"{split}.csv").write_text("\n".join(lines))
    return "set", 2


KINDS = ["ImageNet", "folder", "digits", "CIFAR10", "CIFAR100", "Flowers102", "list", "synthetic"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_answers_alike(kind):
    data_url, num_classes = made(kind)
    train, val = (open_source(kind, data_url, split, num_classes) for split in ("train", "val"))
    for images in (train, val):
        assert len(images) == len(images.labels) == len(images.paths) > 0
        assert len(images.class_names) == num_classes
        assert isinstance(images.root, Path)
        assert all(type(path) is str for path in images.paths[:3])
        assert len(set(images.paths)) == len(images)
        assert all(type(label) is int and 0 <= label < num_classes for label in images.labels)
        assert {images.read(index).mode for index in range(min(3, len(images)))} == {"RGB"}
        with pytest.raises(IndexError):
            images.read(len(images))
        copy: Source = pickle.loads(pickle.dumps(images))
        assert (list(copy.labels), list(copy.paths)) == (list(images.labels), list(images.paths))
        assert (copy.class_names, copy.root) == (images.class_names, images.root)
        assert copy.read(len(copy) - 1).tobytes() == images.read(len(images) - 1).tobytes()
    assert train.class_names == val.class_names


def test_paths_are_packed_and_equal_to_texts():
    paths = ["-a.png", "Käfer 甲虫.png", "two\nlines.png", "", os.fsdecode(b"caf\xe9.png"), "z"]
    images = ImageList(Path("data"), paths, range(6), tuple("abcdef"))
    assert images.paths == tuple(paths)
    assert images.paths != tuple(paths[:-1])
    assert (images.paths[-1], images.paths[1:3], list(images.paths)) == ("z", tuple(paths[1:3]), paths)
    with pytest.raises(IndexError):
        images.paths[6]
    many = ImageList(Path("data"), (f"class{i % 9}/{i:012d}.JPEG" for i in range(10_000)), [0] * 10_000, ("a",))
    assert len(pickle.dumps(many)) < 10_000 * (len(many.paths[0]) + 8 + 4) + 1000


def test_synthetic_images_are_a_function_of_split_and_index():
    train, val = (open_source("synthetic", "nowhere", split, 7) for split in ("train", "val"))
    assert train.labels[:9].tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1]
    assert train.read(5).tobytes() == open_source("synthetic", "", "train", 3).read(5).tobytes()
    assert len({images.read(index).tobytes() for images in (train, val) for index in range(3)}) == 6
    small = SyntheticImages("train", 5, num_images=4, width=9, height=6)
    assert (len(small), small.read(3).size, small.paths[3]) == (4, (9, 6), "train#3")
    # Noise over the whole range.
    assert 120 < np.asarray(train.read(0)).mean() < 135


# ---------------------------------------------------------------------------------------------------------------------
# A share of every class for validation


def image_list(counts: dict[str, int]) -> ImageList:
    names = [(label, f"{name}/{index}.png") for label, (name, n) in enumerate(counts.items()) for index in range(n)]
    return ImageList(Path("data"), [path for _, path in names], [label for label, _ in names], tuple(counts))


COUNTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 30), min_size=2).filter(
    lambda c: max(c.values()) > 1
)


@given(COUNTS, st.floats(0.01, 0.99), st.randoms(use_true_random=False))
def test_fixed_split(counts, fraction, random):
    images = image_list(counts)
    train, val = (fixed_split(images, split, fraction) for split in ("train", "val"))
    assert sorted([*train.paths, *val.paths]) == sorted(images.paths)
    for label, (name, count) in enumerate(counts.items()):
        held_out = list(val.labels).count(label)
        assert abs(held_out - count * fraction) <= 1
        assert (1 <= held_out < count) if count > 1 else held_out == 0
        assert held_out == sum(path.startswith(f"{name}/") for path in val.paths)
    # The order and the other classes make no difference, and a larger share holds the smaller one.
    shuffled = random.sample(range(len(images)), len(images))
    paths, labels = [images.paths[i] for i in shuffled], [images.labels[i] for i in shuffled]
    again = fixed_split(ImageList(images.root, paths, labels, images.class_names), "val", fraction)
    assert set(again.paths) == set(val.paths)
    assert set(val.paths) <= set(fixed_split(images, "val", min(0.99, fraction * 1.5)).paths)
    fewer = dict(list(counts.items())[:-1])
    if max(fewer.values()) > 1:
        assert set(fixed_split(image_list(fewer), "val", fraction).paths) <= set(val.paths)


def test_fixed_split_never_changes():
    val = fixed_split(image_list({"ant": 10, "bee": 3, "cat": 1}), "val", 0.3)
    assert list(val.paths) == ["ant/4.png", "ant/6.png", "ant/8.png", "bee/0.png"]


def test_folders_without_val_are_split(root):
    (root / "val").rename("gone")
    write_folders(Path("flat"), {"bee": 3, "ant": 2})
    for data_url in ("data", "flat"):
        train, val = (open_source("folder", data_url, split, 2, val_fraction=0.4) for split in ("train", "val"))
        assert (list(train.labels), list(val.labels)) == ([0, 1, 1], [0, 1])
        assert train.class_names == val.class_names == ("ant", "bee")
        assert not set(train.paths) & set(val.paths)
        assert val.file(0).is_file()
    # The same images, wherever they lie.
    assert val.paths == open_source("folder", "data", "val", 2, val_fraction=0.4).paths


@pytest.mark.parametrize("names", [("Train", "Val"), ("training", "validation"), ("train", "valid", "test")])
def test_parts_of_other_names_are_no_classes(names):
    for name in names:
        write_folders(Path("data") / name, {"bee": 2, "ant": 2})
    found = ", ".join(sorted(names))
    with pytest.raises(DataError, match=rf"data: must call its parts train and val.* Received: {found}$"):
        open_source("folder", "data", "train", 2, val_fraction=0.4)


def test_a_test_part_of_its_own_stays_out(root):
    (root / "val").rename(root / "test")
    assert len(open_source("folder", "data", "train", 2, val_fraction=0.4)) == 3


def test_class_names_have_to_be_text(root):
    (root / "train" / os.fsdecode(b"caf\xe9")).mkdir()
    with pytest.raises(DataError, match=r"names are UTF-8: rename it. Received: 'caf\\udce9'$"):
        list_class_folders(root / "train")


def test_a_val_of_its_own_goes_before_the_fraction(root):
    for split in ("train", "val"):
        assert open_source("folder", str(root), split, 2, val_fraction=0.4) == open_source(
            "folder", str(root), split, 2
        )


def test_val_fraction_is_named_where_it_would_help(root):
    (root / "val").rename("gone")
    assert len(open_source("folder", "data", "train", 2)) == 5
    write_folders(Path("flat"), {"bee": 3, "ant": 2})
    for data_url, split in (("data", "val"), ("flat", "train"), ("flat", "val")):
        with pytest.raises(DataError, match=rf"^data_url: must hold a folder {split} .*, or set val_fraction"):
            open_source("folder", data_url, split, 2)


def test_nothing_to_hold_out(root):
    write_folders(Path("single"), {"bee": 1, "ant": 1})
    with pytest.raises(DataError, match=r"^val_fraction: leaves nothing to validate: every class has a single image"):
        open_source("folder", "single", "val", 2, val_fraction=0.5)
