"""Fused kernels: the same numbers as without them, a cache that is found again, and what stands in their way."""

import os
from pathlib import Path

import pytest

from src import cluster, device
from src.errors import ConfigError, UserError
from src.schema import RunConfig
from tests import small_run
from tests.command import python
from tests.cpp_runner import ROOT


def train(tmp_path: Path, **flags: object) -> tuple[dict[str, float], str]:
    """A run of train.py with a kernel cache of its own; its figures and what it printed."""
    data = small_run.write_images(tmp_path / "data")
    output = tmp_path / "_".join(map(str, flags.values()))
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for name in ("MS_COMPILER_CACHE_PATH", "MS_GRAPH_KERNEL_TILING"):
        environment.pop(name, None)
    words = small_run.arguments(data, output, epochs=1, **flags)
    done = python(ROOT / "train.py", *words, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    (row,) = small_run.epoch_records(output / "ckpt_0")
    return row, done.stdout


@pytest.mark.slow
def test_fused_kernels_give_the_same_numbers(tmp_path):
    plain, _ = train(tmp_path, graph_kernel=False)
    assert not (tmp_path / "cache").exists()
    fused, output = train(tmp_path, graph_kernel=True)
    assert "not fused" not in output
    kernels = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("Fused_*.so")}
    assert kernels
    assert fused["loss"] == pytest.approx(plain["loss"], abs=1e-5)
    assert fused["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-4)
    again, _ = train(tmp_path, graph_kernel=True, seed=0)
    assert (again["loss"], again["grad_norm"]) == (fused["loss"], fused["grad_norm"])
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("Fused_*.so")} == kernels
    # The compiler's log.
    assert not list(tmp_path.glob("*.log"))


def test_what_stands_in_the_way_of_fusion(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert device.fuse_elementwise() == f"{tmp_path}/file/mindvit/kernels-2.10.0-0: Not a directory"
    monkeypatch.setattr(device, "package_version", lambda name: None)
    assert device.fuse_elementwise().startswith("package decorator is missing, `pip install")


@pytest.mark.parametrize(
    ("variables", "device_num", "line"),
    [
        (
            {},
            8,
            "device_num: each device needs a process of its own, start them by scripts/run_distribute_train_ascend.sh",
        ),
        ({"RANK_SIZE": "8", "RANK_ID": "3"}, 1, "RANK_SIZE: each device needs a process of its own"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, 1, "OMPI_COMM_WORLD_SIZE: each device needs a process of its own"),
        ({"RANK_SIZE": "-1"}, 1, "RANK_SIZE: must be a whole number. Received: -1"),
        ({"MS_ROLE": "MS_WORKER", "DEVICE_ID": "one"}, 1, "DEVICE_ID: must be a whole number. Received: one"),
    ],
)
def test_several_devices_need_a_launcher(variables, device_num, line, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        device.open_device(RunConfig(device_num=device_num))
    assert str(caught.value).startswith(line)


def test_ranks(monkeypatch):
    for name in ("MS_ROLE", "RANK_ID", "MS_WORKER_NUM"):
        monkeypatch.delenv(name, raising=False)
    # Without a cluster there is one rank, whatever another way of starting has left.
    monkeypatch.setenv("RANK_ID", "3")
    assert (device.rank(), device.num_ranks(), device.in_cluster()) == (0, 1, False)
    monkeypatch.setenv("MS_ROLE", "MS_WORKER")
    monkeypatch.setenv("MS_WORKER_NUM", "8")
    assert (device.rank(), device.num_ranks(), device.in_cluster()) == (3, 8, True)


def test_scheduler_that_cannot_be_reached(monkeypatch):
    with pytest.raises(UserError, match="the scheduler cannot be reached: connection refused"):
        cluster.join("127.0.0.1", 1, 0.2)


def test_environment_of_others(monkeypatch):
    monkeypatch.setenv("SECRET", "a")
    monkeypatch.setenv("OTHER", "b")
    found = device.environment(without=("SECRET",), OTHER=1)
    assert "SECRET" not in found
    assert found["OTHER"] == "1"
