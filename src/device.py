"""The device of a run: target, graph mode, rank and versions; the only reader of the environment.

MindSpore is imported inside functions: its noise level must be set before, and a wrong installation is reported first.
"""

from __future__ import annotations

import atexit
import importlib.metadata
import os
import platform
import random
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from src.errors import INTERRUPTED, ConfigError, UserError

if TYPE_CHECKING:
    from src.schema import RunConfig

PYTHON_VERSIONS = ((3, 10), (3, 11), (3, 12))
PACKAGES = (
    "mindspore",
    "numpy",
    "pillow",
    "pydantic",
    "PyYAML",
    "scikit-learn",
    "tqdm",
    "safetensors",
    "tensorboardX",
)
# Elementwise arithmetic alone is fused: a fused exponential is off by 3e-4, and fused reductions gave wrong gradients.
_FUSED = (
    "Add,AddN,BroadcastTo,Cast,Div,Equal,Greater,GreaterEqual,Less,LessEqual,Maximum,Minimum,Mul,Neg,RealDiv,"
    "Reciprocal,ReLU,Reshape,Rsqrt,Select,Sqrt,Sub"
)
_REWRITTEN = "AddExt,AddN,Adds,BiasAdd,Muls,ReLU,ReluGrad,Rsqrt,Square,SubExt"
FUSION_FLAGS = f"--opt_level=1 --enable_cluster_ops_only={_FUSED} --enable_expand_ops_only={_REWRITTEN}"
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


def open_device(run: RunConfig) -> None:
    """Choose the device, the execution mode and the seeds of this process.

    Raises:
        ConfigError: a target that this machine does not have.
    """
    import mindspore as ms
    import numpy as np

    try:
        ms.set_device(run.device_target, run.device_id if run.device_target != "CPU" else 0)
    except (RuntimeError, ValueError, ImportError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0].split(". ")[0]
        rule, known = f"cannot be opened: {reason}", "CPU runs everywhere"
        raise ConfigError("device_target", rule, run.device_target, known) from None
    ms.set_context(mode=ms.PYNATIVE_MODE if run.graph_mode else ms.GRAPH_MODE)
    if run.graph_kernel and run.device_target == "CPU" and not run.graph_mode:
        obstacle = fuse_elementwise()
        if obstacle:
            print(f"==> Kernels are not fused, which is slower: {obstacle}")
    ms.set_seed(run.seed)
    np.random.seed(run.seed)
    random.seed(run.seed)


def fuse_elementwise() -> str:
    """Let MindSpore compile chains of elementwise operators into one CPU kernel each; returns why not, or nothing.

    Its compiler (AKG, in the wheel) needs the package ``decorator``, which the wheel does not ask for. Compiled kernels
    are kept for the next run, by user, MindSpore version and rank: ranks never write one folder.
    """
    import mindspore as ms

    compiler = Path(ms.__file__).parent / "lib" / "plugin" / "cpu" / "libakg.so"
    if not compiler.is_file():
        return "MindSpore has no kernel compiler for this system"
    if package_version("decorator") is None:
        return f"package decorator is missing, {_INSTALL}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "mindvit" / f"kernels-{package_version('mindspore')}-{rank()}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        return f"{folder}: {error.strerror}"
    if not os.access(folder, os.W_OK):
        return f"{folder}: not writable"
    os.environ.setdefault("MS_COMPILER_CACHE_PATH", str(folder))
    # Tiling hints that are not there; without a name for them the compiler prints a line per kernel.
    os.environ.setdefault("MS_GRAPH_KERNEL_TILING", str(folder / "none.json"))
    ms.set_context(graph_kernel_flags=FUSION_FLAGS)
    # The compiler leaves a log where it runs.
    log = Path("dsa_transfrom.log").resolve()
    if not log.exists():
        atexit.register(log.unlink, missing_ok=True)
    return ""


def rank() -> int:
    """Rank of this process among all that train together."""
    return int(os.environ.get("RANK_ID", "0"))


def num_ranks() -> int:
    """Processes that train together."""
    return int(os.environ.get("RANK_SIZE", "1"))


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


class StopRequest:
    """Ctrl-C and SIGTERM ask the process to stop at the next good moment; a second one ends it at once.

    Attributes:
        is_made: whether there was one.
    """

    def __init__(self):
        self._made = False
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self._install()

    @property
    def is_made(self) -> bool:
        """Whether the process was asked."""
        # Libraries put their own handlers in place when they start threads.
        self._install()
        return self._made

    def close(self) -> None:
        """Give signals their former meaning back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _install(self) -> None:
        for number in self._before:
            if signal.getsignal(number) != self._take:
                signal.signal(number, self._take)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._made:
            print("error: stopped at once, what was saved stays", file=sys.stderr, flush=True)
            os._exit(INTERRUPTED)
        self._made = True
        print("=> stopping after this step, a second signal stops at once", file=sys.stderr, flush=True)


def stop_on_signals() -> None:
    """Ctrl-C and SIGTERM end the process through `KeyboardInterrupt`, whatever a library has installed instead."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not _interrupt:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
