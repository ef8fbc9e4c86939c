"""This project's input pipeline, or the same processes with nothing to do but to decode.

Run by `src.benchmark.data_runner`, with the request as its one argument, in JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from src.benchmark.own_pipelines import KIND, OwnEpochs, build_own
from src.benchmark.serving import EpochTimer, reserve_stdout, serve
from src.data.workers import BatchReader
from src.device import versions


def main(request: dict[str, Any]) -> None:
    """Build what the request names and serve epochs of it."""
    answers = reserve_stdout()
    name = "decoding alone" if request["formulation"] == "decode" else "this project"
    # Not open_reader: as many processes as the peer has, also where that is more than there are cores.
    with BatchReader({KIND: build_own(request)}, request["workers"]) as reader:
        timer = EpochTimer(OwnEpochs(reader))
        serve(answers, timer.run, {"name": name, "versions": versions()}, timer.report)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
