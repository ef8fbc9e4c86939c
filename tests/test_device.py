"""Fused kernels: the same numbers as without them, a cache that is found again, and what stands in their way."""

import json
import os
from pathlib import Path

import pytest

from src import device
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
    (row,) = map(json.loads, (output / "ckpt_0" / "metrics.jsonl").read_text().splitlines())
    return row, done.stdout


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
