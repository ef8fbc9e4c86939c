"""What a run writes about itself while it runs: lines of JSON, a table of epochs, TensorBoard's event files."""

from __future__ import annotations

import csv
import io
import json
import math
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from src.files import AppendedFile, write_text

Record = Mapping[str, Any]
METRICS_JSONL, METRICS_CSV, TENSORBOARD = "metrics.jsonl", "metrics.csv", "tensorboard"
COLUMNS = (
    *("epoch", "step", "loss", "last_loss", "grad_norm", "lr", "loss_scale", "overflows"),
    *("images", "seconds", "data_wait", "images_per_second"),
    *("val_loss", "top1", "top5", "val_images", "ema_val_loss", "ema_top1", "ema_top5"),
)
_EVENTS = "events.out.tfevents."


def without_infinities(record: Record) -> dict[str, Any]:
    """The record with None for numbers that are not finite, which JSON cannot say."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()
    }


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a ``metrics.jsonl``; none without the file.

    What is no whole record, as the last line of a killed run may be, is left out.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [record for record in map(_parsed, lines) if record is not None]


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    is_whole = isinstance(record, dict) and all(isinstance(record.get(key), int) for key in ("epoch", "step"))
    return record if is_whole and record.get("kind") in {"step", "epoch"} else None


class JsonLines:
    """``metrics.jsonl``: one JSON object per line.

    Args:
        path: the file; it is made to hold the records given, then grows.
        records: what it holds from an earlier start.
    """

    def __init__(self, path: Path, records: list[dict[str, Any]]):
        _make_hold(path, b"".join(map(_json_line, records)))
        self.file = AppendedFile(path)

    def write(self, record: Record) -> None:
        """Add a record."""
        self.file.append(_json_line(record))


class EpochTable:
    """``metrics.csv``: a row per epoch under the header `COLUMNS`; what an epoch does not have stays empty.

    Args:
        path: the file; it is made to hold the epochs given, then grows.
        records: what it holds from an earlier start; those of kind ``epoch`` count.
    """

    def __init__(self, path: Path, records: list[dict[str, Any]]):
        epochs = [record for record in records if record["kind"] == "epoch"]
        _make_hold(path, b"".join([_csv_row(COLUMNS), *map(_csv_epoch, epochs)]))
        self.file = AppendedFile(path)

    def write(self, record: Record) -> None:
        """Add a row, if the record is an epoch's."""
        if record["kind"] == "epoch":
            self.file.append(_csv_epoch(record))


class EventFile:
    """TensorBoard's scalars ``step/KEY`` and ``epoch/KEY``, in a new file for every start of a run.

    tensorboardX's own writer is not used: when its thread cannot write, the run waits for it for ever. Nor can its file
    names tell two starts within a second apart.

    Args:
        folder: of the event files; the new one is made with its first record.
        start_step: updates done before; TensorBoard drops what earlier files hold of later ones.
    """

    def __init__(self, folder: Path, start_step: int):
        self.folder, self.start_step = folder, start_step
        self.file: AppendedFile | None = None

    def write(self, record: Record) -> None:
        """Add the numbers of a record, at its step."""
        if self.file is None:
            self.file = self._begun()
        scalars = [
            Summary.Value(tag=f"{record['kind']}/{key}", simple_value=value)
            for key, value in record.items()
            if key not in {"kind", "epoch", "step"} and value is not None
        ]
        self._append(step=record["step"], summary=Summary(value=scalars))

    def _begun(self) -> AppendedFile:
        # TensorBoard reads the files in the order of their names, whatever the clock has done since.
        earlier = [int(path.name[len(_EVENTS) :].partition(".")[0]) for path in self.folder.glob(f"{_EVENTS}*.mindvit")]
        second = max([int(time.time()), *(one + 1 for one in earlier)])
        self.file = AppendedFile(self.folder / f"{_EVENTS}{second:010d}.mindvit")
        self._append(file_version="brain.Event:2")
        if earlier:
            self._append(step=self.start_step + 1, session_log=SessionLog(status=SessionLog.START))
        return self.file

    def _append(self, **fields: Any) -> None:
        event = Event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(event))
        checks = [struct.pack("<I", masked_crc32c(part)) for part in (length, event)]
        self.file.append(length + checks[0] + event + checks[1])


def _json_line(record: Record) -> bytes:
    return json.dumps(without_infinities(record), allow_nan=False).encode() + b"\n"


def _csv_epoch(record: Record) -> bytes:
    return _csv_row([record.get(column) for column in COLUMNS])


def _csv_row(values: list | tuple) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()


def _make_hold(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        write_text(path, content.decode())
