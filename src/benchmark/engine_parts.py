"""Where the time of an update goes in the training engine's own loop: its parts are timed from outside."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from src.trainers.train_step import Outcome
from src.trainers.training_run import Trainer, TrainingRun

PARTS = ("data wait", "copy", "step", "log and guards", "rest")


class Stopwatch:
    """Adds up what timed functions take.

    Attributes:
        seconds: by the name that a function was timed under.
    """

    def __init__(self):
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - started

        return call

    def timed_iterator(self, name: str, function: Callable[[], Iterator[Any]]) -> Callable[[], Iterator[Any]]:
        """A function that returns an iterator, whose every step is timed."""

        def call() -> Iterator[Any]:
            items, end = function(), object()
            following = self.timed(name, lambda: next(items, end))
            while (item := following()) is not end:
                yield item

        return call


class TimedLoop:
    """The engine's loop with its parts timed: make the run of `trainer`, then hand it to `begin`.

    Args:
        trainer: of one batch per update; its step is timed from now on.
    """

    def __init__(self, trainer: Trainer):
        self.watch = Stopwatch()
        updates = trainer.updates
        bare = updates.whole

        def step(*args: Any) -> Outcome:
            outcome = bare(*args)
            # The step is over when its numbers are there.
            outcome[0].asnumpy()
            return outcome

        updates.whole = self.watch.timed("step", step)
        self.trainer = replace(trainer, updates=self.watch.timed("updates", updates))

    def begin(self, run: TrainingRun) -> None:
        """Time this run of `trainer`."""
        self.run = run
        run.next_batches = self.watch.timed_iterator("batches", run.next_batches)
        for part, names in ((run.log, ("step", "epoch")), (run.guards, ("check",)), (run.scale, ("update",))):
            for name in names:
                setattr(part, name, self.watch.timed("log and guards", getattr(part, name)))
        self.restart()

    def restart(self) -> None:
        """Begin to count anew."""
        self.watch.seconds.clear()
        self._waited, self._started = self.run.reader.waited, time.perf_counter()

    def parts(self) -> dict[str, float]:
        """Seconds since `restart` of each of `PARTS`."""
        total, seconds = time.perf_counter() - self._started, self.watch.seconds
        found = {
            "data wait": self.run.reader.waited - self._waited,
            "copy": seconds["updates"] - seconds["batches"] - seconds["step"],
            "step": seconds["step"],
            "log and guards": seconds["log and guards"],
        }
        return found | {"rest": total - sum(found.values())}
