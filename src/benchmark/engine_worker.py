"""This project's process for `src.benchmark.engine_runner`: the bare step of a recipe, and train.py's loop around it.

Run with the request as its one argument, in JSON.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from src.benchmark.serving import children_cpu_seconds, reserve_stdout, serve, stay_on_cores
from src.device import StopRequest, open_device, prepare_libraries, versions
from src.schema import Config

# Updates of a turn that do not count: the engine first takes the batches that were read while it waited, and while the
# bare step begins, workers still fill their slots.
_SETTLE_ENGINE, _SETTLE_BARE = 5, 2


def main(request: dict[str, Any]) -> None:
    """Build what the request names and serve it: bare steps, or rounds of a turn of either side."""
    answers = reserve_stdout()
    stay_on_cores(request["threads"])
    prepare_libraries(verbose=False)

    from src.models import num_parameters, resolved
    from src.trainers.trainer import build_trainer

    config = resolved(Config.model_validate(request["config"]))
    open_device(config.run)
    trainer = build_trainer(config)
    bare = bare_step(trainer)
    description = {
        "arch": config.model.arch,
        "batch_size": config.data.batch_size,
        "steps_per_epoch": trainer.steps_per_epoch,
        "num_parameters": num_parameters(trainer.net),
        "versions": versions(),
    }
    if not request["engine"]:
        serve(answers, bare, description)
        return
    with ExitStack() as stack:
        run, parts = open_run(trainer, stack)
        rounds = Rounds(bare, run, parts, request["seconds_per_turn"])
        facts = {"workers": run.reader.workers, "updates": rounds.updates, "load_average": os.getloadavg()[0]}
        serve(answers, rounds.run, description | facts, rounds.report)


def bare_step(trainer: Any) -> Callable[[], None]:
    """The compiled step on one batch that lies ready; at a rate of zero it leaves the weights as they are."""
    import mindspore as ms
    import numpy as np

    from src.data.workers import new_arrays
    from src.trainers.precision import LossScale
    from src.trainers.train_step import Control

    batches, optim = trainer.train_batches, trainer.config.optim
    arrays = new_arrays(batches.layout)
    batches.fill(0, arrays)
    key_B = np.arange(batches.batch_size, dtype=np.int32)
    control_3 = np.array(Control(LossScale(trainer.config).value, optim.ema_decay), np.float32)
    inputs = [ms.Tensor(array) for array in (*arrays, key_B, trainer.optimizer.rates(0, 0.0), control_3)]
    whole = trainer.updates.whole

    def step() -> None:
        loss, _, _ = whole(*inputs)
        loss.asnumpy()

    return step


def open_run(trainer: Any, stack: ExitStack) -> tuple[Any, Any]:
    """The run that train.py would make of the trainer, with its parts timed; it ends with the stack."""
    from src.benchmark.engine_parts import TimedLoop
    from src.data.loader import open_reader
    from src.trainers.trainer import folder_of, open_log, start_weights
    from src.trainers.training_run import TrainingRun

    config, batches = trainer.config, trainer.train_batches
    path = Path(config.checkpoint.output_dir).absolute() / "ckpt_0"
    path.mkdir(parents=True)
    folder = folder_of(trainer, path)
    step, state = start_weights(trainer, folder)
    loop = TimedLoop(trainer)
    reader = stack.enter_context(open_reader(config.data.num_parallel_workers, batches))
    log = stack.enter_context(open_log(loop.trainer, path, step, state, reader.workers))
    run = TrainingRun(loop.trainer, folder, log, reader, step, state)
    loop.begin(run)
    return run, loop


class Rounds:
    """Turns of the bare step and of the engine's loop, in one process, on one compiled graph and one set of weights.

    Args:
        bare: makes one bare step.
        run: whose updates are the other side's.
        loop: its timed parts.
        seconds_per_turn: about so long is a turn.
    """

    def __init__(self, bare: Callable[[], None], run: Any, loop: Any, seconds_per_turn: float):
        self.bare, self.training, self.loop = bare, run, loop
        # The first step compiles.
        took = [elapsed(bare) for _ in range(4)]
        self.updates = max(1, round(seconds_per_turn / statistics.median(took[1:])))
        self.figures: list[dict[str, Any]] = []
        # Processor time of the workers, and updates, when their start was over.
        self._since: tuple[float | None, int] = (None, 0)

    def run(self) -> None:
        """A turn of either side, then a checkpoint; who is first changes from round to round."""
        turns = [self._bare_turn, self._engine_turn]
        figures: dict[str, Any] = {}
        for turn in turns if len(self.figures) % 2 else turns[::-1]:
            figures |= turn()
        figures["checkpoint"] = elapsed(self.training.save)
        self.figures.append(figures)

    def report(self) -> dict[str, Any]:
        """Seconds per update of every round so far; the workers' processor time over all of them."""
        now, (since, step) = children_cpu_seconds(), self._since
        per_update = None if None in (now, since) else (now - since) / (self.training.step - step)
        return {"rounds": self.figures, "worker_cpu": per_update}

    def _bare_turn(self) -> dict[str, Any]:
        for _ in range(_SETTLE_BARE):
            self.bare()
        wall, cpu = elapsed_both(self.bare, self.updates)
        return {"bare": wall, "bare_cpu": cpu}

    def _engine_turn(self) -> dict[str, Any]:
        stop = StopRequest()

        def update() -> None:
            self.training.advance(stop)

        try:
            for _ in range(_SETTLE_ENGINE):
                update()
            if not self._since[1]:
                self._since = children_cpu_seconds(), self.training.step
            self.loop.restart()
            wall, cpu = elapsed_both(update, self.updates)
            parts = self.loop.parts()
        finally:
            stop.close()
        parts = {name: seconds / self.updates for name, seconds in parts.items()}
        return {"engine": wall, "engine_cpu": cpu, "parts": parts}


def elapsed(function: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def elapsed_both(function: Callable[[], Any], times: int) -> tuple[float, float]:
    """Seconds of a call, the mean of so many: on the clock, and of processors, user and system, in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        function()
    return (time.perf_counter() - wall) / times, (time.process_time() - cpu) / times


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
