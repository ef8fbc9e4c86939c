"""What a run says while it runs: the zoo's lines on stdout; on stderr a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from src.device import num_cores

_WAIT_WORTH_A_HINT = 0.2
_SECONDS_BETWEEN_DRAWINGS = 0.2
_USUAL_WIDTH = 120
_BAR = "{desc}: {percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


def print_overflow() -> None:
    """The zoo's line for an update that was skipped."""
    # A bar that stands on the same terminal is taken away and drawn again.
    tqdm.write("=============Over Flow, skipping=============", file=sys.stdout)
    sys.stdout.flush()


def print_epoch(epoch: int, steps: int, loss: float, seconds: float) -> None:
    """The zoo's two lines after the last update of an epoch, counted from 1; the loss is the last update's."""
    milliseconds = seconds * 1000
    print(f"epoch: {epoch} step: {steps}, loss is {loss}")
    print(f"epoch time: {milliseconds:.3f} ms, per step time: {milliseconds / steps:.3f} ms", flush=True)


def print_accuracy(epoch: int, accuracy: float, best: float) -> None:
    """The zoo's line after an evaluation."""
    print(f"epoch: {epoch} acc: {accuracy}, best acc is {best}", flush=True)


def print_data_wait(waited: float, seconds: float, workers: int) -> None:
    """A hint when the network waits for images, both times in seconds."""
    if waited > _WAIT_WORTH_A_HINT * seconds:
        cores = num_cores()
        more = f"try num_parallel_workers {cores}" if workers < cores else "smaller files or more cores would help"
        print(f"warning: data wait {100 * waited / seconds:.0f} % of step time: {more}", file=sys.stderr)


def numbers_text(numbers: Mapping[str, Any]) -> str:
    """A record's numbers in one line, what may be cut off last; what is None is left out."""
    seconds = numbers["seconds"]
    shown = {
        "loss {:.4f}": numbers["loss"],
        "{:.1f} img/s": numbers["images_per_second"],
        "lr {:.2e}": numbers["lr"],
        "grad norm {:.3g}": numbers["grad_norm"],
        "data wait {:.0f} %": 100 * numbers["data_wait"] / seconds if seconds else None,
        "loss scale {:g}": numbers["loss_scale"],
    }
    return ", ".join(text.format(value) for text, value in shown.items() if value is not None)


class Progress:
    """How far the current epoch is.

    Args:
        epochs: of the run.
        steps_per_epoch: updates.
    """

    def __init__(self, epochs: int, steps_per_epoch: int):
        self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
        self.on_terminal = sys.stderr.isatty()
        self._bar: tqdm | None = None
        self._drawn = 0.0

    def is_due(self) -> bool:
        """Whether the bar should be drawn again."""
        return self.on_terminal and time.perf_counter() - self._drawn >= _SECONDS_BETWEEN_DRAWINGS

    def draw(self, epoch: int, done: int, numbers: Mapping[str, Any]) -> None:
        """Draw the bar of an epoch, counted from 1, of which so many updates are done."""
        if self._bar is None:
            self._bar = tqdm(
                total=self.steps_per_epoch,
                # Its clock starts now: what was done before does not count for the speed.
                initial=done,
                desc=f"epoch {epoch}/{self.epochs}",
                file=sys.stderr,
                leave=False,
                bar_format=_BAR,
            )
        self._bar.set_postfix_str(numbers_text(numbers), refresh=False)
        # Terminals of containers may not know their width, and tqdm would draw nothing there.
        self._bar.ncols = (os.get_terminal_size(sys.stderr.fileno()).columns or _USUAL_WIDTH) - 1
        self._bar.n = done
        self._bar.refresh()
        self._drawn = time.perf_counter()

    def print_interval(self, done: int, record: Mapping[str, Any]) -> None:
        """Where there is no terminal: one line with a step record, at so many updates of its epoch."""
        if not self.on_terminal:
            left = (self.steps_per_epoch - done) * record["seconds"] / record["steps"]
            place = f"epoch {record['epoch']}/{self.epochs} step {done}/{self.steps_per_epoch}"
            print(f"{place}: {numbers_text(record)}, ETA {tqdm.format_interval(left)}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
