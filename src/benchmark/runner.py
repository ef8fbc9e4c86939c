"""Start a worker for either side, let them run in turns, and gather what they took.

In turns, because a machine's speed drifts by tens of per cent within minutes: a ratio is taken within each round.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from src.benchmark.cases import Case, chosen_cases
from src.benchmark.settings import BenchmarkConfig, find_peer_python
from src.benchmark.table import DataMeasurement, DeployMeasurement, Measurement, format_row, format_table
from src.errors import NumbersError, UserError
from src.files import write_json

ROOT = Path(__file__).parents[2]
SECONDS_PER_TURN = 0.3


class Worker:
    """The near end of a process of `src.benchmark.serving`."""

    def __init__(self, module: str, process: subprocess.Popen, log: IO[str]):
        self.module, self.process, self.log = module, process, log
        self.description = self.answer()

    def run(self, steps: int) -> dict[str, Any]:
        """Let it make so many steps."""
        # A process that has ended says why when its answer is missing.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"steps": steps}) + "\n")
            self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Its next line.

        Raises:
            UserError: it has ended.
        """
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.process.wait()
        self.log.seek(0)
        last = [text for text in self.log.read().splitlines() if text.strip()][-1:]
        raise UserError(self.module, f"ended early: {' '.join(last) or 'without a message'}")


@contextlib.contextmanager
def started(python: str, module: str, request: dict[str, Any]) -> Iterator[Worker]:
    """A worker that ends with the block, in a folder of its own: compilers leave files where they run."""
    name = f"src.benchmark.{module}"
    start = f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); runpy.run_module({name!r}, run_name='__main__')"
    command = [python, "-c", start, json.dumps(request)]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, cwd=folder, stderr=log, **pipes) as process,
    ):
        try:
            yield Worker(module, process, log)
        finally:
            process.kill()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()


def benchmark(mode: str, config: BenchmarkConfig) -> None:
    """Measure all cases, print the table as it grows, write the figures if asked.

    Raises:
        ConfigError: an unknown case, or no interpreter for the peer.
        NumbersError: the two sides of a case are not the same network.
        UserError: a worker ended early.
    """
    cases = chosen_cases(config.arch, config.peer)
    peer_python = sys.executable if config.peer == "zoo" else find_peer_python(config.peer_python)
    measuring = (measure(mode, case, config, peer_python) for case in cases)
    settings = {"mode": mode, "threads": config.threads, "rounds": config.rounds}
    report(mode, measuring, settings, config.json_path)


def report(
    mode: str,
    measuring: Iterable[Measurement | DataMeasurement | DeployMeasurement],
    settings: dict[str, Any],
    json_path: str | None,
) -> None:
    """Print the table as it grows; write the settings and the figures to a file where one is named."""
    measured = []
    for one in measuring:
        print(format_row(mode, one) if measured else format_table(mode, [one]), flush=True)
        measured.append(one)
    if json_path is not None:
        write_json(Path(json_path), {**settings, "cases": [asdict(one) for one in measured]})


def measure(mode: str, case: Case, config: BenchmarkConfig, peer_python: str) -> Measurement:
    """One case, both sides in turns."""
    batch_size = config.batch_size or case.batch_size
    request = {**asdict(case), "mode": mode, "threads": config.threads, "batch_size": batch_size, "formulation": "own"}
    with started(sys.executable, "own_worker", request) as own:
        whole_row = {**request, "sizes": own.description["row"], "formulation": config.peer}
        with started(peer_python, "own_worker" if config.peer == "zoo" else "peer_worker", whole_row) as peer:
            check_equal(case, own.description["num_parameters"], peer.description["num_parameters"])
            sides = (own, peer)
            # The first step compiles or allocates; the second tells how many make a turn.
            second = [side.run(2)["seconds"][1] for side in sides]
            steps = [max(1, round(SECONDS_PER_TURN / seconds)) for seconds in second]
            rounds = [[side.run(n) for side, n in zip(sides, steps, strict=True)] for _ in range(config.rounds)]
            describe = {"own": own.description["versions"], "peer": peer.description["versions"]}
    return summarise(case, batch_size, rounds, peer.description["name"], describe)


def check_equal(case: Case, own: int, peer: int) -> None:
    """Both sides have the same number of parameters.

    Raises:
        NumbersError: they have not.
    """
    if own != peer:
        raise NumbersError(case.name, "both sides must have as many parameters", f"{own} here, {peer} there")


def summarise(case: Case, batch_size: int, rounds: list, peer_name: str, versions: dict[str, Any]) -> Measurement:
    """Medians over the rounds, the ratio within each."""
    own, peer = zip(*[[statistics.median(answer["seconds"]) for answer in turn] for turn in rounds], strict=True)
    return Measurement(
        case=case.name,
        batch_size=batch_size,
        own_ms=1e3 * statistics.median(own),
        peer_ms=1e3 * statistics.median(peer),
        ratio=statistics.median(theirs / ours for ours, theirs in zip(own, peer, strict=True)),
        own_mb=rounds[-1][0]["peak_memory_mb"],
        peer_mb=rounds[-1][1]["peak_memory_mb"],
        peer=peer_name,
        versions=versions,
    )
