"""The device of a run: target, graph mode, rank and versions; the only reader of the environment.

MindSpore is imported inside functions: its noise level must be set before, and a wrong installation is reported first.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.metadata
import os
import platform
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from src import cluster
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
_LAUNCHERS = (
    "scripts/run_distribute_train_ascend.sh RANK_TABLE_FILE CONFIG_PATH, "
    "python distribute.py --device_num N train.py --key value, or msrun"
)
# Seconds that a cluster may take to come together, as msrun's.
_JOIN_SECONDS = 600
# What this process has to remove, however it ends.
_cleanup = contextlib.ExitStack()
# Signals that `stop_on_signals` has put off.
_put_off: list[int] = []


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
    """Choose the device, the execution mode and the seeds of this process; join its cluster, if it is a rank of one.

    `rank` is certain from here on.

    Raises:
        ConfigError: a target that this machine does not have; several devices, but no launcher.
        UserError: a cluster that cannot be joined.
    """
    import mindspore as ms
    import numpy as np

    _check_number_of_ranks(run)
    device_id = _whole_number("DEVICE_ID", run.device_id) if in_cluster() else run.device_id
    try:
        ms.set_device(run.device_target, device_id if run.device_target != "CPU" else 0)
    except (RuntimeError, ValueError, ImportError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0].split(". ")[0]
        rule, known = f"cannot be opened: {reason}", "CPU runs everywhere"
        raise ConfigError("device_target", rule, run.device_target, known) from None
    if in_cluster() and not cluster.is_joined():
        _join_cluster()
    ms.set_context(mode=ms.PYNATIVE_MODE if run.graph_mode else ms.GRAPH_MODE)
    if run.graph_kernel and run.device_target == "CPU" and not run.graph_mode:
        obstacle = fuse_elementwise()
        if obstacle:
            print(f"==> Kernels are not fused, which is slower: {obstacle}")
    ms.set_seed(run.seed)
    np.random.seed(run.seed)
    random.seed(run.seed)


@contextlib.contextmanager
def operator_by_operator() -> Iterator[None]:
    """Run networks without compiling them for a while: only then do hooks of cells see what goes through."""
    import mindspore as ms

    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=mode)


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
        _cleanup.callback(log.unlink, missing_ok=True)
        atexit.register(_cleanup.close)
    return ""


def num_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(without: tuple[str, ...] = (), **given: object) -> dict[str, str]:
    """This process's environment for another one, with names left out and others given."""
    kept = {name: value for name, value in os.environ.items() if name not in without}
    return kept | {name: str(value) for name, value in given.items()}


def server_id() -> str | None:
    """Which server of a rank table this machine is, if the user says so."""
    return os.environ.get("SERVER_ID") or None


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

    One that `stop_on_signals` has put off counts.

    Attributes:
        is_made: whether there was one.
    """

    def __init__(self):
        self._made = bool(_put_off)
        _put_off.clear()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        # A shell's background ignores Ctrl-C: the shell passes it on as SIGTERM, and twice would be too often.
        self._before = {number: handler for number, handler in handlers.items() if handler != signal.SIG_IGN}
        self._install()

    @property
    def is_made(self) -> bool:
        """Whether the process was asked."""
        # Libraries put handlers of their own in place, which Python does not see.
        self._install()
        return self._made

    def close(self) -> None:
        """Give signals their former meaning back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _install(self) -> None:
        for number in self._before:
            signal.signal(number, self._take)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._made:
            print("error: stopped at once, what was saved stays", file=sys.stderr, flush=True)
            os._exit(INTERRUPTED)
        self._made = True
        print("=> stopping after this step, a second signal stops at once", file=sys.stderr, flush=True)


def stop_on_signals() -> None:
    """Ctrl-C and SIGTERM end the process through `KeyboardInterrupt`, whatever a library has installed instead.

    In a cluster the first one is put off until there is a `StopRequest`: others would wait for one that leaves alone.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    spec = getattr(sys.modules.get("mindspore"), "__spec__", None)
    if getattr(spec, "_initializing", False):
        # Cut off in the middle of its import, MindSpore aborts the process; nothing is being written yet.
        print("error: interrupted, run the same command to go on", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)
    if _put_off or not cluster.is_joined():
        raise KeyboardInterrupt
    _put_off.append(number)


# ---------------------------------------------------------------------------------------------------------------------
# Several processes that train together: MindSpore's dynamic cluster, whoever starts it


def in_cluster() -> bool:
    """Whether this process is a rank that a launcher has started."""
    return os.environ.get("MS_ROLE") == "MS_WORKER"


def is_scheduler() -> bool:
    """Whether this process only brings the ranks together; launchers start the command once more for that."""
    return os.environ.get("MS_ROLE") == "MS_SCHED"


def rank() -> int:
    """Rank of this process among all that train together, 0 alone. Certain after `open_device`."""
    return _whole_number("RANK_ID", 0) if in_cluster() else 0


def num_ranks() -> int:
    """Processes that train together, 1 alone."""
    return _whole_number("MS_WORKER_NUM", 1) if in_cluster() else 1


def serve_cluster() -> NoReturn:
    """Bring ranks together until the last one has left, then end the process.

    Raises:
        UserError: they do not come together.
    """
    _prepare_cluster()
    cluster.serve(_whole_number("MS_SCHED_PORT", 0), _whole_number("MS_WORKER_NUM", 1))


def leave_cluster(code: int) -> None:
    """End this process with an exit code if it has joined a cluster; alone, do nothing."""
    # One that a signal has kept from joining would be aborted by MindSpore, too.
    if cluster.is_joined() or (in_cluster() and code == INTERRUPTED):
        _cleanup.close()
        cluster.leave(code)


def _check_number_of_ranks(run: RunConfig) -> None:
    """One process that believes to be one of several would train a network of its own, as all of them."""
    wanted = {"device_num": run.device_num}
    wanted |= {name: _whole_number(name, 1) for name in ("RANK_SIZE", "OMPI_COMM_WORLD_SIZE")}
    for name, count in wanted.items():
        if count > 1 and not in_cluster():
            raise ConfigError(name, f"each device needs a process of its own, start them by {_LAUNCHERS}", count)
    if run.device_num not in (1, num_ranks()):
        print(f"warning: device_num is {run.device_num}, but {num_ranks()} were started", file=sys.stderr)


def _join_cluster() -> None:
    _prepare_cluster()
    host, port = os.environ.get("MS_SCHED_HOST", ""), _whole_number("MS_SCHED_PORT", 0)
    number = cluster.join(host, port, _whole_number("MS_TOPO_TIMEOUT", _JOIN_SECONDS))
    os.environ["RANK_ID"] = str(number)


def _prepare_cluster() -> None:
    # Rank tables belong to a way of starting that MindSpore 2.10 has given up.
    for name in ("RANK_TABLE_FILE", "MINDSPORE_HCCL_CONFIG_PATH"):
        os.environ.pop(name, None)
    # Seconds between attempts; MindSpore's own 3 to 5 make every start as slow.
    os.environ.setdefault("MS_RETRY_INTERVAL_LOWER", "1")
    os.environ.setdefault("MS_RETRY_INTERVAL_UPPER", "1")


def _whole_number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if text and not (text.isascii() and text.isdigit()):
        raise ConfigError(name, "must be a whole number", text)
    return int(text) if text else default
