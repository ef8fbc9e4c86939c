"""What a launcher has to start on this server: ranks, devices, cores and folders, and the cluster's address."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from src import schema
from src.config import load_flags
from src.device import server_id
from src.errors import ConfigError
from src.trainers.rank_table import Device, RankTable, Server, read_rank_table

DEFAULT_PORT = 8118
_LOOPBACK = "127.0.0.1"
_LOWEST_FREE, _LOWEST_OUTGOING = 12000, 32000


class LaunchConfig(schema.Section):
    """distribute.py [flags] train.py [its flags]: one process per device of this server, as ranks of one job."""

    rank_table_file: schema.Path = Field(None, description="HCCL rank table (JSON); called on every server of it")
    device_num: schema.or_none(schema.Count) = Field(
        None, description="devices of this server; without a table they are 0, 1, ..."
    )
    sched_port: schema.or_none(Annotated[int, Field(ge=1024, lt=65535)]) = Field(
        None, description="of the first server, and the next one; empty for 8118, or for a free one on one server alone"
    )
    log_folder: str = Field("train_parallel", description="folder of a rank, which its number is added to")


@dataclass(frozen=True)
class Rank:
    """One process: its rank among all, its device on this server, the cores it is bound to, or none, and its folder."""

    number: int
    device_id: int
    cores: tuple[int, ...]
    folder: Path


@dataclass(frozen=True)
class Plan:
    """A job as one server sees it.

    Attributes:
        script: the Python file that every rank runs.
        arguments: its command line.
        table: all servers and their ranks; the first one runs the scheduler.
        server: this one.
        ranks: what to start here.
        host: the scheduler's address.
        port: the scheduler's port; launchers of several servers talk on the next one.
    """

    script: str
    arguments: tuple[str, ...]
    table: RankTable
    server: Server
    ranks: tuple[Rank, ...]
    host: str
    port: int

    @property
    def is_first(self) -> bool:
        """Whether the scheduler runs here."""
        return self.server is self.table.servers[0]


def read_command_line(argv: list[str]) -> tuple[LaunchConfig, str, tuple[str, ...]]:
    """The launcher's own flags, the Python file behind them, and that one's arguments.

    Raises:
        ConfigError: every fault of the flags; no file.
    """
    place = next((i for i, word in enumerate(argv) if word.endswith(".py")), len(argv))
    settings = load_flags(LaunchConfig, "distribute", argv[:place])
    if place == len(argv):
        raise ConfigError("command line", "the file that all ranks run must be given: distribute.py ... train.py ...")
    if not Path(argv[place]).is_file():
        raise ConfigError("command line", "no such file", argv[place])
    return settings, argv[place], tuple(argv[place + 1 :])


def make_plan(settings: LaunchConfig, script: str, arguments: tuple[str, ...]) -> Plan:
    """What to start here.

    Raises:
        ConfigError: a table with faults, none of whose servers is this one, or of another size than was asked for; a
            port in use.
    """
    table = _table(settings)
    server = table.local_server(server_id())
    if settings.device_num not in (None, len(server.devices)):
        known = f"{len(server.devices)} on server {server.server_id} of {table.path}"
        raise ConfigError("--device_num", "must agree with the rank table", settings.device_num, known)
    several = len(table.servers) > 1
    host = table.servers[0].address() if several else _LOOPBACK
    port = settings.sched_port or (DEFAULT_PORT if several else _free_port())
    shares = divide_cores(sorted(os.sched_getaffinity(0)), len(server.devices))
    ranks = tuple(
        Rank(device.rank_id, device.device_id, cores, Path(f"{settings.log_folder}{device.rank_id}"))
        for device, cores in zip(server.devices, shares, strict=True)
    )
    plan = Plan(script, arguments, table, server, ranks, host, port)
    if plan.is_first:
        for number in (port, port + 1) if several else (port,):
            _check_port(host, number)
    return plan


def divide_cores(cores: list[int], count: int) -> list[tuple[int, ...]]:
    """Equal shares of the cores in their order, or empty ones where there are fewer cores than shares."""
    size = len(cores) // count
    return [tuple(cores[i * size : (i + 1) * size]) for i in range(count)]


def _table(settings: LaunchConfig) -> RankTable:
    if settings.rank_table_file is not None:
        return read_rank_table(Path(settings.rank_table_file))
    if settings.device_num is None:
        raise ConfigError("--rank_table_file", "must be given, or --device_num for devices of this server alone")
    devices = tuple(Device(number, number) for number in range(settings.device_num))
    return RankTable(Path("--device_num"), (Server(socket.gethostname(), None, devices),))


def _free_port() -> int:
    # Below the ports that outgoing connections get: one of those could take it before the scheduler does.
    span = _LOWEST_OUTGOING - _LOWEST_FREE
    # Launchers that start together begin at places of their own.
    for number in itertools.count(7 * os.getpid()):
        port = _LOWEST_FREE + number % span
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((_LOOPBACK, port))
            return port


def _check_port(host: str, port: int) -> None:
    """MindSpore would try in silence for minutes.

    Raises:
        ConfigError: the port is in use; the address is not this machine's.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # What a job that has ended leaves behind for a minute does no harm.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise ConfigError("rank table", "its first server is not this machine", host) from None
            rule = "is in use: does another job run? Else choose another port, the same on all servers"
            reason = rule if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror.lower()}"
            raise ConfigError("--sched_port", reason, f"{host}:{port}") from None
