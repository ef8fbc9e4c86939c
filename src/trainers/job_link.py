"""How the launchers of several servers act as one: together they start, and when a rank fails on one, all end.

The first server listens, the others connect. Messages are JSON objects, one a line. A connection that breaks is a
server that has died. One server alone needs none of this, and every method then does nothing.
"""

from __future__ import annotations

import hashlib
import json
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from src.errors import UserError
from src.trainers.launch_plan import Plan

_LONGEST_MESSAGE = 1 << 16
# Seconds until a silent peer is asked, between questions, and how many go unanswered before it is dead.
_KEEP_ALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))


class ServerError(UserError):
    """Another server's job has ended.

    Args:
        server: its server_id.
        reason: what it says, or that it says nothing more.
        exit_code: of its launcher.
    """

    def __init__(self, server: str, reason: str, exit_code: int = 1):
        super().__init__(f"server {server}", reason)
        self.server, self.reason, self.exit_code = server, reason, exit_code


@dataclass
class _Peer:
    """The launcher of another server."""

    connection: socket.socket
    name: str = ""
    is_done: bool = False
    received: bytes = field(default=b"", repr=False)

    def messages(self) -> list[dict]:
        """What has come since; an EOFError when there will be no more."""
        try:
            block = self.connection.recv(_LONGEST_MESSAGE)
        except BlockingIOError:
            return []
        except OSError:
            block = b""
        *lines, self.received = (self.received + block).split(b"\n")
        if not block or len(self.received) > _LONGEST_MESSAGE:
            raise EOFError
        try:
            found = [json.loads(line) for line in lines]
        except ValueError:
            raise EOFError from None
        return [message for message in found if isinstance(message, dict)]

    def send(self, **message: object) -> None:
        try:
            self.connection.settimeout(5)
            self.connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            # Its end is noticed when it is read from.
            return
        finally:
            self.connection.setblocking(False)


class JobLink:
    """One launcher's connections to the others. Close it, or use it in a ``with``.

    Args:
        plan: the job.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.name = plan.server.server_id
        self.others = [server.server_id for server in plan.table.servers if server is not plan.server]
        self.digest = hashlib.sha256(repr((plan.table.servers, Path(plan.script).name)).encode()).hexdigest()
        self._listener: socket.socket | None = None
        self._peers: list[_Peer] = []

    def __enter__(self) -> JobLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        for connection in [peer.connection for peer in self._peers] + [self._listener] * bool(self._listener):
            connection.close()
        self._peers, self._listener = [], None

    def connect(self, seconds: float, is_wanted: Callable[[], bool]) -> None:
        """Wait until the launchers of all servers are here.

        Args:
            seconds: how long.
            is_wanted: asked again and again; waiting ends when it says no.

        Raises:
            UserError: servers that do not come, or with another table or script.
        """
        if not self.others:
            return
        limit = time.monotonic() + seconds
        step = self._accept if self.plan.is_first else self._call
        while is_wanted() and not step():
            if time.monotonic() > limit:
                here = {peer.name for peer in self._peers}
                missing = [name for name in self.others if name not in here]
                names = ", ".join(missing if self.plan.is_first else [self.plan.table.servers[0].server_id])
                raise UserError("cluster", f"no launcher in {seconds:.0f} s on server {names}: start it there as here")
            time.sleep(0.05)

    def check(self) -> None:
        """Look at what the others say.

        Raises:
            ServerError: one has failed or died.
        """
        for peer in self._peers:
            if peer.is_done:
                continue
            try:
                messages = peer.messages()
            except EOFError:
                raise ServerError(peer.name, "its launcher is gone, so the job ends") from None
            for message in messages:
                if message.get("event") == "done":
                    peer.is_done = True
                elif message.get("event") == "failed":
                    origin, reason = str(message.get("server")), str(message.get("reason"))
                    code = message.get("code")
                    raise ServerError(origin, reason, code if isinstance(code, int) and 0 < code < 256 else 1)

    def report_failure(self, error: UserError) -> None:
        """Tell the others that the job ends, and why."""
        server, reason = self.name, error.lines[0]
        if isinstance(error, ServerError):
            server, reason = error.server, error.reason
        for peer in self._peers:
            peer.send(event="failed", server=server, reason=reason, code=error.exit_code)

    def report_done(self) -> None:
        """Tell the others that all ranks of this server are done."""
        for peer in self._peers:
            peer.send(event="done")

    @property
    def is_needed(self) -> bool:
        """Whether other servers still work with the scheduler of this one."""
        return self.plan.is_first and not all(peer.is_done for peer in self._peers)

    def _call(self) -> bool:
        """Reach the first server; true when it has answered."""
        if not self._peers:
            try:
                connection = socket.create_connection((self.plan.host, self.plan.port + 1), timeout=5)
            except OSError:
                return False
            self._peers = [_Peer(_prepared(connection), self.plan.table.servers[0].server_id)]
            self._peers[0].send(event="hello", server=self.name, job=self.digest)
        peer = self._peers[0]
        try:
            messages = peer.messages()
        except EOFError:
            raise ServerError(peer.name, "its launcher has hung up") from None
        for message in messages:
            if message.get("event") == "refused":
                raise UserError("cluster", str(message.get("reason")))
        return any(message.get("event") == "start" for message in messages)

    def _accept(self) -> bool:
        """Let others in; true when all are here, who then know."""
        if self._listener is None:
            family = socket.AF_INET6 if ":" in self.plan.host else socket.AF_INET
            self._listener = socket.create_server((self.plan.host, self.plan.port + 1), family=family, backlog=64)
            self._listener.setblocking(False)
        while select.select([self._listener], [], [], 0)[0]:
            self._peers.append(_Peer(_prepared(self._listener.accept()[0])))
        for peer in [peer for peer in self._peers if not peer.name]:
            self._greet(peer)
        if {peer.name for peer in self._peers} != set(self.others):
            return False
        for peer in self._peers:
            peer.send(event="start")
        self._listener.close()
        self._listener = None
        return True

    def _greet(self, peer: _Peer) -> None:
        try:
            messages = peer.messages()
        except EOFError:
            self._peers.remove(peer)
            return
        for message in messages:
            name, job = message.get("server"), message.get("job")
            reason = ""
            if name not in self.others:
                reason = f"server {name} is not in the rank table of server {self.name}"
            elif any(other.name == name for other in self._peers):
                reason = f"server {name} has come twice: SERVER_ID must differ"
            elif job != self.digest:
                reason = f"servers {name} and {self.name} have different rank tables, or start different files"
            if reason:
                print(f"warning: refused: {reason}", file=sys.stderr, flush=True)
                peer.send(event="refused", reason=reason)
                peer.connection.close()
                self._peers.remove(peer)
                return
            peer.name = name


def _prepared(connection: socket.socket) -> socket.socket:
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEP_ALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    return connection
