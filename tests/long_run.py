"""Training in processes of its own, one or several ranks, that tests watch, kill and compare."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from src.trainers.checkpoints import committed_checkpoints
from src.trainers.run_log import TIMES
from src.weights.read import read_tensors
from tests import small_run
from tests.oracles import PROJECT

# 12 images, 4 in an update: 60 updates, which take some seconds.
EPOCHS = 20
ALL_ON = dict(
    epochs=EPOCHS,
    with_ema=True,
    ema_decay=0.9,
    ema_warmup=True,
    drop_path_rate=0.2,
    mix_up=0.8,
    log_every=2,
    save_steps=1,
    # Random images teach nothing.
    divergence_guard_epochs=0,
)
# A scale that is too large at first, and grows until it is again and again: overflows are part of the run.
SCALED = dict(amp_level="O2", initial_loss_scale=2.0**66, loss_scale_window=2)
_PATIENCE = 200


class Job:
    """A run on `small_run`'s images in ``folder / "run"``; its ranks write their logs into ``folder``.

    Args:
        data: the images.
        folder: of the job.
        ranks: processes that train together; together they take 4 images per update, unless flags say else.
        script: what each of them runs.
        flags: of the command line.
    """

    def __init__(self, data: Path, folder: Path, ranks: int = 1, script: Path = PROJECT / "train.py", **flags: object):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.ranks, self.run = folder, ranks, folder / "run" / "ckpt_0"
        launcher = [PROJECT / "distribute.py", "--device_num", ranks] if ranks > 1 else []
        flags = {"batch_size": 4 // ranks, "device_target": "CPU", **flags}
        words = [sys.executable, *launcher, script, *small_run.arguments(data, folder / "run", **flags)]
        self.words = list(map(str, words))

    def start(self, **options: object) -> subprocess.Popen:
        """Start it, or go on with it."""
        piped = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return subprocess.Popen(self.words, cwd=self.folder, **{**piped, **options})

    def ended(self, **options: object) -> subprocess.CompletedProcess:
        """Start it and wait for its end."""
        process = self.start(**options)
        said, errors = process.communicate(timeout=_PATIENCE)
        return subprocess.CompletedProcess(self.words, process.returncode, said, errors)

    def done(self, **options: object) -> Path:
        """Start it and wait for its end, which must be a good one; its run directory."""
        ran = self.ended(**options)
        assert ran.returncode == 0, ran.stderr
        return self.run

    def saved_step(self) -> int:
        """Updates that the newest checkpoint holds."""
        places = [path.stem.rpartition("-")[2].split("_") for path in self.run.glob("vit*.json")]
        return max(((int(epoch) - 1) * small_run.STEPS_PER_EPOCH + int(step) for epoch, step in places), default=0)

    def wait_for(self, step: int, process: subprocess.Popen) -> None:
        """Until a checkpoint of this update is there."""
        deadline = time.monotonic() + _PATIENCE
        while self.saved_step() < step:
            assert process.poll() is None, f"ended at update {self.saved_step()}: {process.communicate()}"
            assert time.monotonic() < deadline
            time.sleep(0.003)

    def rank_processes(self, process: subprocess.Popen) -> dict[int, psutil.Process]:
        """The ranks of a job that has begun, by number."""
        found = {}
        for child in psutil.Process(process.pid).children():
            variables = child.environ()
            if variables.get("MS_ROLE") == "MS_WORKER":
                found[int(variables["RANK_ID"])] = child
        return found


def records(run: Path) -> list[dict]:
    """All records of a run without what differs from run to run."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def last_checkpoint(run: Path) -> Path:
    """The newest one of a run."""
    return committed_checkpoints(run)[0]


def assert_same_bits(run: Path, other: Path) -> None:
    """Two runs ended with equal tensors, best ones too, and equal records."""
    for mine, theirs in ((last_checkpoint(run), last_checkpoint(other)), (run / "best.ckpt", other / "best.ckpt")):
        assert mine.name == theirs.name
        mine, theirs = read_tensors(mine), read_tensors(theirs)
        assert mine.keys() == theirs.keys()
        for name in mine:
            np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)
    assert records(run) == records(other)


def assert_same_run(run: Path, other: Path) -> None:
    """They have files of the same names, too: nothing was left lying about."""
    assert_same_bits(run, other)
    assert {path.name for path in run.iterdir()} == {path.name for path in other.iterdir()}


def assert_close(run: Path, other: Path, tolerance: float) -> None:
    """Two runs ended with the same tensors and records but for rounding."""
    mine, theirs = read_tensors(last_checkpoint(run)), read_tensors(last_checkpoint(other))
    assert mine.keys() == theirs.keys()
    for name in mine:
        a, b = mine[name], theirs[name]
        if name.endswith("qkv.bias"):
            # Soft-max does not see a bias of the keys: its gradient is rounding alone, which Adam makes large.
            a, b = (np.delete(array, slice(len(array) // 3, 2 * len(array) // 3)) for array in (a, b))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance, err_msg=name)
    assert len(records(run)) == len(records(other))
    for one, two in zip(records(run), records(other), strict=True):
        assert one.keys() == two.keys()
        for key, value in one.items():
            near = pytest.approx(two[key], rel=tolerance, abs=tolerance) if isinstance(value, float) else two[key]
            assert value == near, (key, one, two)


def assert_gone(processes: list[psutil.Process], seconds: float = 5) -> None:
    """None of them is alive after so long."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def send_together(process: subprocess.Popen, *numbers: signal.Signals) -> None:
    """Signals that a process gets at one moment."""
    process.send_signal(signal.SIGSTOP)
    for number in numbers:
        process.send_signal(number)
    process.send_signal(signal.SIGCONT)
