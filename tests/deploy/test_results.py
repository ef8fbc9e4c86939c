"""Names, labels and results between preprocess.py, the C++ runner and postprocess.py."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.deploy.results import PostprocessConfig, input_names, postprocess, read_labels, read_logits
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
    assert capsys.readouterr().out == f"Top1 acc:  {2 / 3}\nTop5 acc:  1.0\n"


def test_cifar10_is_counted_like_any_other(tmp_path, capsys):
    labels = {"cat/test_batch_0": 3, "cat/test_batch_10": 3, "ship/test_batch_1": 8}
    config = write(tmp_path, np.eye(10)[[3, 3, 0]], labels)
    counts = postprocess(config.model_copy(update={"dataset_name": "cifar10"}))
    assert (counts.total, counts.top1) == (3, 2)
    assert capsys.readouterr().out.startswith(f"Top1 acc:  {2 / 3}\n")


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


def test_label_beyond_the_classes(tmp_path):
    with pytest.raises(DataError, match="below the 3 classes"):
        postprocess(write(tmp_path, LOGITS, {**LABELS, "b/1.png": 3}))


def test_what_is_not_there(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_labels(tmp_path / "absent.json")
    with pytest.raises(DataError, match="no such folder"):
        read_logits(tmp_path / "absent", ["a.png"])
