"""How tests call an entry script, in this process, or Python or a shell script in one of its own."""

import contextlib
import importlib
import io
import os
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


def bash(name: str, *words: object, cwd: Path, target: str = "CPU") -> subprocess.CompletedProcess:
    """Run a shell script of the project on a device."""
    command = ["bash", str(PROJECT / "scripts" / name), *map(str, words)]
    # Secrets of the environment must not reach a log.
    environment = {**os.environ, "DEVICE_TARGET": target, "MY_PASSWORD": "hush"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
