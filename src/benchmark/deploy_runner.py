"""Exported files in turns: the C++ runner on MindSpore Lite, ONNX Runtime, and MindSpore itself, on the same weights.

All three make the same calls on the same images, each in a process of its own on the same cores. Their logits are
compared before anything is timed.

Shape letters: N images, K classes.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from src.benchmark.cases import Case
from src.benchmark.runner import ROOT, report, started
from src.benchmark.settings import DeployBenchmarkConfig
from src.benchmark.table import DeployMeasurement
from src.deploy.results import read_logits
from src.errors import ConfigError, NumbersError

RUNNER = ROOT / "ascend310_infer" / "out" / "main"
ARCHS = ("deit_small_patch16_224", "cct_14_7x2_224", "tnt_s_patch16_224", "pcpvt_small_v0")
# Of a turn: so many images, but never fewer calls than it takes to speak of a median.
IMAGES_PER_TURN, FEWEST_CALLS = 16, 3
# As verify.py's.
TOLERANCE = 1e-4
SIDES = {"lite": "lite_worker", "onnx": "onnx_worker"}


def benchmark_deploy(config: DeployBenchmarkConfig) -> None:
    """Measure all cases, print the table as it grows, write the figures if asked.

    Raises:
        ConfigError: an unknown arch, or no C++ runner.
        NumbersError: two sides of a case whose logits differ.
        UserError: a worker ended early.
    """
    if not RUNNER.is_file():
        raise ConfigError("deploy", "needs the C++ runner: `make runner` builds it", RUNNER)
    cases = chosen_archs(config.arch)
    measuring = (measure_deploy(case, batch, config) for case in cases for batch in config.batch_sizes)
    settings = {"mode": "deploy", "threads": config.threads, "rounds": config.rounds}
    report("deploy", measuring, settings, config.json_path)


def chosen_archs(names: str) -> list[Case]:
    """Any models, in their own sizes: a comma-separated list, or ``all`` for those of docs/speed.md.

    Raises:
        ConfigError: no such model.
    """
    from src.models import canonical_arch, model_entry

    wanted = ARCHS if names == "all" else [canonical_arch(name.strip()) for name in names.split(",")]
    entries = {arch: model_entry(arch) for arch in wanted}
    return [Case(arch, arch, 1, entry.image_size, entry.num_classes) for arch, entry in entries.items()]


def measure_deploy(case: Case, batch_size: int, config: DeployBenchmarkConfig) -> DeployMeasurement:
    """One case, all sides in turns."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        request = {
            **dict(arch=case.arch, image_size=case.image_size, num_classes=case.num_classes, sizes=case.sizes),
            **dict(threads=config.threads, batch_size=batch_size),
            **dict(calls=max(FEWEST_CALLS, IMAGES_PER_TURN // batch_size)),
            **dict(folder=folder, runner=str(RUNNER)),
        }
        # The first one writes what the others read.
        workers = {"mindspore": stack.enter_context(started(sys.executable, "mindspore_worker", request))}
        for side, module in SIDES.items():
            workers[side] = stack.enter_context(started(sys.executable, module, request))
        # The first turn leaves the runner's logits, and finds every file in memory.
        for worker in workers.values():
            worker.run(1)
        difference = largest_difference(case, Path(folder))
        rounds = [{side: worker.run(1) for side, worker in workers.items()} for _ in range(config.rounds)]
        versions = {side: worker.description["versions"] for side, worker in workers.items()}
        return summarise_deploy(case, batch_size, rounds, difference, versions)


def largest_difference(case: Case, folder: Path) -> float:
    """Of a logit of either side from MindSpore's.

    Raises:
        NumbersError: more than float32 explains.
    """
    logits_NK = np.load(folder / "mindspore.npy")
    names = [f"{index:04d}.bin" for index in range(len(logits_NK))]
    sides = {"the C++ runner": read_logits(folder / "results", names), "ONNX Runtime": np.load(folder / "onnx.npy")}
    # NaN must not pass for agreement.
    differences = {
        side: float(np.nan_to_num(np.abs(found_NK - logits_NK), nan=np.inf).max()) for side, found_NK in sides.items()
    }
    worst = max(differences, key=differences.get)
    if differences[worst] > TOLERANCE:
        rule = f"logits of {worst} must be MindSpore's within {TOLERANCE:g}"
        raise NumbersError(case.name, rule, f"{differences[worst]:.2e}")
    return differences[worst]


def summarise_deploy(
    case: Case, batch_size: int, rounds: list[dict[str, Any]], difference: float, versions: dict[str, Any]
) -> DeployMeasurement:
    """Medians over the rounds, the ratios within each."""
    speeds, latencies = (
        {side: [turn[side][key] for turn in rounds] for side in rounds[0]} for key in ("images_per_second", "p50_ms")
    )
    return DeployMeasurement(
        case=case.name,
        batch_size=batch_size,
        images_per_second={side: statistics.median(values) for side, values in speeds.items()},
        p50_ms={side: statistics.median(values) for side, values in latencies.items()},
        ratio=statistics.median(_ratios(speeds["lite"], speeds["onnx"])),
        latency_ratio=statistics.median(_ratios(latencies["onnx"], latencies["lite"])),
        max_difference=difference,
        versions=versions,
    )


def _ratios(over: list[float], under: list[float]) -> Iterator[float]:
    return (one / other for one, other in zip(over, under, strict=True))
