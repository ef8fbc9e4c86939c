"""The device of a run: target, graph mode, rank and versions; the only reader of the environment.

MindSpore is imported inside functions: its noise level must be set before, and a wrong installation is reported first.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import random
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from src.errors import ConfigError, UserError

PYTHON_VERSIONS = ((3, 10), (3, 11), (3, 12))
PACKAGES = ("mindspore", "numpy", "pillow", "pydantic", "PyYAML", "scikit-learn", "tqdm", "safetensors")
_INSTALL = "`pip install -r requirements.txt` installs what is needed"


def check_installation(needs: tuple[str, ...] = PACKAGES) -> None:
    """Refuse what cannot work, before anything is imported that would say it less clearly.

    Args:
        needs: distributions that must be there.

    Raises:
        UserError: Python or numpy of the wrong version, or a package that is missing.
    """
    if "mindspore" in needs and sys.version_info[:2] not in PYTHON_VERSIONS:
        raise UserError("python", "MindSpore 2.10 needs 3.10, 3.11 or 3.12", platform.python_version())
    missing = [name for name in needs if package_version(name) is None]
    if missing:
        raise UserError("python", f"packages are missing, {_INSTALL}", ", ".join(missing))
    numpy_version = package_version("numpy")
    if "mindspore" in needs and int(numpy_version.split(".")[0]) >= 2:
        raise UserError("numpy", f"MindSpore 2.10 needs numpy below 2, {_INSTALL}", numpy_version)


def package_version(name: str) -> str | None:
    """Installed version of a distribution, None without one."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def prepare_libraries(verbose: bool) -> None:
    """What libraries read from the environment when they are imported: call it before MindSpore is.

    MindSpore's warnings are printed on request only.
    """
    os.environ.setdefault("GLOG_v", "2" if verbose else "3")
    # Threads of a matrix product that wait for work by spinning take the cores from MindSpore's own threads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def open_device(target: str, device_id: int, graph_mode: int, seed: int) -> None:
    """Choose the device, the execution mode and the seeds of this process.

    Raises:
        ConfigError: a target that this machine does not have.
    """
    import mindspore as ms
    import numpy as np

    try:
        ms.set_device(target, device_id if target != "CPU" else 0)
    except (RuntimeError, ValueError, ImportError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0].split(". ")[0]
        raise ConfigError("device_target", f"cannot be opened: {reason}", target, "CPU runs everywhere") from None
    ms.set_context(mode=ms.PYNATIVE_MODE if graph_mode else ms.GRAPH_MODE)
    ms.set_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def rank() -> int:
    """Rank of this process among all that train together."""
    return int(os.environ.get("RANK_ID", "0"))


def num_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """What a result depends on: Python, packages, and the project's commit where it is a git checkout."""
    found = {"python": platform.python_version()}
    found.update({name.lower(): package_version(name) or "missing" for name in PACKAGES})
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found["commit"] = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        found["commit"] = "unknown"
    return found


def stop_on_signals() -> None:
    """Ctrl-C and SIGTERM end the process through `KeyboardInterrupt`, whatever a library has installed instead."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not _interrupt:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
