"""Workers in turns: this project's own on one side, a stand-in for the peer on the other."""

import json
import sys
from pathlib import Path

import pytest

from src.benchmark import runner
from src.benchmark.cases import Case
from src.benchmark.runner import benchmark, started
from src.benchmark.settings import BenchmarkConfig
from src.errors import UserError
from tests.benchmark.stand_in import stand_in

_TINY = Case("tiny", "vit_tiny_patch16_224", 2, 16, 3, dict(patch_size=8, embed_dim=8, depth=1, num_heads=2))
_REQUEST = {**_TINY.__dict__, "mode": "infer", "threads": 1, "formulation": "own"}

# Answers as src.benchmark.peer_worker does; sleeps 1 ms a step.
_PEER = """\
print("a library talks")
sizes = request["sizes"]
assert sizes["mlp_ratio"] == 4.0 and sizes["depth"] == 1 and request["batch_size"] == 2, request
D, F = sizes["embed_dim"], int(sizes["embed_dim"] * sizes["mlp_ratio"])
patches = (request["image_size"] // sizes["patch_size"]) ** 2
block = 4 * D + 3 * D * D + 3 * D + D * D + D + 2 * D * F + F + D
number = 3 * sizes["patch_size"] ** 2 * D + D + D + (patches + 1) * D + block + 2 * D + (D + 1) * request["num_classes"]
serve(answers, lambda: time.sleep(1e-3), dict(name="stand-in", versions=dict(), num_parameters=number + {extra}))
"""


def peer(folder: Path, extra: int = 0) -> str:
    """A peer whose network has so many parameters more than ours."""
    return stand_in(folder, _PEER.format(extra=extra))


@pytest.fixture
def tiny_case(monkeypatch):
    monkeypatch.setattr(runner, "chosen_cases", lambda names, peer: [_TINY])
    monkeypatch.setattr(runner, "find_peer_python", lambda given: given)
    monkeypatch.setattr(runner, "SECONDS_PER_TURN", 0.01)


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_a_whole_run(mode, tiny_case, tmp_path, capsys):
    config = BenchmarkConfig(peer_python=peer(tmp_path), rounds=2, json_path=str(tmp_path / "figures.json"))
    benchmark(mode, config)
    header, line = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == [mode, "batch"]
    assert line.startswith("tiny ")
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    (one,) = figures["cases"]
    assert (figures["mode"], figures["threads"], one["batch_size"], one["peer"]) == (mode, 1, 2, "stand-in")
    assert one["own_ms"] > 0
    assert one["peer_ms"] >= 1.0
    assert one["versions"]["own"]["mindspore"].startswith("2.")


def test_networks_of_other_sizes_are_refused(tiny_case, tmp_path):
    with pytest.raises(UserError, match="as many parameters"):
        benchmark("infer", BenchmarkConfig(peer_python=peer(tmp_path, extra=1), rounds=1))


def test_a_worker_that_ends_early_says_why():
    request = {**_REQUEST, "arch": "no_such_arch"}
    with (
        pytest.raises(UserError, match=r"own_worker: ended early: .*no_such_arch"),
        started(sys.executable, "own_worker", request),
    ):
        pass


def test_a_worker_that_dies_between_turns_says_so(tmp_path):
    with started(stand_in(tmp_path, "print('{}', file=answers)"), "peer_worker", _REQUEST) as worker:
        worker.process.wait()
        with pytest.raises(UserError, match="peer_worker: ended early: without a message"):
            worker.run(1)
