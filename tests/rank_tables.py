"""Rank tables as hccl_tools.py writes them, with documentation addresses or those given, and ports for their jobs."""

import json
import socket
from pathlib import Path
from typing import Any


def rank_table(names: list[str], devices: int, version: str = "1.0", **of_each: object) -> dict[str, Any]:
    """A table of these servers with equally many devices each."""
    servers = [
        {
            "server_id": name,
            "device": [
                {
                    "device_id": str(number),
                    "device_ip": f"198.51.100.{place * devices + number + 1}",
                    "rank_id": str(place * devices + number),
                }
                for number in range(devices)
            ],
            "host_nic_ip": "reserve",
            **of_each,
        }
        for place, name in enumerate(names)
    ]
    table = {"version": version, "server_count": str(len(names)), "server_list": servers, "status": "completed"}
    if version == "1.2":
        del table["server_count"]
    return table


def write(path: Path, table: object) -> Path:
    path.write_text(json.dumps(table), encoding="utf-8")
    return path


def free_ports() -> int:
    """A port that is free, and the next one too."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
