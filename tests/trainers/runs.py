"""What tests read of the directories of runs of `small_run`."""

import json
from pathlib import Path

import numpy as np

from src.trainers.run_log import TIMES
from src.weights.read import read_tensors


def records(folder: Path) -> list[dict]:
    """All records without what differs from run to run."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def history(folder: Path) -> list[dict]:
    return [record for record in records(folder) if record["kind"] == "epoch"]


def final(folder: Path) -> dict[str, np.ndarray]:
    return read_tensors(folder / "vit_tiny_patch16_2240-4_3.ckpt")


def assert_equal_runs(folder: Path, other: Path) -> None:
    mine, theirs = final(folder), final(other)
    assert mine.keys() == theirs.keys()
    for name in mine:
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)
    assert records(folder) == records(other)


def warnings(capsys) -> list[str]:
    """What was printed on stderr, without the hint that depends on the machine."""
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if line.startswith("warning") and "data wait" not in line]
