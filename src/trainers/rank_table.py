"""HCCL rank tables: which devices of which servers train together, as `hccl_tools.py` writes them (versions 1.0, 1.2).

MindSpore 2.10 builds its clusters without one; the launcher reads it to know what to start, and where.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from src.errors import ConfigError

_VERSIONS = ("1.0", "1.2")
_LARGEST_FILE = 16 << 20
_LONGEST_NAME = 64


@dataclass(frozen=True)
class Device:
    """One process to start: the device's number on its server, and its rank among all."""

    device_id: int
    rank_id: int


@dataclass(frozen=True)
class Server:
    """A machine of the table: its name, often an address; its address if given apart; its devices by rank."""

    server_id: str
    host_ip: str | None
    devices: tuple[Device, ...]

    def is_here(self) -> bool:
        """Whether its name or address is this machine's."""
        return any(name == socket.gethostname() or _is_own_address(name) for name in (self.server_id, self.host_ip))

    def address(self) -> str:
        """Where other servers reach it.

        Raises:
            ConfigError: a name that is no address and that nothing resolves.
        """
        for name in (self.host_ip, self.server_id):
            if _address(name) is not None:
                return name
        try:
            return socket.gethostbyname(self.server_id)
        except OSError:
            rule = "is neither an address nor a name that resolves to one, add host_ip"
            raise ConfigError(f"server_id {self.server_id}", rule) from None


@dataclass(frozen=True)
class RankTable:
    """A table that holds all rules. Its first server is the one with rank 0."""

    path: Path
    servers: tuple[Server, ...]

    @property
    def num_ranks(self) -> int:
        """Processes on all servers."""
        return sum(len(server.devices) for server in self.servers)

    def local_server(self, wanted: str | None) -> Server:
        """The server that this machine is.

        Args:
            wanted: its server_id or host_ip; None finds it by this machine's name and addresses.

        Raises:
            ConfigError: none fits, or several do.
        """
        known = [server.server_id for server in self.servers]
        if wanted is not None:
            found = [server for server in self.servers if wanted in (server.server_id, server.host_ip)]
            if len(found) != 1:
                raise ConfigError("SERVER_ID", f"must name one server of {self.path}", wanted, known)
            return found[0]
        if len(self.servers) == 1:
            return self.servers[0]
        found = [server for server in self.servers if server.is_here()]
        if len(found) != 1:
            which = "several servers have" if found else "no server has"
            rule = f"{which} the name or an address of this machine, set SERVER_ID to the one that it is"
            raise ConfigError(self.path, rule, socket.gethostname(), known)
        return found[0]


def read_rank_table(path: Path) -> RankTable:
    """Read and check a rank table.

    Raises:
        ConfigError: a file that cannot be read, or the first rule that does not hold.
    """
    tree = _read_json(path)
    check = _Check(path)
    if not isinstance(tree, dict):
        check.fail("", "must be an object", type(tree).__name__)
    if tree.get("version") not in _VERSIONS:
        hint = ", this one is of an older kind: make it anew with hccl_tools.py" if "group_list" in tree else ""
        check.fail("version", f"must be one of the known{hint}", tree.get("version", "none"), _VERSIONS)
    if tree.get("status") != "completed":
        check.fail("status", "must be completed", tree.get("status", "none"))
    servers = check.filled_list(tree, "server_list")
    if "server_count" in tree or tree["version"] == "1.0":
        count = check.whole_number(tree, "server_count")
        if count != len(servers):
            check.fail("server_count", f"must be the number of servers in server_list, {len(servers)}", count)
    needs_addresses = len(servers) > 1 and tree["version"] == "1.0"
    read = [check.server(server, f"server_list[{i}]", needs_addresses) for i, server in enumerate(servers)]
    ranks = sorted(check.ranks)
    if ranks != list(range(len(ranks))):
        check.fail("rank_id", f"must be 0 to {len(ranks) - 1}, each once", ", ".join(map(str, ranks)))
    return RankTable(path, tuple(sorted(read, key=lambda server: server.devices[0].rank_id)))


