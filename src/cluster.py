"""MindSpore's dynamic cluster: how a rank joins and leaves, and the scheduler that brings ranks together.

What MindSpore reads from the environment is there already; see `src.device`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from typing import NoReturn

from src.errors import INTERRUPTED, UserError

_PR_SET_PDEATHSIG = 1
_LAST_ANSWER_SECONDS = 0.2


def join(host: str, port: int, seconds: float) -> int:
    """Join the cluster; returns this process's rank in it.

    Args:
        host: the scheduler's address.
        port: the scheduler's port.
        seconds: how long to wait for the scheduler.

    Raises:
        UserError: no scheduler, or MindSpore's reason.
    """
    # A rank that comes before the scheduler listens is put off by MindSpore for up to half a minute. This connection
    # stays open meanwhile: one that closes while others open can cost a message, which MindSpore then waits for.
    with _reach(host, port, time.monotonic() + seconds):
        _init()
    from mindspore import communication

    return communication.get_rank()


def wait_for_all_ranks() -> None:
    """Wait until every rank is here; alone, do nothing. Ranks that are about to end with 75 call it after saving."""
    if not is_joined():
        return
    import numpy as np
    from mindspore import Tensor, ops

    ops.AllGather()(Tensor(np.zeros(1, np.int32))).asnumpy()


def is_joined() -> bool:
    """Whether this process is in a cluster now."""
    communication = sys.modules.get("mindspore.communication")
    return communication is not None and communication.GlobalComm.INITED


def leave(code: int) -> NoReturn:
    """End this process, which has joined, with an exit code; with 0 once all ranks are here.

    MindSpore 2.10 crashes in one of ten processes that end in a cluster, when all work is done; so none ends its way.
    """
    if code == 0:
        # Others may have left when this rank still waits for their answer.
        with contextlib.suppress(RuntimeError):
            wait_for_all_ranks()
    if code in (0, INTERRUPTED):
        # An operation ends with an answer that is sent when the other side has gone on already.
        time.sleep(_LAST_ANSWER_SECONDS)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def serve(port: int, num_ranks: int) -> NoReturn:
    """Be the scheduler until the last rank has left, then end the process with 0; with 1 if they do not come together.

    MindSpore's scheduler would wait for ranks to say that they leave, which they do not; so it is a child that ends
    when nothing is connected to it any more. Call it before MindSpore is imported.
    """
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        die_with(parent)
        _be_scheduler()
    has_ranks, quiet = False, 0
    while not has_ranks or quiet < 5:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            os._exit(1 if status else 0)
        count = _connections(port)
        has_ranks = has_ranks or count >= num_ranks
        quiet = 0 if count else quiet + 1
        time.sleep(0.2)
    os.kill(child, signal.SIGKILL)
    os._exit(0)


def die_with(parent: int) -> None:
    """Let the kernel kill this process when the process that has started it ends, however that happens."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have ended before.
    if os.getppid() != parent:
        os._exit(1)


def _be_scheduler() -> NoReturn:
    import mindspore as ms

    ms.set_device("CPU")
    try:
        _init()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def _init() -> None:
    from mindspore import communication

    try:
        communication.init()
    except (RuntimeError, ValueError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip("-# ")), "no reason given")
        raise UserError("cluster", f"cannot be joined: {reason.strip()}") from None


def _reach(host: str, port: int, limit: float) -> socket.socket:
    while True:
        try:
            return socket.create_connection((host, port), timeout=5)
        except OSError as error:
            if time.monotonic() > limit:
                rule = f"the scheduler cannot be reached: {(error.strerror or 'no answer').lower()}"
                raise UserError("cluster", rule, f"{host}:{port}") from None
        time.sleep(0.1)


def _connections(port: int) -> int:
    """Established TCP connections to a port of this machine."""
    count = 0
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError), open(table, encoding="ascii") as lines:
            for line in lines:
                # Local address, remote address, state; 01 is established.
                local, _, state = line.split()[1:4]
                count += state == "01" and local.endswith(f":{port:04X}")
    return count
