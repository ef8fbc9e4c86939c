"""Rank tables: good ones of every size, one line for each way to be broken, and which server this machine is."""

import json
import socket

import pytest

from src.errors import ConfigError
from src.trainers.rank_table import read_rank_table
from tests.rank_tables import rank_table, write

TWO = ["192.0.2.10", "192.0.2.11"]


@pytest.mark.parametrize("version", ["1.0", "1.2"])
@pytest.mark.parametrize(("servers", "devices"), [(1, 2), (1, 8), (2, 1), (2, 4), (2, 8)])
def test_good_tables(servers, devices, version, tmp_path):
    table = read_rank_table(write(tmp_path / "t.json", rank_table(TWO[:servers], devices, version)))
    assert table.num_ranks == servers * devices
    assert [server.server_id for server in table.servers] == TWO[:servers]
    numbers = [(device.rank_id, device.device_id) for server in table.servers for device in server.devices]
    assert numbers == [(rank, rank % devices) for rank in range(servers * devices)]


def test_order_is_that_of_ranks(tmp_path):
    tree = rank_table(TWO, 2)
    tree["server_list"].reverse()
    tree["server_list"][0]["device"].reverse()
    table = read_rank_table(write(tmp_path / "t.json", tree))
    assert [server.server_id for server in table.servers] == TWO
    assert [device.rank_id for device in table.servers[1].devices] == [2, 3]


def test_numbers_need_not_be_text_and_addresses_may_be_left_out_on_one_server(tmp_path):
    tree = rank_table(TWO[:1], 2)
    for number, device in enumerate(tree["server_list"][0]["device"]):
        device.update(device_id=number + 4, rank_id=number)
        del device["device_ip"]
    tree["server_count"] = 1
    path = tmp_path / "t.json"
    # As Windows' editors write it.
    path.write_text(json.dumps(tree), encoding="utf-8-sig")
    assert [device.device_id for device in read_rank_table(path).servers[0].devices] == [4, 5]


def device(tree, server=0, number=0):
    return tree["server_list"][server]["device"][number]


BROKEN = {
    "older kind": (
        lambda t: (t.pop("version"), t.update(group_list=[])),
        "version: must be one of the known, this one",
    ),
    "version": (lambda t: t.update(version="1.1"), "version: must be one of the known. Received: 1.1. Known: 1.0, 1.2"),
    "version is a number": (lambda t: t.update(version=1.0), "version: must be one of the known. Received: 1.0"),
    "status": (lambda t: t.update(status="initializing"), "status: must be completed. Received: initializing"),
    "no status": (lambda t: t.pop("status"), "status: must be completed. Received: none"),
    "count": (
        lambda t: t.update(server_count="1"),
        "server_count: must be the number of servers in server_list, 2. Received: 1",
    ),
    "no count": (lambda t: t.pop("server_count"), "server_count: must be a whole number. Received: None"),
    "no servers": (lambda t: t.update(server_list=[]), "server_list: must be a list that is not empty. Received: []"),
    "servers": (lambda t: t.update(server_list={}), "server_list: must be a list that is not empty. Received: {}"),
    "server": (lambda t: t.update(server_list=[1, 2]), "server_list[0]: must be an object. Received: 1"),
    "name": (
        lambda t: t["server_list"][1].update(server_id=""),
        "server_list[1].server_id: must be text of 1 to 64 characters. Received: ''",
    ),
    "same server": (
        lambda t: t["server_list"][1].update(server_id=TWO[0]),
        f"server_list[1].server_id: appears twice. Received: {TWO[0]}",
    ),
    "host": (
        lambda t: t["server_list"][0].update(host_ip="192.0.2.300"),
        "server_list[0].host_ip: must be an IP address. Received: '192.0.2.300'",
    ),
    "no devices": (
        lambda t: t["server_list"][1].update(device=[]),
        "server_list[1].device: must be a list that is not empty. Received: []",
    ),
    "device": (
        lambda t: t["server_list"][1].update(device=["0"]),
        "server_list[1].device[0]: must be an object. Received: 0",
    ),
    "same device": (
        lambda t: device(t, 0, 1).update(device_id="0"),
        "server_list[0].device[1].device_id: appears twice on its server. Received: 0",
    ),
    "same rank": (
        lambda t: device(t, 1, 0).update(rank_id="1"),
        "server_list[1].device[0].rank_id: is also server_list[0].device[1]'s. Received: 1",
    ),
    "gap": (lambda t: device(t, 1, 1).update(rank_id="4"), "rank_id: must be 0 to 3, each once. Received: 0, 1, 2, 4"),
    "no rank": (
        lambda t: device(t).pop("rank_id"),
        "server_list[0].device[0].rank_id: must be a whole number. Received: None",
    ),
    "below 0": (
        lambda t: device(t).update(rank_id="-1"),
        "server_list[0].device[0].rank_id: must be a whole number. Received: '-1'",
    ),
    "fraction": (
        lambda t: device(t).update(device_id=1.0),
        "server_list[0].device[0].device_id: must be a whole number. Received: 1.0",
    ),
    "truth": (
        lambda t: device(t).update(rank_id=True),
        "server_list[0].device[0].rank_id: must be a whole number. Received: True",
    ),
    "no address": (
        lambda t: device(t, 1, 1).pop("device_ip"),
        "server_list[1].device[1].device_ip: must be given where there are several servers. Received: None",
    ),
    "same address": (
        lambda t: device(t, 1, 0).update(device_ip="198.51.100.2"),
        "server_list[1].device[0].device_ip: is also server_list[0].device[1]'s. Received: 198.51.100.2",
    ),
    "address": (
        lambda t: device(t, 1, 0).update(device_ip="198.51.100"),
        "server_list[1].device[0].device_ip: must be an IP address. Received: '198.51.100'",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_table_is_one_line(name, tmp_path):
    damage, line = BROKEN[name]
    tree = rank_table(TWO, 2)
    damage(tree)
    path = write(tmp_path / "t.json", tree)
    with pytest.raises(ConfigError) as caught:
        read_rank_table(path)
    (received,) = caught.value.lines
    assert received.startswith(f"{path}: {line}")
    assert "Received: " in received


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "the rank table must be JSON: Expecting value"),
        (b"{", "the rank table must be JSON: Expecting property name"),
        (b"\xff\xfe", "the rank table must be JSON: 'utf-8' codec"),
        (b"[" * 100_000, "the rank table must be JSON: maximum recursion depth"),
        (b"[]", "must be an object. Received: list"),
        (b'{"a": 1, "a": 2}', "the rank table must be JSON: a key appears twice in one object, among a"),
        (b" " * (17 << 20), "too large for a rank table"),
    ],
)
def test_file_that_is_no_table(content, rule, tmp_path):
    path = tmp_path / "my table.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_rank_table(path)
    assert str(caught.value).startswith(f"{path}: {rule}")
    assert len(caught.value.lines) == 1


