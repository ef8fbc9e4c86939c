"""The file that collects evaluations."""

import csv
from pathlib import Path

import pytest

from src.files import sha256
from src.report.results_csv import COLUMNS, append_result, result_values
from tests.report.evaluations import answers, evaluation


def rows(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_line_for_every_evaluation():
    path = Path("results.csv")
    one = evaluation(answers([0, 1, 2, 0], [0, 1, 2, 1]))
    for _ in range(2):
        append_result(path, one)
    first, second = rows(path)
    assert tuple(first) == COLUMNS
    assert {**first, "date": ""} == {**second, "date": ""}
    assert (first["arch"], first["set"], first["images"], first["classes"]) == ("cct_7_3x1_32", "folder", "4", "3")
    assert (first["top1"], first["top5"], first["loss"]) == ("0.75", "1.0", "0.25")
    assert float(first["top1_low"]) < 0.75 < float(first["top1_high"])
    assert float(first["calibration_error"]) == pytest.approx(0.15)
    assert first["sha256"] == sha256(Path("weights.ckpt"))
    assert first["date"].endswith("+00:00")


def test_what_a_set_does_not_define_stays_empty():
    accepted = tuple(map(frozenset, ({1}, {1}, {0, 2})))
    one = evaluation(answers([0, 1, 2], [1, 0, 0]), name="imagenet_real", set={"accepted": accepted})
    assert one.is_right.tolist() == [True, False, True]
    values = result_values(one)
    assert (values["set"], values["top1"]) == ("imagenet_real", 2 / 3)
    empty = ("top5", "top5_low", "top5_high", "loss", "calibration_error")
    assert [values[name] for name in empty] == [None] * 5
    assert tuple(values) == COLUMNS
