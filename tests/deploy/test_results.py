"""Names, labels and results between preprocess.py, the C++ runner and postprocess.py."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.config import load_flags
from src.deploy.results import PostprocessConfig, class_names, input_names, postprocess, read_labels, read_logits
from src.errors import DataError


def test_equal_names_are_kept_apart():
    names = input_names(["a/x.png", "b/x.png", "a/y.jpg", "a/y.png", "a/z.tar.png"])
    assert names == {
        "a/x.png": "a/x",
        "b/x.png": "b/x",
        "a/y.jpg": "a/y.jpg",
        "a/y.png": "a/y.png",
        "a/z.tar.png": "a/z.tar",
    }


SIMILAR = [f"a/{stem}{suffix}" for stem in ("x", "x.jpg", "x.png", "x.jpg.png") for suffix in (".jpg", ".png")]


@given(st.sets(st.sampled_from(SIMILAR), min_size=1))
def test_no_two_images_share_a_name(images):
    names = input_names(sorted(images))
    assert len(set(names.values())) == len(images)


def write(tmp_path, logits_NK, labels):
    for name, row in zip(labels, logits_NK, strict=True):
        path = tmp_path / "results" / f"{name.removesuffix('.png')}_0.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        row.astype(np.float32).tofile(path)
    label_file = tmp_path / "labels.json"
    label_file.write_text(json.dumps(labels))
    return PostprocessConfig(result_dir=str(tmp_path / "results"), label_file=str(label_file))


LABELS = {"a/1.png": 0, "a/2.png": 1, "b/1.png": 2}
LOGITS = np.eye(3)[[0, 1, 0]]


def test_the_zoos_two_lines(tmp_path, capsys):
    counts = postprocess(write(tmp_path, LOGITS, LABELS))
    assert (counts.total, counts.top1) == (3, 2)
    out = capsys.readouterr().out
    assert out.startswith(f"Top1 acc:  {2 / 3}\nTop5 acc:  1.0\n\n")
    assert "after allreduce eval" not in out


def test_tables_of_classes(tmp_path, capsys):
    postprocess(write(tmp_path, LOGITS, LABELS | {"a/2.png": 0}).model_copy(update={"output_dir": "new folder"}))
    out = capsys.readouterr().out.splitlines()
    assert [line.split() for line in out[3:7]] == [
        ["class", "images", "precision", "recall", "F1", "top-5", "taken", "for"],
        ["a", "2", "50.00%", "50.00%", "50.00%", "100.00%", "1", "(1)"],
        ["1", "0", "0.00%", "-", "0.00%", "-"],
        ["b", "1", "-", "0.00%", "0.00%", "100.00%", "a", "(1)"],
    ]
    assert [line.split()[-3:] for line in out[9:]] == [
        ["0", "1", "2"],
        ["1", "1", "0"],
        ["0", "0", "0"],
        ["1", "0", "0"],
    ]
    assert Path("new folder/per_class.csv").read_text().splitlines()[1:] == [
        "0,a,2,2,1,0.5,0.5,0.5,1.0,1,1",
        "1,1,0,1,0,0.0,,0.0,,,0",
        "2,b,1,0,0,,0.0,0.0,1.0,a,1",
    ]
    assert Path("new folder/confusion.csv").read_text() == "label \\ first class,a,1,b\na,1,1,0\n1,0,0,0\nb,1,0,0\n"


def test_the_line_of_the_zoos_vit(tmp_path, capsys):
    labels = {"x_0.png": 3, "x_10.png": 3, "x_1.png": 8}
    config = write(tmp_path, np.eye(10)[[3, 3, 0]], labels)
    expected = f"Top1 acc:  {2 / 3}\nTop5 acc:  {2 / 3}\nafter allreduce eval: top1_correct=2, tot=3, acc=66.67%\n"
    counts = postprocess(config.model_copy(update={"dataset_name": "cifar10"}))
    assert (counts.total, counts.top1) == (3, 2)
    assert capsys.readouterr().out.startswith(expected)
    # Its own words: no name of the data set, a folder of labels.
    for name, label in labels.items():
        (tmp_path / "label").mkdir(exist_ok=True)
        np.array(label, np.int32).tofile(tmp_path / "label" / name.replace(".png", ".bin"))
    words = ["--label_file", str(tmp_path / "label"), "--result_path", config.result_dir]
    postprocess(load_flags(PostprocessConfig, "postprocess", words))
    assert capsys.readouterr().out.startswith(expected)


def test_results_come_in_the_order_asked_for(tmp_path):
    write(tmp_path, LOGITS, LABELS)
    images = ["b/1.png", "a/1.png", "a/2.png"]
    np.testing.assert_array_equal(read_logits(tmp_path / "results", images), LOGITS[[2, 0, 1]])


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\0" * 8, "12 bytes"), (b"", "12 bytes"), (np.full(3, np.nan, np.float32).tobytes(), "not finite")],
)
def test_results_of_the_wrong_kind(content, words, tmp_path):
    config = write(tmp_path, LOGITS, LABELS)
    (tmp_path / "results" / "a" / "2_0.bin").write_bytes(content)
    with pytest.raises(DataError, match=rf"{words}.*a/2_0\.bin"):
        postprocess(config)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "class index"),
        ("[1]", "class index"),
        ("{", "cannot be read"),
        ('{"a.png": "x"}', "whole number"),
        ('{"a.png": true}', "whole number"),
        ('{"a.png": -1}', "whole number"),
    ],
)
def test_label_files_that_are_none(text, words, tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_labels(path)


@pytest.mark.parametrize("content", [b"", b"\0" * 3, b"\0" * 8, b"\xff" * 4])
def test_label_folders_that_are_none(content, tmp_path):
    with pytest.raises(DataError, match="holds no labels"):
        read_labels(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.bin").write_bytes(b"\1\0\0\0")
    assert read_labels(tmp_path) == {"a/1.bin": 1}
    (tmp_path / "a" / "2.bin").write_bytes(content)
    with pytest.raises(DataError, match=r"one int32 from 0 each: 1 of 2\. Received: a/2\.bin"):
        read_labels(tmp_path)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ({"a/1.png": 0, "b/x/1.png": 2}, ["a", "1", "b"]),
        ({"a/1.png": 0, "b/1.png": 0, "c/1.png": 1}, ["0", "c", "2"]),
        ({"val/1.png": 0, "val/2.png": 1}, ["0", "1", "2"]),
        ({"1.png": 0, "2.png": 1}, ["0", "1", "2"]),
    ],
)
def test_class_names_of_folders(labels, names, tmp_path):
    assert class_names(tmp_path / "labels.json", labels, 3) == names


@pytest.mark.parametrize("text", ["{", "[1, 2, 3]", '["x", "y"]', '"xyz"', "\0"])
def test_class_names_beside_the_labels(text, tmp_path):
    (tmp_path / "class_names.json").write_text('["x", "y", "z"]')
    assert class_names(tmp_path / "labels.json", {"a/1.png": 0}, 3) == ["x", "y", "z"]
    (tmp_path / "class_names.json").write_text(text)
    assert class_names(tmp_path / "labels.json", {"a/1.png": 0}, 3) == ["a", "1", "2"]


def test_label_beyond_the_classes(tmp_path):
    with pytest.raises(DataError, match="below the 3 classes"):
        postprocess(write(tmp_path, LOGITS, {**LABELS, "b/1.png": 3}))


def test_what_is_not_there(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_labels(tmp_path / "absent.json")
    with pytest.raises(DataError, match="no such folder"):
        read_logits(tmp_path / "absent", ["a.png"])