def test_no_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: no such file or directory"):
        read_rank_table(tmp_path / "absent.json")
    with pytest.raises(ConfigError, match="cannot be read: is a directory"):
        read_rank_table(tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# Which server is this


def test_local_server_by_address_name_or_wish(tmp_path):
    path = tmp_path / "t.json"
    table = read_rank_table(write(path, rank_table([TWO[0], "127.0.0.1"], 1)))
    assert table.local_server(None) is table.servers[1]
    assert table.local_server(TWO[0]) is table.servers[0]
    table = read_rank_table(write(path, rank_table([TWO[0], socket.gethostname()], 1)))
    assert table.local_server(None) is table.servers[1]
    tree = rank_table(["a", "b"], 1, "1.2", host_ip=TWO[0])
    tree["server_list"][1]["host_ip"] = "127.0.0.1"
    table = read_rank_table(write(path, tree))
    assert table.local_server(None).server_id == "b"
    assert table.local_server(TWO[0]).server_id == "a"
    assert table.servers[0].address() == TWO[0]


def test_one_server_is_this_one_whatever_its_address(tmp_path):
    table = read_rank_table(write(tmp_path / "t.json", rank_table(TWO[:1], 2)))
    assert table.local_server(None) is table.servers[0]


@pytest.mark.parametrize(
    ("names", "wanted", "line"),
    [
        (TWO, None, "no server has the name or an address of this machine, set SERVER_ID"),
        (
            ["127.0.0.1", "127.0.0.2"],
            None,
            "several servers have the name or an address of this machine, set SERVER_ID",
        ),
        (TWO, "192.0.2.12", "must name one server of"),
    ],
)
def test_no_or_several_local_servers(names, wanted, line, tmp_path):
    table = read_rank_table(write(tmp_path / "t.json", rank_table(names, 1)))
    with pytest.raises(ConfigError) as caught:
        table.local_server(wanted)
    assert line in str(caught.value)
    assert str(caught.value).endswith(f"Received: {wanted or socket.gethostname()}. Known: {', '.join(names)}")


def test_name_that_is_no_address(tmp_path):
    table = read_rank_table(write(tmp_path / "t.json", rank_table(["no-such-host.invalid", "b"], 1)))
    with pytest.raises(ConfigError, match="neither an address nor a name that resolves"):
        table.servers[0].address()