class _Check:
    """One reading of a table, with what must be unique over all of it."""

    def __init__(self, path: Path):
        self.path = path
        self.names: set[str] = set()
        self.ranks: dict[int, str] = {}
        self.addresses: dict[str, str] = {}

    def fail(self, place: str, rule: str, received: object, known: object = None) -> NoReturn:
        raise ConfigError(f"{self.path}: {place}" if place else self.path, rule, received, known)

    def server(self, tree: Any, place: str, needs_addresses: bool) -> Server:
        if not isinstance(tree, dict):
            self.fail(place, "must be an object", tree)
        name = tree.get("server_id")
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
            self.fail(f"{place}.server_id", f"must be text of 1 to {_LONGEST_NAME} characters", repr(name))
        if name in self.names:
            self.fail(f"{place}.server_id", "appears twice", name)
        self.names.add(name)
        host_ip = tree.get("host_ip")
        if host_ip is not None and _address(host_ip) is None:
            self.fail(f"{place}.host_ip", "must be an IP address", repr(host_ip))
        ids: set[int] = set()
        devices = []
        for index, device in enumerate(self.filled_list(tree, "device", f"{place}.")):
            devices.append(self.device(device, f"{place}.device[{index}]", ids, needs_addresses))
        return Server(name, host_ip, tuple(sorted(devices, key=lambda device: device.rank_id)))

    def device(self, tree: Any, place: str, ids: set[int], needs_address: bool) -> Device:
        if not isinstance(tree, dict):
            self.fail(place, "must be an object", tree)
        device_id, rank_id = (self.whole_number(tree, key, f"{place}.") for key in ("device_id", "rank_id"))
        device = Device(device_id, rank_id)
        if device.device_id in ids:
            self.fail(f"{place}.device_id", "appears twice on its server", device.device_id)
        ids.add(device.device_id)
        if device.rank_id in self.ranks:
            self.fail(f"{place}.rank_id", f"is also {self.ranks[device.rank_id]}'s", device.rank_id)
        self.ranks[device.rank_id] = place
        given = tree.get("device_ip")
        if given not in (None, ""):
            address = _address(given)
            if address is None:
                self.fail(f"{place}.device_ip", "must be an IP address", repr(given))
            if address in self.addresses:
                self.fail(f"{place}.device_ip", f"is also {self.addresses[address]}'s", given)
            self.addresses[address] = place
        elif needs_address:
            self.fail(f"{place}.device_ip", "must be given where there are several servers", repr(given))
        return device

    def filled_list(self, tree: dict[str, Any], key: str, place: str = "") -> list[Any]:
        value = tree.get(key)
        if not isinstance(value, list) or not value:
            self.fail(f"{place}{key}", "must be a list that is not empty", repr(value))
        return value

    def whole_number(self, tree: dict[str, Any], key: str, place: str = "") -> int:
        """Tables hold numbers as text."""
        value = tree.get(key)
        text = value if isinstance(value, str) else str(value) if type(value) is int else ""
        # More digits would only make a longer error line.
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            self.fail(f"{place}{key}", "must be a whole number", repr(value))
        return int(text)


def _read_json(path: Path) -> Any:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ConfigError(path, f"too large for a rank table, at most {_LARGEST_FILE} bytes", path.stat().st_size)
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_repetition)
    except OSError as error:
        raise ConfigError(path, f"the rank table cannot be read: {error.strerror.lower()}") from None
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:
        raise ConfigError(path, f"the rank table must be JSON: {error}") from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key appears twice in one object, among " + ", ".join(found))
    return found


def _address(text: Any) -> str | None:
    """An IP address in its one spelling."""
    try:
        return str(ipaddress.ip_address(text)) if isinstance(text, str) else None
    except ValueError:
        return None


def _is_own_address(text: str | None) -> bool:
    address = _address(text)
    if address is None:
        return False
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # Only addresses of this machine can be bound to.
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
