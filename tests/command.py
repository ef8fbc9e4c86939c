"""How tests call an entry script, in this process, or Python in one of its own."""

import contextlib
import importlib
import io
import subprocess
import sys
from pathlib import Path
from unittest import mock

from src import startup
from tests.oracles import PROJECT


def command(name: str, *words: object, **kinds: object) -> tuple[int, list[str], list[str]]:
    """Run an entry script with arguments, as a user would; its exit code and its lines on stdout and stderr."""
    code, out, err = 0, io.StringIO(), io.StringIO()
    argv = mock.patch.object(sys, "argv", [f"{name}.py", *map(str, words)])
    with argv, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            startup.run(importlib.import_module(name).main, **kinds)
        except SystemExit as left:
            code = left.code
    return code, out.getvalue().splitlines(), err.getvalue().splitlines()


def python(*words: object, cwd: Path = PROJECT, **options: object) -> subprocess.CompletedProcess:
    """Run Python with these words in a process of its own."""
    return subprocess.run([sys.executable, *map(str, words)], cwd=cwd, capture_output=True, text=True, **options)
