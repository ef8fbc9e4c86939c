"""Exported files in turns: MindSpore and ONNX Runtime on a tiny network, a stand-in for the C++ runner."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from src.benchmark import deploy_runner
from src.benchmark.cases import Case
from src.benchmark.deploy_runner import ARCHS, benchmark_deploy, chosen_archs, largest_difference, summarise_deploy
from src.benchmark.lite_worker import RunnerTimer
from src.benchmark.serving import CallTimer
from src.benchmark.settings import DeployBenchmarkConfig, read_command_line
from src.benchmark.table import format_table
from src.errors import ConfigError, NumbersError, UserError

_SIZES = dict(patch_size=8, embed_dim=192, depth=1, num_heads=3)
_TINY = Case("tiny", "vit_tiny_patch16_224", 1, 16, 3, _SIZES)

# Leaves what the C++ runner leaves; the logits are MindSpore's, moved by a number.
_RUNNER = """\
#!{python}
import sys
from pathlib import Path
import numpy as np
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
folder = Path(flags["--input0_path"]).parent
assert Path(flags["--mindir_path"]).stat().st_size > 1000 and flags["--threads"] == "1", flags
Path(flags["--result_dir"]).mkdir(exist_ok=True)
images = sorted(Path(flags["--input0_path"]).glob("*.bin"))
for image, logits in zip(images, np.load(folder / "mindspore.npy"), strict=True):
    (logits + np.float32({moved})).tofile(Path(flags["--result_dir"]) / (image.stem + "_0.bin"))
lines = ["NN inference cost average time: 0.5 ms of infer_count 8", "p50: 2.5 ms", "p90: 3 ms", "p99: 4 ms"]
(Path(flags["--time_dir"]) / "test_perform_static.txt").write_text("\\n".join([*lines, "images/s: 2000"]) + "\\n")
"""


def stand_in(folder: Path, moved: float = 0.0) -> Path:
    path = folder / "main"
    path.write_text(_RUNNER.format(python=sys.executable, moved=moved), encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def tiny_case(monkeypatch):
    monkeypatch.setattr(deploy_runner, "chosen_archs", lambda names: [_TINY])


def test_a_whole_run(tiny_case, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(deploy_runner, "RUNNER", stand_in(tmp_path))
    config = DeployBenchmarkConfig(batch_sizes=(4,), rounds=2, json_path=str(tmp_path / "figures.json"))
    benchmark_deploy(config)
    header, line = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["deploy", "batch", "runner", "img/s"]
    assert line.split()[:3] == ["tiny", "4", "2000.00"]
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    (one,) = figures["cases"]
    assert (figures["mode"], figures["threads"], figures["rounds"]) == ("deploy", 1, 2)
    # The runner's percentile is per image of a call of four.
    assert (one["p50_ms"]["lite"], one["images_per_second"]["lite"]) == (10.0, 2000.0)
    assert one["p50_ms"]["onnx"] > 0
    assert one["p50_ms"]["mindspore"] > 0
    assert 0 < one["max_difference"] < 1e-5
    assert one["versions"]["mindspore"]["mindspore"].startswith("2.")


def test_sides_that_differ_are_not_compared(tiny_case, monkeypatch, tmp_path):
    monkeypatch.setattr(deploy_runner, "RUNNER", stand_in(tmp_path, moved=2e-4))
    with pytest.raises(NumbersError, match=r"tiny: logits of the C\+\+ runner must be .* 0.0001. Received: 2.0\de-04"):
        benchmark_deploy(DeployBenchmarkConfig(batch_sizes=(1,), rounds=1))


def test_without_a_runner_it_says_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.setattr(deploy_runner, "RUNNER", tmp_path / "main")
    with pytest.raises(ConfigError, match="`make runner` builds it"):
        benchmark_deploy(DeployBenchmarkConfig())


def test_logits_that_are_no_numbers_are_refused(tmp_path):
    (tmp_path / "results").mkdir()
    logits_NK = np.zeros((1, 3), np.float32)
    logits_NK.tofile(tmp_path / "results" / "0000_0.bin")
    np.save(tmp_path / "mindspore.npy", logits_NK)
    np.save(tmp_path / "onnx.npy", logits_NK)
    assert largest_difference(_TINY, tmp_path) == 0.0
    np.save(tmp_path / "onnx.npy", logits_NK * np.nan)
    with pytest.raises(NumbersError, match="logits of ONNX Runtime must be"):
        largest_difference(_TINY, tmp_path)


def test_a_runner_that_fails_says_why(tmp_path):
    runner = tmp_path / "main"
    runner.write_text("#!/bin/sh\necho 'error: net.mindir: crashes' >&2\nexit 4\n")
    runner.chmod(0o755)
    timer = RunnerTimer({"folder": str(tmp_path), "batch_size": 1, "runner": str(runner), "threads": 1})
    with pytest.raises(UserError, match=r"^C\+\+ runner: net.mindir: crashes$"):
        timer.turn()


def test_calls_are_counted_by_images():
    seen = []
    timer = CallTimer(seen.append, [1, 2, 3], batch_size=8)
    timer.turn()
    timer.turn()
    assert seen == [1, 2, 3, 1, 2, 3]
    assert len(timer.seconds) == 3
    report = timer.report()
    assert report["images_per_second"] == pytest.approx(24 / sum(timer.seconds))
    assert report["p50_ms"] == pytest.approx(1e3 * sorted(timer.seconds)[1])


def turn(speed: float, latency: float) -> dict:
    return {"images_per_second": speed, "p50_ms": latency}


def test_ratios_are_the_medians_of_the_rounds_ratios():
    rounds = [
        {"mindspore": turn(5, 200), "lite": turn(30, 30), "onnx": turn(10, 60)},
        {"mindspore": turn(4, 250), "lite": turn(20, 50), "onnx": turn(10, 75)},
        {"mindspore": turn(6, 160), "lite": turn(10, 90), "onnx": turn(10, 90)},
    ]
    one = summarise_deploy(_TINY, 1, rounds, 1.5e-6, {})
    header, line = format_table("deploy", [one]).splitlines()
    assert line.split() == ["tiny", "1", "20.00", "10.00", "2.00", "50.0", "75.0", "1.50", "5.00", "1.50e-06"]
    assert len(header) == len(line)


def test_any_model_can_be_named():
    assert [case.arch for case in chosen_archs("all")] == list(ARCHS)
    (one, other) = chosen_archs("twins_svt_small, cct_7_3x1_32")
    assert (one.name, one.image_size, one.num_classes) == ("alt_gvt_small", 224, 1000)
    assert (other.name, other.image_size, other.num_classes) == ("cct_7_3x1_32", 32, 10)
    with pytest.raises(ConfigError, match=r"arch: no such model\. Received: vit_giant"):
        chosen_archs("vit_giant")


def test_mode_and_flags():
    mode, config = read_command_line(["deploy", "--arch", "tnt_s_patch16_224", "--threads", "2", "--batch_sizes", "1"])
    assert (mode, config.arch, config.threads, config.batch_sizes) == ("deploy", "tnt_s_patch16_224", 2, (1,))
    with pytest.raises(ConfigError, match="--peer: no such flag"):
        read_command_line(["deploy", "--peer", "timm"])
