"""Batches read ahead by worker processes, which write them into shared memory.

Workers are fresh interpreters without MindSpore, some 60 MB each. The memory is a mapped file without a name, so that
nothing is left behind however the run ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import math
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as NoAnswerError
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any, Protocol

import numpy as np

from src.errors import DataError

# Seconds after which a batch that does not come is taken for lost.
_PATIENCE = 600.0
Layout = tuple[tuple[tuple[int, ...], type], ...]
# Which part of a batch, of how many.
Part = tuple[int, int]
WHOLE: Part = (0, 1)


class Batches(Protocol):
    """Random access to batches of one form; what a step holds depends on nothing but the step."""

    @property
    def layout(self) -> Layout:
        """Shape and type of each array of a batch."""

    def fill(self, step: int, arrays: tuple[np.ndarray, ...], part: Part = WHOLE) -> list[str]:
        """Write a part of the batch of a step; returns a line for each image that was left out."""


def new_arrays(layout: Layout) -> tuple[np.ndarray, ...]:
    """Arrays for one batch."""
    return tuple(np.empty(shape, kind) for shape, kind in layout)


class BatchReader:
    """Reads batches of several kinds in the background. Close it, or use it in a ``with``.

    Args:
        batches: by name, what can be read.
        workers: processes; 0 reads in this one, when a batch is asked for.

    Attributes:
        left_out: a line for each image that was left out so far, once, in the order of reading.
        waited: seconds that `read` has waited for batches.
    """

    def __init__(self, batches: Mapping[str, Batches], workers: int):
        self.batches, self.workers = dict(batches), workers
        self.left_out: dict[str, None] = {}
        self.waited = 0.0
        self._pool: ProcessPoolExecutor | None = None
        if workers:
            # Not fork: a child of a process with MindSpore's threads may hang, and is as large as its parent.
            context = multiprocessing.get_context("spawn")
            # All workers share the rows of a batch, so that the first one is there soon and none ends an epoch idle.
            self._parts = {name: min(workers, max(1, one.layout[0][0][0] // 2)) for name, one in self.batches.items()}
            counts = {name: 3 + -(-workers // parts) for name, parts in self._parts.items()}
            self._slots = {name: _slots(context, one.layout, counts[name]) for name, one in self.batches.items()}
            start = (self.batches, self._slots)
            self._pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=start)

    def __enter__(self) -> BatchReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; batches that they are at are finished first."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def read(self, name: str, steps: Iterable[int]) -> Iterator[tuple[np.ndarray, ...]]:
        """The batches of these steps, in their order. A batch's arrays hold it until the next one is asked for.

        Raises:
            UserError: what reading raised; that a worker was killed, or gives no answer.
        """
        if self._pool is None:
            yield from self._read_here(self.batches[name], steps)
            return
        layout, parts = self.batches[name].layout, self._parts[name]
        upcoming = iter(steps)
        free = deque(range(len(self._slots[name])))
        pending: deque[tuple[list[Future], int]] = deque()

        def submit(count: int) -> None:
            for step in itertools.islice(upcoming, count):
                slot = free.popleft()
                work = [self._pool.submit(_fill, name, step, slot, (which, parts)) for which in range(parts)]
                pending.append((work, slot))

        try:
            # One slot stays free: the batch that is looked at lies in it.
            submit(len(free) - 1)
            while pending:
                # Only taken off when done: if one part fails, the others still write.
                work, slot = pending[0]
                for future in work:
                    self.left_out |= dict.fromkeys(self._result(future))
                pending.popleft()
                submit(1)
                yield _views(self._slots[name][slot], layout)
                free.append(slot)
        except BrokenProcessPool:
            # The pool ends what was given by itself, in a thread of its own, which cancelling would upset.
            pending.clear()
            raise DataError("num_parallel_workers", "a worker process was killed, or ran out of memory") from None
        except NoAnswerError:
            pending.clear()
            for process in multiprocessing.active_children():
                process.kill()
            raise DataError("num_parallel_workers", f"no batch for {_PATIENCE:.0f} s: is the storage there?") from None
        finally:
            given = [future for work, _ in pending for future in work]
            for future in given:
                future.cancel()
            # Until they end, workers write into slots that the next reading will use.
            for future in given:
                with contextlib.suppress(BaseException):
                    future.result()

    def _read_here(self, batches: Batches, steps: Iterable[int]) -> Iterator[tuple[np.ndarray, ...]]:
        for step in steps:
            started = time.perf_counter()
            arrays = new_arrays(batches.layout)
            self.left_out |= dict.fromkeys(batches.fill(step, arrays))
            self.waited += time.perf_counter() - started
            yield arrays

    def _result(self, future: Future) -> list[str]:
        started = time.perf_counter()
        try:
            return future.result(_PATIENCE)
        finally:
            self.waited += time.perf_counter() - started


def _slots(context: Any, layout: Layout, count: int) -> list[ctypes.Array]:
    size = sum(_num_bytes(shape, kind) for shape, kind in layout)
    return [context.RawArray(ctypes.c_char, size) for _ in range(count)]


def _num_bytes(shape: tuple[int, ...], kind: type) -> int:
    """In whole cache lines, so that every array starts at one."""
    return -(-math.prod(shape) * np.dtype(kind).itemsize // 64) * 64


def _views(slot: ctypes.Array, layout: Layout) -> tuple[np.ndarray, ...]:
    views, first = [], 0
    for shape, kind in layout:
        views.append(np.frombuffer(slot, kind, math.prod(shape), first).reshape(shape))
        first += _num_bytes(shape, kind)
    return tuple(views)


# ---------------------------------------------------------------------------------------------------------------------
# In a worker

_work: dict[str, tuple[Batches, list[tuple[np.ndarray, ...]]]] = {}


def follow_parent() -> None:
    """Let a worker live exactly as long as its parent wants it, whatever happens to the parent."""
    # Ctrl-C and `timeout` signal whole groups of processes; the parent decides, and needs batches until it has saved.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setpgid(0, 0)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _start(batches: Mapping[str, Batches], slots: Mapping[str, list[ctypes.Array]]) -> None:
    follow_parent()
    for name, one in batches.items():
        _work[name] = (one, [_views(slot, one.layout) for slot in slots[name]])


def _end_with_parent() -> None:
    """A parent that is killed closes nothing, and its workers would wait for ever."""
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _fill(name: str, step: int, slot: int, part: Part) -> list[str]:
    batches, views = _work[name]
    return batches.fill(step, views[slot], part)
