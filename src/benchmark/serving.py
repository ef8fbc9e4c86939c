"""The loop of a worker process: one line of JSON in, one line of JSON out. Standard library only."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
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


def serve(answers: Any, step: Callable[[], None], description: dict[str, Any]) -> None:
    """Answer requests until standard input closes.

    The first line sent is ``description``. A request ``{"steps": n}`` is answered by ``{"seconds": [...],
    "peak_memory_mb": ...}`` with the time of every step.
    """
    answers.write(json.dumps(description) + "\n")
    for line in sys.stdin:
        seconds = []
        for _ in range(json.loads(line)["steps"]):
            started = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - started)
        answers.write(json.dumps({"seconds": seconds, "peak_memory_mb": peak_memory_mb()}) + "\n")
