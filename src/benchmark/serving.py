"""The loop of a worker process: one line of JSON in, one line of JSON out. Standard library only."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def reserve_stdout() -> Any:
    """Keep standard output for the answers; whatever a library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def stay_on_cores(number: int) -> None:
    """Bind this process to its last ``number`` cores, so that no library can use more; where the system lets it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-number:])


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, in MiB (Linux counts in KiB, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def largest_child_mb() -> float | None:
    """Resident MiB of the largest process that `multiprocessing` started here and that still runs.

    Without what is shared in memory, where batches lie that every process sees. None where the system does not tell.
    """
    sizes = []
    for child in multiprocessing.active_children():
        status = Path(f"/proc/{child.pid}/status")
        if not status.exists():
            return None
        rows = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines())
        sizes.append(sum(sign * int(rows[key].split()[0]) for key, sign in (("VmRSS", 1), ("RssShmem", -1))) / 2**10)
    return max(sizes, default=None)


def children_cpu_seconds() -> float | None:
    """Processor time, user and system, of the processes that `multiprocessing` started here and that still run.

    None where the system does not tell.
    """
    ticks = 0
    for child in multiprocessing.active_children():
        path = Path(f"/proc/{child.pid}/stat")
        if not path.exists():
            return None
        # The name, in parentheses, may hold spaces; then come the state and ten numbers.
        user, system = path.read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
        ticks += int(user) + int(system)
    return ticks / os.sysconf("SC_CLK_TCK")


class EpochTimer:
    """Reads an input pipeline and does nothing else.

    Args:
        epochs: every iteration is one epoch of batches and of how many images are in each.
    """

    def __init__(self, epochs: Iterable[tuple[Any, int]]):
        self.epochs = epochs
        self.first_batch_seconds, self.images, self.shape = 0.0, 0, ()
        self.worker_mb: list[float] = []

    def run(self) -> None:
        """Read one epoch, touching every batch."""
        # While batches are made is when workers are large. Only once: the first epoch's time counts for nothing.
        looks_at_memory = not self.images
        self.images, started = 0, time.perf_counter()
        for batch, images in self.epochs:
            if not self.images:
                self.first_batch_seconds = time.perf_counter() - started
                self.shape = tuple(batch.shape)
            batch.reshape(-1)[-1].item()
            self.images += images
            if looks_at_memory:
                self._look_at_memory()

    def report(self) -> dict[str, Any]:
        """What the last epoch had, and the largest worker process so far."""
        self._look_at_memory()
        return {
            "images": self.images,
            "shape": self.shape,
            "first_batch_seconds": self.first_batch_seconds,
            "worker_mb": max(self.worker_mb, default=None),
        }

    def _look_at_memory(self) -> None:
        size = largest_child_mb()
        self.worker_mb += [] if size is None else [size]


class CallTimer:
    """Calls a network on one batch after the other.

    Args:
        infer: waits for the result.
        batches: of one turn.
        batch_size: images of each.
    """

    def __init__(self, infer: Callable[[Any], Any], batches: list[Any], batch_size: int):
        self.infer, self.batches, self.batch_size = infer, batches, batch_size
        self.seconds: list[float] = []

    def turn(self) -> None:
        """Every batch once."""
        self.seconds = []
        for batch in self.batches:
            started = time.perf_counter()
            self.infer(batch)
            self.seconds.append(time.perf_counter() - started)

    def report(self) -> dict[str, float]:
        """Of the last turn: images per second, and the median time of a call."""
        return {
            "images_per_second": self.batch_size * len(self.seconds) / sum(self.seconds),
            "p50_ms": 1e3 * statistics.median(self.seconds),
        }


def serve(
    answers: Any, step: Callable[[], None], description: dict[str, Any], report: Callable[[], dict[str, Any]] = dict
) -> None:
    """Answer requests until standard input closes.

    The first line sent is ``description``. A request ``{"steps": n}`` is answered by ``{"seconds": [...],
    "peak_memory_mb": ...}`` with the time of every step, and by what ``report`` adds after the last.
    """
    answers.write(json.dumps(description) + "\n")
    for line in sys.stdin:
        seconds = []
        for _ in range(json.loads(line)["steps"]):
            started = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - started)
        answers.write(json.dumps({"seconds": seconds, "peak_memory_mb": peak_memory_mb(), **report()}) + "\n")
