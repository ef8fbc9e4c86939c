"""What ranks do together: two processes for real, and one alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor

from src.trainers import collective
from tests.cpp_runner import ROOT
from tests.rank_tables import free_ports, rank_table, write

RANK = Path(__file__).with_name("collective_rank.py")


def assert_as_expected(said: list[dict]) -> None:
    assert [(one.pop("rank"), one["size"]) for one in said] == [(0, 2), (1, 2)]
    first, second = said
    # Digests of gradients among them: all ranks get the same bits.
    assert first == second
    assert first["counts"] == [[2 * 2**53 - 7, -1], [1, 2]]
    assert first["truths"] == [2, 1]
    assert first["floats"] == np.array([0.1 + 0.2, 2e300]).tobytes().hex()
    assert first["scalar"] == 1.0
    assert first["text"] == "rank 0: é"
    assert first["error"] == "weights after step 3: must be equal on all ranks. Received: rank 1 unlike rank 0"


def test_two_ranks_on_two_servers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    servers = ["127.0.0.1", "127.0.0.2"]
    table = write(tmp_path / "two.json", rank_table(servers, 1))
    command = [sys.executable, str(ROOT / "distribute.py"), "--rank_table_file", str(table)]
    command += ["--sched_port", str(free_ports()), str(RANK)]
    launchers = [
        subprocess.Popen(command, env={**os.environ, "SERVER_ID": server}, stderr=subprocess.PIPE, text=True)
        for server in servers
    ]
    ends = [(launcher.communicate()[1], launcher.returncode) for launcher in launchers]
    assert ends == [("", 0), ("", 0)]
    assert_as_expected([json.loads(Path(f"train_parallel{rank}/said.json").read_text()) for rank in (0, 1)])


@pytest.mark.slow
def test_two_ranks_under_msrun(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for rank in ("0", "1"):
        Path(rank).mkdir()
    command = [str(Path(sys.executable).with_name("msrun")), "--worker_num=2", "--local_worker_num=2", "--join=True"]
    command += [f"--master_port={free_ports()}", "--log_dir=logs", str(RANK)]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    assert_as_expected([json.loads(Path(f"{rank}/said.json").read_text()) for rank in (0, 1)])


def test_alone_nothing_changes():
    arrays = [np.arange(3, dtype=np.float32), np.array(2.0, np.float64)]
    means = collective.MeanOverRanks((3,))((Tensor(arrays[0]),))
    np.testing.assert_array_equal(means[0].asnumpy(), arrays[0])
    for array in arrays:
        np.testing.assert_array_equal(collective.sum_over_ranks(array), array)
        np.testing.assert_array_equal(collective.broadcast_from_first(array), array)
        assert len(collective.of_all_ranks(array)) == 1
    collective.require_equal_on_all_ranks("ab", "weights")


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((), ()),
        ((4, 6), ((0, 2, (0, 4)),)),
        ((4, 7, 3), ((0, 1, (0,)), (1, 3, (0, 7)))),
        ((99, 1, 99), ((0, 1, (0,)), (1, 2, (0,)), (2, 3, (0,)))),
    ],
)
def test_buckets(sizes, expected):
    assert collective.buckets(sizes, limit=10) == expected
