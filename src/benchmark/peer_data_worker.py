"""The peer's input pipeline: timm's loader with its prefetcher on the CPU. Imports torch and timm only.

Run by `src.benchmark.data_runner`, with the request as its one argument, in JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from src.benchmark.serving import EpochTimer, reserve_stdout, serve


def main(request: dict[str, Any]) -> None:
    """Build what the request names and serve epochs of it."""
    answers = reserve_stdout()
    import timm
    import torch

    from src.benchmark.peer_pipelines import PeerEpochs, build_loader

    timer = EpochTimer(PeerEpochs(build_loader(request)))
    versions = {"torch": torch.__version__, "timm": timm.__version__, "python": sys.version.split()[0]}
    serve(answers, timer.run, {"name": f"timm {timm.__version__}", "versions": versions}, timer.report)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
