"""Scores of every class, for a terminal and as CSV."""

import csv
from pathlib import Path

import pytest

from src.class_table import COLUMNS, class_rows, table_lines, write_class_csv
from tests.report.evaluations import answers


def test_known_rows():
    rows = class_rows(answers([0, 0, 0, 1, 1, 1], [0, 1, 2, 1, 0, 0]), ("ant", "bee", "cat", "dog"))
    ant, bee, cat, dog = rows
    assert (ant.images, ant.answers, ant.right, ant.recall) == (3, 3, 1, pytest.approx(1 / 3))
    # Of equally frequent confusions the one with the first class.
    assert (ant.taken_for, ant.taken) == ("bee", 1)
    assert (bee.taken_for, bee.taken, bee.precision, bee.f1) == ("ant", 2, 0.5, 0.4)
    assert (cat.images, cat.answers, cat.taken_for) == (0, 1, "")
    assert str(dog.precision) == str(dog.recall) == str(dog.f1) == "nan"


def test_a_few_classes_are_shown_whole():
    rows = class_rows(answers([0, 0, 1], [0, 1, 1]), ("ant", "a name that is longer than the column", "cat\x1b[31m"))
    assert table_lines(rows) == [
        "class                     images  precision   recall       F1    top-5  taken for",
        "ant                            2    100.00%   50.00%   66.67%  100.00%  a name that is longe... (1)",
        "a name that is longe...        1     50.00%  100.00%   66.67%  100.00%",
        "cat?[31m                       0          -        -        -        -",
        "mean of the classes            3     75.00%   75.00%   66.67%  100.00%",
    ]


def test_many_classes_are_cut_to_the_hardest_and_the_table_says_so():
    names = tuple(f"class {index}" for index in range(1000))
    label_N = list(range(1000)) * 2
    first_N = [label if label >= 30 else label + 1 for label in range(1000)] + list(range(1000))
    lines = table_lines(class_rows(answers(label_N, first_N), names))
    assert len(lines) == 1 + 20 + 2
    assert [line.split("  ")[0] for line in lines[1:3]] == ["class 1", "class 2"]
    assert lines[-1] == "(20 of 1000 classes, the lowest F1 first; per_class.csv has all of them)"
    assert max(map(len, lines)) <= 100


def test_csv_holds_every_class():
    names = ("ant", 'b,"ee\n', "é\udcff")
    path = write_class_csv(Path("out"), class_rows(answers([0, 0, 1], [0, 1, 1]), names))
    assert path == Path("out/per_class.csv")
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        header, *rows = csv.reader(stream)
    assert tuple(header) == COLUMNS
    assert [row[1] for row in rows] == list(names)
    assert rows[0] == ["0", "ant", "2", "1", "1", "1.0", "0.5", "0.6666666666666666", "1.0", names[1], "1"]
    assert rows[2] == ["2", names[2], "0", "0", "0", "", "", "", "", "", "0"]
