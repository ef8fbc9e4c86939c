"""The printed figures of ``train --breakdown True``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class EngineMeasurement:
    """What train.py's loop took beside the bare step: milliseconds per update, overheads and spread in per cent.

    Args:
        case: the recipe's or case's name.
        arch: of the network.
        batch_size: images of an update.
        workers: processes that read images, on the same cores.
        updates: of a turn.
        bare_ms: on the clock, of the bare step.
        engine_ms: the same of the loop.
        overhead: of the loop over the bare step, on the clock.
        outside: what the loop spent outside of its step over what it spent in it. Both are of the same turn, so that a
            restless machine moves it less; that the step itself is slower beside reading processes is not in it.
        bare_cpu_ms: of processors, user and system, in the training process.
        engine_cpu_ms: the same of the loop.
        cpu_overhead: of the loop over the bare step, by these.
        worker_cpu_ms: of processors in the reading processes; None where the system does not tell.
        spread: distance of the quartiles of bare_ms over the rounds, over the median: how restless the machine was.
        load_average: of the machine at the start.
        parts_ms: of the loop, by name, the mean over the rounds.
        checkpoint_ms: of one checkpoint.
        steps_per_epoch: updates.
        options: time of a step with each option over the plain step's.
        rounds: the figures of every round, in seconds.
        versions: of what was measured.
    """

    case: str
    arch: str
    batch_size: int
    workers: int
    updates: int
    bare_ms: float
    engine_ms: float
    overhead: float
    outside: float
    bare_cpu_ms: float
    engine_cpu_ms: float
    cpu_overhead: float
    worker_cpu_ms: float | None
    spread: float
    load_average: float
    parts_ms: dict[str, float]
    checkpoint_ms: float
    steps_per_epoch: int
    options: dict[str, float]
    rounds: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, Any] = field(default_factory=dict)

    @property
    def checkpoint_per_update_ms(self) -> float:
        """At ``save_every 1``: a checkpoint's time over the updates of an epoch."""
        return self.checkpoint_ms / self.steps_per_epoch


def format_engine(one: EngineMeasurement) -> str:
    """Some lines with a header of their own."""
    workers = "-" if one.worker_cpu_ms is None else f"{one.worker_cpu_ms:.1f}"
    return "\n".join(
        [
            f"{'train, ms per update':24s}{'batch':>6s}{'workers':>8s}{'bare':>9s}{'engine':>9s}{'over %':>8s}"
            f"{'outside %':>10s}{'bare CPU':>10s}{'engine CPU':>11s}{'over %':>8s}{'workers CPU':>12s}{'spread %':>9s}",
            f"{one.case:24s}{one.batch_size:6d}{one.workers:8d}{one.bare_ms:9.1f}{one.engine_ms:9.1f}{one.overhead:8.1f}"
            f"{one.outside:10.1f}{one.bare_cpu_ms:10.1f}{one.engine_cpu_ms:11.1f}{one.cpu_overhead:8.1f}"
            f"{workers:>12s}{one.spread:9.1f}",
            "  parts of engine: " + ", ".join(f"{name} {value:.2f}" for name, value in one.parts_ms.items()),
            f"  checkpoint: {one.checkpoint_ms:.0f} ms each, {one.checkpoint_per_update_ms:.2f} per update at "
            f"save_every 1 with {one.steps_per_epoch} updates per epoch",
            "  step with an option over the plain step: "
            + ", ".join(f"{name} {value:.2f}" for name, value in one.options.items()),
        ]
    )
