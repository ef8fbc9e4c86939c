"""The C++ runner's process: all images of the request once per turn, timed by the runner itself.

The runner times its calls after the first one; loading the model is not in them. Run by `src.benchmark.deploy_runner`,
with the request as its one argument, in JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from src.benchmark.serving import reserve_stdout, serve, stay_on_cores
from src.errors import UserError


class RunnerTimer:
    """Runs the C++ runner over the images of a folder.

    Args:
        request: with folder, runner, threads and batch_size.
    """

    def __init__(self, request: dict[str, Any]):
        self.folder, self.batch_size = Path(request["folder"]), request["batch_size"]
        self.command = [
            request["runner"],
            *("--mindir_path", self.folder / "net.mindir", "--input0_path", self.folder / "images"),
            *("--device_target", "CPU", "--threads", str(request["threads"])),
            *("--result_dir", self.folder / "results", "--time_dir", self.folder),
        ]

    def turn(self) -> None:
        """Every image once.

        Raises:
            UserError: the runner failed.
        """
        done = subprocess.run(self.command, capture_output=True, text=True)
        if done.returncode:
            raise UserError("C++ runner", done.stderr.strip().removeprefix("error: ") or f"exit {done.returncode}")

    def report(self) -> dict[str, float]:
        """What the runner measured in the last turn; its percentiles are per image of a call."""
        lines = (self.folder / "test_perform_static.txt").read_text(encoding="utf-8").splitlines()
        figures = dict(line.removesuffix(" ms").split(": ") for line in lines[1:])
        return {
            "images_per_second": float(figures["images/s"]),
            "p50_ms": float(figures["p50"]) * self.batch_size,
        }


def main(request: dict[str, Any]) -> None:
    """Serve the runner."""
    answers = reserve_stdout()
    stay_on_cores(request["threads"])
    timer = RunnerTimer(request)
    serve(answers, timer.turn, {"versions": {"runner": "MindSpore Lite 2.0"}}, timer.report)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
