"""A process that answers as a peer's does, without torch."""

import sys
from pathlib import Path

from tests.oracles import PROJECT

_START = """\
#!{python}
import json, sys, time, types
sys.path.insert(0, {project!r})
from src.benchmark.serving import EpochTimer, reserve_stdout, serve
request = json.loads(sys.argv[-1])
answers = reserve_stdout()
"""


def stand_in(folder: Path, program: str) -> str:
    """An interpreter that is this program, whatever it is asked to run; ``request`` and ``answers`` are given to it."""
    path = folder / "python"
    path.write_text(_START.format(python=sys.executable, project=str(PROJECT)) + program, encoding="utf-8")
    path.chmod(0o755)
    return str(path)
