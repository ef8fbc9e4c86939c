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


def format_table(mode: str, measured: list[Measurement]) -> str:
    """Header and lines; a ratio over 1 is faster than the peer, a memory ratio under 1 needs less."""
    header = f"{mode:24s}{'batch':>6s}{'ours ms':>10s}{'peer ms':>10s}{'ratio':>7s}"
    header += f"{'ours MiB':>10s}{'peer MiB':>10s}{'ratio':>7s}" if mode == "train" else ""
    return "\n".join([f"{header}  peer", *[format_row(mode, one) for one in measured]])


def format_row(mode: str, one: Measurement) -> str:
    """One line of the table."""
    line = f"{one.case:24s}{one.batch_size:6d}{one.own_ms:10.1f}{one.peer_ms:10.1f}{one.ratio:7.2f}"
    line += f"{one.own_mb:10.0f}{one.peer_mb:10.0f}{one.memory_ratio:7.2f}" if mode == "train" else ""
    return f"{line}  {one.peer}"
