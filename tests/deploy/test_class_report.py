"""Tables of classes: counts by hand, and short on a terminal however many classes there are."""

import csv

import numpy as np

from src.deploy.class_report import ClassReport
from src.metrics import top_counts


def report(K: int, N: int, seed: int = 0) -> tuple[ClassReport, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    label_N = np.arange(N) % K
    logits_NK = random.standard_normal((N, K)).astype(np.float32)
    # Two of three are right.
    logits_NK[np.arange(N), label_N] += 9 * (np.arange(N) % 3 > 0)
    return ClassReport.of(logits_NK, label_N, [f"class {k}" for k in range(K)]), logits_NK, label_N


def test_counts_add_up():
    found, logits_NK, label_N = report(30, 900)
    counts = top_counts(logits_NK, label_N)
    assert (found.images_K.sum(), found.top1_K.sum(), found.top5_K.sum()) == (counts.total, counts.top1, counts.top5)
    np.testing.assert_array_equal(found.images_K, np.bincount(label_N))
    np.testing.assert_array_equal(found.confusion_KK.diagonal(), found.top1_K)
    np.testing.assert_array_equal(found.confusion_KK.sum(0), np.bincount(logits_NK.argmax(1), minlength=30))


def test_equal_scores_and_few_classes():
    logits_NK = np.zeros((4, 3), np.float32)
    found = ClassReport.of(logits_NK, np.array([0, 1, 2, 2]), ["a", "b", "c"])
    assert found.top1_K.tolist() == [1, 0, 0]
    assert found.top5_K.tolist() == [1, 1, 2]
    assert found.confusion_KK.tolist() == [[1, 0, 0], [1, 0, 0], [2, 0, 0]]


def test_a_thousand_classes_on_a_terminal(tmp_path):
    found, _, _ = report(1000, 5000)
    classes, confusions = found.per_class_text().splitlines(), found.confusion_text().splitlines()
    assert classes[-1] == "(20 of 1000 classes, the smallest top-1 first; per_class.csv has all)"
    wrong = np.count_nonzero(found.confusion_KK) - np.count_nonzero(found.top1_K)
    assert confusions[-1] == f"(20 of {wrong} confusions, the most frequent first; confusion.csv has the whole matrix)"
    assert len(classes) == len(confusions) == 22
    assert max(map(len, classes + confusions)) <= 100
    shares = [float(line.split("%")[0].split()[-1]) for line in classes[1:-1]]
    assert shares == sorted(shares)
    assert shares[0] == round(100 * (found.top1_K / found.images_K).min(), 2)
    found.write(tmp_path)
    with (tmp_path / "per_class.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["top1_correct"]) for row in rows] == found.top1_K.tolist()
    with (tmp_path / "confusion.csv").open() as stream:
        head, *rows = csv.reader(stream)
    assert head[1:] == [row[0] for row in rows] == list(found.names)
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], int), found.confusion_KK)


def test_the_most_frequent_confusions_come_first():
    label_N, first_N = np.array([0] * 9 + [1] * 5 + [2] * 3), np.array([3] * 7 + [0] * 2 + [4] * 4 + [1] + [2] * 3)
    found = ClassReport.of(np.eye(13)[first_N], label_N, [f"c{k}" for k in range(13)])
    lines = [line.split() for line in found.confusion_text().splitlines()]
    assert lines[1:3] == [["0", "c0", "3", "c3", "7"], ["1", "c1", "4", "c4", "4"]]
    assert lines[3][:4] == ["(2", "of", "2", "confusions,"]


def test_a_small_matrix_is_whole():
    found, _, _ = report(12, 600)
    lines = found.confusion_text().splitlines()
    assert len(lines) == 13
    matrix = [[int(count) for count in line.split()[3:]] for line in lines[1:]]
    np.testing.assert_array_equal(matrix, found.confusion_KK)
    assert len(found.per_class_text().splitlines()) == 13


def test_names_stay_on_their_line(tmp_path):
    names = ["a\nb", "x" * 60, 'c,"d"', "\udce4 ß"]
    found = ClassReport.of(np.eye(4), np.arange(4), names)
    assert len(found.per_class_text().splitlines()) == len(found.confusion_text().splitlines()) == 5
    assert f"   1 {'x' * 21}...{'1':>9} " in found.per_class_text()
    found.write(tmp_path)
    with (tmp_path / "per_class.csv").open() as stream:
        assert [row["name"] for row in csv.DictReader(stream)] == ["a?b", "x" * 60, 'c,"d"', "? ß"]
