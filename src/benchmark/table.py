"""The printed table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """One line of the table; times in milliseconds per step, peak resident memory in MiB."""

    case: str
    batch_size: int
    own_ms: float
    peer_ms: float
    ratio: float
    own_mb: float
    peer_mb: float
    peer: str
    versions: dict[str, Any] = field(default_factory=dict)

    @property
    def memory_ratio(self) -> float:
        """This project's peak over the peer's: under 1 needs less."""
        return self.own_mb / self.peer_mb


@dataclass(frozen=True)
class DataMeasurement:
    """One line of the table of input pipelines.

    Images per second of whole epochs, milliseconds until the first batch of an epoch that nothing is read ahead of,
    MiB of the largest worker process without the batches themselves; None where the system does not tell.
    """

    case: str
    batch_size: int
    workers: int
    own_images_per_second: float
    peer_images_per_second: float
    ratio: float
    own_first_ms: float
    peer_first_ms: float
    own_worker_mb: float | None
    peer_worker_mb: float | None
    peer: str
    versions: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DeployMeasurement:
    """One line of the table of exported files, by side: lite (the C++ runner), onnx, mindspore.

    Images per second, median milliseconds of a call, the runner over ONNX Runtime by either, and the largest difference
    of a logit from MindSpore's.
    """

    case: str
    batch_size: int
    images_per_second: dict[str, float]
    p50_ms: dict[str, float]
    ratio: float
    latency_ratio: float
    max_difference: float
    versions: dict[str, Any] = field(default_factory=dict)


def format_table(mode: str, measured: list[Measurement] | list[DataMeasurement] | list[DeployMeasurement]) -> str:
    """Header and lines; a ratio over 1 is faster than the peer, a memory ratio under 1 needs less."""
    header = f"{mode:24s}{'batch':>6s}"
    if mode == "deploy":
        header += f"{'runner img/s':>13s}{'ORT img/s':>11s}{'ratio':>7s}{'runner p50 ms':>15s}{'ORT p50 ms':>12s}"
        header += f"{'ratio':>7s}{'MindSpore img/s':>17s}{'max |dlogit|':>14s}"
        return "\n".join([header, *[format_row(mode, one) for one in measured]])
    if mode == "data":
        header += f"{'workers':>8s}{'ours img/s':>11s}{'peer img/s':>11s}{'ratio':>7s}"
        header += f"{'first ms':>10s}{'peer ms':>9s}{'worker MiB':>12s}{'peer MiB':>10s}"
    else:
        header += f"{'ours ms':>10s}{'peer ms':>10s}{'ratio':>7s}"
        header += f"{'ours MiB':>10s}{'peer MiB':>10s}{'ratio':>7s}" if mode == "train" else ""
    return "\n".join([f"{header}  peer", *[format_row(mode, one) for one in measured]])


def format_row(mode: str, one: Measurement | DataMeasurement | DeployMeasurement) -> str:
    """One line of the table."""
    line = f"{one.case:24s}{one.batch_size:6d}"
    if isinstance(one, DeployMeasurement):
        speed, latency = one.images_per_second, one.p50_ms
        line += f"{speed['lite']:13.2f}{speed['onnx']:11.2f}{one.ratio:7.2f}"
        line += f"{latency['lite']:15.1f}{latency['onnx']:12.1f}{one.latency_ratio:7.2f}"
        return f"{line}{speed['mindspore']:17.2f}{one.max_difference:14.2e}"
    if isinstance(one, DataMeasurement):
        line += f"{one.workers:8d}{one.own_images_per_second:11.0f}{one.peer_images_per_second:11.0f}{one.ratio:7.2f}"
        line += f"{one.own_first_ms:10.0f}{one.peer_first_ms:9.0f}"
        line += f"{_whole(one.own_worker_mb):>12s}{_whole(one.peer_worker_mb):>10s}"
    else:
        line += f"{one.own_ms:10.1f}{one.peer_ms:10.1f}{one.ratio:7.2f}"
        line += f"{one.own_mb:10.0f}{one.peer_mb:10.0f}{one.memory_ratio:7.2f}" if mode == "train" else ""
    return f"{line}  {one.peer}"


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
