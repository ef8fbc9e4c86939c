"""Lists of images: separators, quotes, headers, class names and indices, and lines that are refused by number."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.data.sources import open_source
from src.errors import DataError
from tests.data.images import picture

STRANGE = [
    "my cat.png",
    "a,b.png",
    'say "hi".png',
    "Käfer 甲虫.png",
    "-rf.png",
    "two\nlines.png",
    "tab\there.png",
    "#.png",
]


def write_images(*paths: str) -> None:
    for seed, path in enumerate(paths):
        target = Path("data") / path
        target.parent.mkdir(parents=True, exist_ok=True)
        picture(seed).save(target)


def write_list(text: str, name: str = "train.csv") -> Path:
    Path("data").mkdir(exist_ok=True)
    (Path("data") / name).write_bytes(text.encode())
    return Path("data") / name


@pytest.mark.parametrize(
    "text",
    [
        "x/a.png,0\nx/b.png,1\nc.png,0\n",
        "x/a.png 0\nx/b.png   1\nc.png 0",
        "x/a.png\t0\nx/b.png\t1\nc.png\t0\n",
        "path,label\nx/a.png,0\nx/b.png,1\nc.png,0\n",
        "image label\nx/a.png 0\nx/b.png 1\nc.png 0\n",
        "\ufeffx/a.png,0\r\n\r\nx/b.png, 1\r\n  \r\nc.png,0\r\n\r\n",
        '"x/a.png",0\n"x/b.png","1"\nc.png,00\n',
        '"x/a.png" 0\n./x/b.png 1\nc.png +0\n',
    ],
)
@pytest.mark.parametrize("name", ["train.csv", "train.txt"])
def test_separators_and_headers(text, name):
    write_images("x/a.png", "x/b.png", "c.png")
    path = write_list(text, name)
    for data_url in ("data", str(path)):
        images = open_source("list", data_url, "train", 2)
        assert images.paths == ("x/a.png", "x/b.png", "c.png")
        assert list(images.labels) == [0, 1, 0]
        assert (images.class_names, images.root) == (("0", "1"), Path("data"))
        assert images.read(2).tobytes() == picture(2).tobytes()


def test_strange_names_in_quotes():
    write_images(*STRANGE)
    with open("data/train.csv", "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows((name, index % 2) for index, name in enumerate(STRANGE))
    images = open_source("list", "data", "train", 2)
    assert images.paths == tuple(STRANGE)
    assert [images.read(index).tobytes() for index in range(len(STRANGE))] == [
        picture(seed).tobytes() for seed in range(len(STRANGE))
    ]


def test_blanks_in_names_between_blanks():
    write_images("my cat.png", "my  dog.png", "-x.png", "a,b.png", '5" disk.png')
    write_list('my cat.png cat\nmy  dog.png "small dog"\n-x.png  cat\na,b.png cat\n5" disk.png cat\n')
    # Without quotes the label is what stands behind the last blank; with them blanks between quotes are kept.
    with pytest.raises(DataError, match=r"names 1 images that are not there. Received: my dog.png in line 2$"):
        open_source("list", "data", "train", 2)
    write_list('my cat.png cat\n"my  dog.png" "small dog"\n-x.png  cat\na,b.png cat\n5" disk.png cat\n')
    images = open_source("list", "data", "train", 2)
    assert images.paths == ("my cat.png", "my  dog.png", "-x.png", "a,b.png", '5" disk.png')
    assert images.class_names == ("cat", "small dog")
    assert list(images.labels) == [0, 1, 0, 0, 0]


def test_absolute_paths_and_names_without_suffix():
    write_images("a.png", "b.png")
    Path("data/b.png").rename("data/b")
    write_list(f"{Path('data/a.png').resolve()},cat\nb,dog\n")
    images = open_source("list", "data", "train", 2)
    assert images.paths == (str(Path("data/a.png").resolve()), "b")
    assert images.read(0).tobytes() == picture(0).tobytes()
    # A first line without suffix is an image if there is one.
    write_list("b,dog\na.png,cat\n")
    assert len(open_source("list", "data", "train", 2)) == 2


def test_classes_are_those_of_the_training_list():
    write_images("a.png", "b.png", "c.png")
    write_list("a.png,dog\nb.png,cat\n")
    write_list("c.png dog\n", "val.txt")
    val = open_source("list", "data", "val", 2)
    assert (val.class_names, list(val.labels)) == (("cat", "dog"), [1])
    write_list("c.png,cow\n", "val.txt")
    with pytest.raises(DataError, match=r"^data/val.txt:1: label must be a class of the list train. Received: cow"):
        open_source("list", "data", "val", 2)
    # Whole numbers among names are names.
    write_list("a.png,dog\nb.png,7\n")
    assert open_source("list", "data", "train", 2).class_names == ("7", "dog")
    # Evaluation needs no training list.
    Path("data/train.csv").unlink()
    write_list("c.png,1\n", "val.txt")
    assert list(open_source("list", "data", "val", 2).labels) == [1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.png,0\nb.png\nc.png,1\n", "data/train.csv:2: must be a path and a label"),
        ("a.png,0\nb.png,1,x\nc.png,1\n", "data/train.csv:2: must be a path and a label"),
        ("a.png,0\nb.png,\nc.png,1\n", "data/train.csv:2: must be a path and a label"),
        ("a.png 0\nb.png\nc.png 1\n", "data/train.csv:2: must be a path and a label"),
        ("path,label\na.png,0\n\nb.png,2\n", "data/train.csv:4: label must be a whole number from 0 to 1. Received: 2"),
        ("a.png,0\nb.png,-1\n", "data/train.csv:2: label must be a whole number from 0 to 1. Received: -1"),
        ("a.png,0\nb.png,1\n./a.png,1\n", "data/train.csv:3: names the image of line 1 again. Received: a.png"),
        ("a.png,0\nb.png,1\na.png,0\n", "data/train.csv:3: names the image of line 1 again. Received: a.png"),
        ('"two\nlines.png",0\nb.png,9\n', "data/train.csv:3: label must be a whole number"),
        ("a.png,0\nb.png,0\n", "data/train.csv: must name images of every class from 0 to 1. Received: none of 1"),
        ("a.png,cat\nb.png,dog\nc.png,cow\n", "data: holds 3 classes, the model has num_classes 2"),
        ("x.png,0\na.png,0\ny.png,1\n", "data/train.csv: names 2 images that are not there. Received: x.png in line 1"),
        ("a.png,0\nfolder,1\n", "data/train.csv: names 1 images that are not there. Received: folder in line 2"),
        ('a.png,0\n"b.png,1\n', "data/train.csv:2: cannot be read as CSV: "),
        ('a.png,0\n"b.png"x,1\n', "data/train.csv:2: cannot be read as CSV: "),
        ("", "data/train.csv: must name images"),
        ("path,label\n", "data/train.csv: must name images"),
        (
            "path,label\nimage,0\nb.png,1\n",
            "data/train.csv: names 1 images that are not there. Received: image in line 2",
        ),
        ("a.png,0\nb\0.png,1\n", r"data/train.csv: names 1 images that are not there. Received: 'b\x00.png' in line 2"),
        (f"a.png,0\n{'b' * 999},1\n", f"data/train.csv: names 1 images that are not there. Received: {'b' * 100} in"),
    ],
)
def test_refused(text, words):
    write_images("a.png", "b.png", "c.png", "two\nlines.png", "folder/d.png")
    write_list(text)
    with pytest.raises(DataError) as caught:
        open_source("list", "data", "train", 2)
    assert str(caught.value).startswith(words)
    assert len(caught.value.lines) == 1


def test_lists_that_cannot_be_used():
    write_images("a.png", "b.png")
    with pytest.raises(DataError, match=r"^data_url: must hold a list train. Received: data. Known: train.csv"):
        open_source("list", "data", "train", 2)
    path = write_list("a.png,0\nb.png,1\n")
    with pytest.raises(DataError, match=r"^data_url: has no list val: add one, or set val_fraction"):
        open_source("list", "data", "val", 2)
    with pytest.raises(DataError, match=r"^data_url: has no list val: add one, or set val_fraction"):
        open_source("list", str(path), "val", 2)
    write_list("a.png,0\n", "train.txt")
    with pytest.raises(DataError, match=r"^data: must hold one list train. Received: train.csv, train.txt$"):
        open_source("list", "data", "train", 2)
    with pytest.raises(DataError, match=r"^data_url: no such file or folder. Received: nowhere.csv$"):
        open_source("list", "nowhere.csv", "train", 2)
    Path("data/train.txt").unlink()
    path.write_bytes("Käfer.png,0\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"^data/train.csv: must be UTF-8 text"):
        open_source("list", "data", "train", 2)


def test_one_list_is_split_in_a_fixed_way():
    names = [f"{index}.png" for index in range(20)]
    write_images(*names)
    path = write_list("".join(f"{name},{'cat' if index < 15 else 'dog'}\n" for index, name in enumerate(names)))
    parts = {split: open_source("list", str(path), split, 2, val_fraction=0.2) for split in ("train", "val")}
    assert sorted([*parts["train"].paths, *parts["val"].paths]) == sorted(names)
    assert (list(parts["val"].labels), len(parts["train"])) == ([0, 0, 0, 1], 16)
    # A list val goes before the fraction.
    write_list("0.png,cat\n", "val.csv")
    assert open_source("list", "data", "val", 2, val_fraction=0.2).paths == ("0.png",)
    assert len(open_source("list", "data", "train", 2, val_fraction=0.2)) == 20


FIELD = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)


@given(st.lists(st.tuples(FIELD, FIELD), max_size=4), st.sampled_from([",", "\t", " ", ";"]))
def test_any_text_is_a_list_or_an_error_of_the_data(tmp_path_factory, rows, separator):
    folder = tmp_path_factory.mktemp("data")
    (folder / "train.csv").write_bytes("\n".join(map(separator.join, rows)).encode())
    with pytest.raises(DataError) as caught:
        open_source("list", str(folder), "train", 2)
    assert len(str(caught.value).splitlines()) == 1
