"""The confusion matrix: whole as CSV, and short on a terminal however many classes there are."""

import csv
from pathlib import Path

import numpy as np

from src.deploy.confusion import confusion_lines, write_confusion_csv
from src.metrics import predictions


def drawn(K: int, N: int) -> np.ndarray:
    """Predictions of which one of three is wrong."""
    label_N = np.arange(N) % K
    logits_NK = np.random.default_rng(0).standard_normal((N, K)).astype(np.float32)
    logits_NK[np.arange(N), label_N] += 9 * (np.arange(N) % 3 > 0)
    return predictions(logits_NK, label_N)


def counted(prediction_N: np.ndarray, K: int) -> np.ndarray:
    confusion_KK = np.zeros((K, K), int)
    np.add.at(confusion_KK, (prediction_N["label"], prediction_N["first"]), 1)
    return confusion_KK


def test_a_thousand_classes_on_a_terminal(tmp_path):
    prediction_N, names = drawn(1000, 5000), [f"class {k}" for k in range(1000)]
    confusion_KK = counted(prediction_N, 1000)
    lines = confusion_lines(prediction_N, names)
    wrong = np.count_nonzero(confusion_KK) - np.count_nonzero(confusion_KK.diagonal())
    assert lines[-1] == f"(20 of {wrong} confusions, the most frequent first; confusion.csv has the whole matrix)"
    assert len(lines) == 22
    assert max(map(len, lines)) <= 100
    assert write_confusion_csv(tmp_path, prediction_N, names) == tmp_path / "confusion.csv"
    with (tmp_path / "confusion.csv").open() as stream:
        head, *rows = csv.reader(stream)
    assert head[1:] == [row[0] for row in rows] == names
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], int), confusion_KK)


def test_the_most_frequent_confusions_come_first():
    label_N, first_N = np.array([0] * 9 + [1] * 5 + [2] * 3), np.array([3] * 7 + [0] * 2 + [4] * 4 + [1] + [2] * 3)
    found = confusion_lines(predictions(np.eye(13)[first_N], label_N), [f"c{k}" for k in range(13)])
    lines = [line.split() for line in found]
    assert lines[1:3] == [["0", "c0", "3", "c3", "7"], ["1", "c1", "4", "c4", "4"]]
    assert lines[3][:4] == ["(2", "of", "2", "confusions,"]


def test_a_small_matrix_is_whole():
    prediction_N = drawn(12, 600)
    lines = confusion_lines(prediction_N, [f"class {k}" for k in range(12)])
    assert len(lines) == 13
    matrix = [[int(count) for count in line.split()[3:]] for line in lines[1:]]
    np.testing.assert_array_equal(matrix, counted(prediction_N, 12))


def test_names_stay_on_their_line():
    names = ["a\nb", "x" * 60, 'c,"d"', "\udce4 ß"]
    prediction_N = predictions(np.eye(4), np.arange(4))
    lines = confusion_lines(prediction_N, names)
    assert len(lines) == 5
    assert len({len(line) for line in lines}) == 1
    write_confusion_csv(Path(), prediction_N, names)
    with Path("confusion.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        assert [row[0] for row in csv.reader(stream)][1:] == names
