"""The C++ runner, built once for all tests that need it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "ascend310_infer" / "build.sh"
FETCH = ROOT / "scripts" / "fetch_mindspore_lite.sh"


def build(**environment: str) -> Path:
    """Build the runner and return its path, or skip where MindSpore Lite or a compiler cannot be had."""
    for tool in ("cmake", "c++", "make"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    fetched = subprocess.run(["bash", FETCH], capture_output=True, text=True)
    if fetched.returncode:
        pytest.skip(f"MindSpore Lite cannot be fetched: {fetched.stderr.strip().splitlines()[-1]}")
    built = subprocess.run(["bash", BUILD], capture_output=True, text=True, env={**os.environ, **environment})
    assert built.returncode == 0, built.stdout + built.stderr
    return ROOT / "ascend310_infer" / "out" / "main"
