"""The report at the end of a run."""

import json
import re
from pathlib import Path

import pytest

from tests import small_run
from tests.command import command, python
from tests.cpp_runner import ROOT
from tests.report.test_page import headings


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small_run.write_images(tmp_path_factory.mktemp("data"))


def best_top1(folder: Path, key: str = "top1") -> str:
    """Of the epochs of a run, as a report says it."""
    return f"<dt>top-1</dt><dd><b>{100 * max(line[key] for line in small_run.epoch_records(folder)):.2f} %</b>"


def test_a_run_ends_with_a_report_of_its_best_weights(data):
    words = small_run.arguments(data, Path("out"), epochs=2, report=True)
    code, said, _ = command("train", *words)
    assert code == 0
    assert said[-2:] == ["train success", "=> report in out/ckpt_0/report.html"]
    shown = Path("out/ckpt_0/report.html").read_text(encoding="utf-8")
    assert {"Learning curves", "Classes", "Calibration", "Data"} <= set(headings(shown))
    assert best_top1(Path("out/ckpt_0")) in shown
    assert "out/ckpt_0/best.ckpt</code>" in shown
    # Every mistake beside where the network looked.
    assert shown.count('alt="where the network looked: ') == shown.count("<figcaption>is ") > 0
    # eval.py gives the same numbers for the same weights.
    code, _, _ = command("eval", *words, "--pretrained", "out/ckpt_0/best.ckpt", "--report", "again.html")
    assert code == 0
    again = Path("again.html").read_text(encoding="utf-8")
    assert numbers(again) == numbers(shown)


def numbers(shown: str) -> list[str]:
    """What the tiles say of accuracies, loss and calibration."""
    return re.findall(r"<dd><b>(.*?)</b>", shown)[:4]


def test_a_run_without_evaluation_has_its_curves_alone(data):
    words = small_run.arguments(data, Path("out"), epochs=1, report=True, do_val=False)
    code, _, _ = command("train", *words)
    assert code == 0
    shown = Path("out/ckpt_0/report.html").read_text(encoding="utf-8")
    assert headings(shown) == ["Learning curves", "Data", "Settings", "Versions"]
    # A run that is over says it again.
    Path("out/ckpt_0/report.html").unlink()
    code, said, _ = command("train", *words)
    assert (code, said[-1]) == (0, "=> report in out/ckpt_0/report.html")


@pytest.mark.slow
def test_a_moving_average_is_what_is_reported(data):
    code, _, _ = command("train", *small_run.arguments(data, Path("out"), epochs=2, report=True, with_ema=True))
    assert code == 0
    shown = Path("out/ckpt_0/report.html").read_text(encoding="utf-8")
    assert best_top1(Path("out/ckpt_0"), "ema_top1") in shown
    assert ", moving average of the weights." in shown


@pytest.mark.slow
def test_ranks_write_one_report(data, tmp_path):
    words = small_run.arguments(data, "out", epochs=2, report=True, verified_export=True)
    ran = python(ROOT / "distribute.py", "--device_num", 2, ROOT / "train.py", *words, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    (verified,) = tmp_path.rglob("verify.json")
    assert json.loads(verified.read_text())["accepted"]
    (target,) = tmp_path.rglob("report.html")
    assert best_top1(target.parent) in target.read_text(encoding="utf-8")
