"""The log of a run: records per interval and per epoch in files, and what is said on the terminal.

    ckpt_0/metrics.jsonl     a record per line: kind "step", the means of ``log_every`` updates, or kind "epoch"
    ckpt_0/metrics.csv       a row per epoch
    ckpt_0/tensorboard/      event files with the same numbers

A run that was cut off and gone on with has the same records as one that was not, but for `TIMES`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from src.schema import Config
from src.trainers.log_files import (
    METRICS_CSV,
    METRICS_JSONL,
    TENSORBOARD,
    EpochTable,
    EventFile,
    JsonLines,
    read_records,
    without_infinities,
)
from src.trainers.progress import Progress, print_accuracy, print_data_wait, print_epoch, print_overflow
from src.trainers.schedules import run_epochs
from src.trainers.step_record import StepRecord

# Keys of a record that differ from run to run.
TIMES = ("seconds", "data_wait", "images_per_second")


@dataclass
class Sums:
    """What adds up over updates; losses and norms of those that were not skipped."""

    steps: int = 0
    overflows: int = 0
    images: int = 0
    loss: float = 0.0
    grad_norm: float = 0.0
    seconds: float = 0.0
    data_wait: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        names = [field.name for field in fields(Sums)]
        return Sums(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def numbers(self) -> dict[str, Any]:
        """Means of losses and norms, sums of the rest; None for a mean of nothing."""
        updates = self.steps - self.overflows
        return {
            "loss": self.loss / updates if updates else None,
            "grad_norm": self.grad_norm / updates if updates else None,
            "steps": self.steps,
            "overflows": self.overflows,
            "images": self.images,
            "seconds": self.seconds,
            "data_wait": self.data_wait,
            "images_per_second": self.images / self.seconds if self.seconds else None,
        }


class RunLog:
    """The log of one run; a context manager. Only the first rank writes and prints, every rank keeps count.

    Call `step` after every update, `evaluation` for what was measured after an epoch, then `epoch`. Opening it takes
    back what files hold of updates after ``start_step``.

    Args:
        folder: the run directory; the caller holds its lock.
        config: of the run, resolved.
        steps_per_epoch: updates.
        start_step: updates that are done.
        state: what `checkpoint_state` gave at that step; without it, sums begin anew in the middle of an epoch.
        is_first_rank: of all processes that train together.
        workers: processes that read images, for the hint on waiting.

    Raises:
        OSError: from every method: the disk is full or read-only. The files then end with a whole record.
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        steps_per_epoch: int,
        *,
        start_step: int = 0,
        state: Mapping[str, Any] | None = None,
        is_first_rank: bool = True,
        workers: int = 0,
    ):
        self.steps_per_epoch, self.log_every, self.workers = steps_per_epoch, config.run.log_every, workers
        self._interval, self._epoch = Sums(), Sums()
        self._last: StepRecord | None = None
        self._evaluated: dict[str, float] = {}
        if state:
            self._interval, self._epoch = Sums(**state["interval"]), Sums(**state["epoch"])
            self._last = StepRecord(**state["last"]) if state["last"] else None
        # An epoch whose sums are still wanted has not been recorded, though its last update may be done.
        first_open = self._last.epoch if (self._interval + self._epoch).steps else math.inf
        records = [
            record
            for record in read_records(folder / METRICS_JSONL)
            # By epochs first: the updates before may have had another size, and other numbers.
            if (record["epoch"] <= start_step // steps_per_epoch or record["step"] <= start_step)
            and (record["kind"] != "epoch" or record["epoch"] < first_open)
        ]
        #: Records of the epochs that are done, the earliest first; on other ranks than the first, of this process.
        self.epochs = [record for record in records if record["kind"] == "epoch"]
        self._sinks: list[JsonLines | EpochTable | EventFile] = []
        self._progress = Progress(run_epochs(config.schedule).stop, steps_per_epoch) if is_first_rank else None
        if is_first_rank:
            self._sinks = [
                JsonLines(folder / METRICS_JSONL, records),
                EpochTable(folder / METRICS_CSV, records),
                EventFile(folder / TENSORBOARD, start_step),
            ]

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self._progress.close()
        for sink in self._sinks:
            if sink.file:
                sink.file.close()

    def step(self, record: StepRecord) -> None:
        """Count an update; after every ``log_every`` of an epoch and after its last one, write their record."""
        sums = self._interval
        sums.steps += 1
        sums.images += record.images
        sums.seconds += record.seconds
        sums.data_wait += record.data_wait
        if record.skipped:
            sums.overflows += 1
            if self._progress:
                print_overflow()
        else:
            sums.loss += record.loss
            sums.grad_norm += record.grad_norm
        done = (record.step - 1) % self.steps_per_epoch + 1
        self._last = record
        if self._progress and self._progress.is_due():
            running = (self._epoch + sums).numbers() | _now(record)
            self._progress.draw(record.epoch, done, running | {"loss": record.loss, "grad_norm": record.grad_norm})
        if done % self.log_every == 0 or done == self.steps_per_epoch:
            self._end_interval(record, done)

    def evaluation(self, numbers: Mapping[str, float]) -> None:
        """Add to the epoch's record what was measured after it, as ``val_loss``, ``top1``, ``top5``, ``val_images``.

        The epoch's last update must have been counted. ``top1`` is printed beside the best of the run.
        """
        self._evaluated |= numbers
        if self._progress and "top1" in numbers:
            best = max([numbers["top1"], *(past["top1"] for past in self.epochs if past.get("top1") is not None)])
            print_accuracy(self._last.epoch, numbers["top1"], best)

    def epoch(self) -> dict[str, Any]:
        """Write the record of the epoch whose last update was counted, and return it."""
        last, sums = self._last, self._epoch
        record = _placed("epoch", last) | sums.numbers() | _now(last) | {"last_loss": last.loss} | self._evaluated
        record = without_infinities(record)
        self._epoch, self._evaluated = Sums(), {}
        self.epochs.append(record)
        self._write(record)
        self._sync()
        return record

    def checkpoint_state(self) -> dict[str, Any]:
        """What a checkpoint keeps of this log, as JSON can; all that was written so far is on the disk afterwards."""
        self._sync()
        last = without_infinities(self._last._asdict()) if self._last else None
        return {"interval": asdict(self._interval), "epoch": asdict(self._epoch), "last": last}

    def _end_interval(self, last: StepRecord, done: int) -> None:
        record = without_infinities(_placed("step", last) | self._interval.numbers() | _now(last))
        self._epoch, self._interval = self._epoch + self._interval, Sums()
        self._write(record)
        if self._progress is None:
            return
        if done % self.log_every == 0:
            self._progress.print_interval(done, record)
        if done == self.steps_per_epoch:
            self._progress.close()
            print_epoch(last.epoch, done, last.loss, self._epoch.seconds)
            print_data_wait(self._epoch.data_wait, self._epoch.seconds, self.workers)

    def _write(self, record: dict[str, Any]) -> None:
        for sink in self._sinks:
            sink.write(record)

    def _sync(self) -> None:
        for sink in self._sinks:
            if sink.file:
                sink.file.sync()


def _placed(kind: str, last: StepRecord) -> dict[str, Any]:
    return {"kind": kind, "epoch": last.epoch, "step": last.step}


def _now(last: StepRecord) -> dict[str, Any]:
    return {"lr": last.lr, "loss_scale": last.loss_scale}
