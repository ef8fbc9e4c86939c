"""Input pipelines in turns: one turn is a whole epoch, with worker processes that live on from one to the next.

Nothing is read ahead of a turn on either side: this project's reader and torch's loader both hand out work when an
epoch is begun, and an epoch ends when all of its batches have been received.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from src.benchmark.data_cases import DataCase, chosen_data_cases
from src.benchmark.data_images import write_arrays, write_jpegs
from src.benchmark.runner import report, started
from src.benchmark.settings import DataBenchmarkConfig, find_peer_python
from src.benchmark.table import DataMeasurement
from src.errors import ConfigError, NumbersError


def benchmark_data(config: DataBenchmarkConfig) -> None:
    """Measure all cases, print the table as it grows, write the figures if asked.

    Raises:
        ConfigError: an unknown case, no interpreter for the peer, or a batch that a case cannot make.
        NumbersError: the two sides of a case do not give the same batches.
        UserError: a worker ended early.
    """
    cases = chosen_data_cases(config.arch, config.peer)
    for case in cases:
        check_batch_size(case, config.batch_size)
    peer_python = sys.executable if config.peer == "decode" else find_peer_python(config.peer_python)
    settings = {"mode": "data", "workers": config.workers, "rounds": config.rounds}
    with tempfile.TemporaryDirectory() as folder:
        report("data", measure_all(cases, config, peer_python, Path(folder)), settings, config.json_path)


def measure_all(
    cases: list[DataCase], config: DataBenchmarkConfig, peer_python: str, folder: Path
) -> Iterator[DataMeasurement]:
    """Measure one case after the other; cases with the same images share their files in the folder."""
    for case in cases:
        images = folder / f"{'jpeg' if case.is_jpeg else f'arrays_{case.image_size}'}_{case.num_images}"
        if not images.exists():
            images.mkdir()
            if case.is_jpeg:
                write_jpegs(images, case.num_images)
            else:
                write_arrays(images, case.num_images, case.image_size)
        yield measure_pipeline(case, config, peer_python, images)


def check_batch_size(case: DataCase, batch_size: int | None) -> None:
    """A case that mixes has an even batch, and a training case no more rows than images.

    Raises:
        ConfigError: not so.
    """
    if batch_size is None:
        return
    if case.training and batch_size > case.num_images:
        raise ConfigError("--batch_size", f"must be at most the {case.num_images} images of {case.name}", batch_size)
    if batch_size % 2 and "mix_up" in case.augment:
        raise ConfigError("--batch_size", f"must be even for {case.name}, which mixes images", batch_size)


def measure_pipeline(case: DataCase, config: DataBenchmarkConfig, peer_python: str, images: Path) -> DataMeasurement:
    """One case, both sides in turns."""
    batch_size = config.batch_size or case.batch_size
    request = {**asdict(case), "workers": config.workers, "batch_size": batch_size, "folder": str(images)}
    peer_module = "own_data_worker" if config.peer == "decode" else "peer_data_worker"
    with (
        started(sys.executable, "own_data_worker", {**request, "formulation": "own"}) as own,
        started(peer_python, peer_module, {**request, "formulation": config.peer}) as peer,
    ):
        sides = (own, peer)
        # The first epoch starts the worker processes and brings the files into memory.
        check_same_batches(case, *[side.run(1) for side in sides], only_count=config.peer == "decode")
        rounds = [[side.run(1) for side in sides] for _ in range(config.rounds)]
        versions = {"own": own.description["versions"], "peer": peer.description["versions"]}
        return summarise_pipeline(case, batch_size, config.workers, rounds, peer.description["name"], versions)


def check_same_batches(case: DataCase, own: dict[str, Any], peer: dict[str, Any], only_count: bool) -> None:
    """Both sides read as many images, in batches of the same shape unless only the count is asked for.

    Raises:
        NumbersError: they do not.
    """
    ours, theirs = ((side["images"], None if only_count else tuple(side["shape"])) for side in (own, peer))
    if ours != theirs:
        rule = "both sides must read the same number of images, in batches of the same shape"
        raise NumbersError(case.name, rule, f"{ours} here, {theirs} there")


def summarise_pipeline(
    case: DataCase, batch_size: int, workers: int, rounds: list, peer_name: str, versions: dict[str, Any]
) -> DataMeasurement:
    """Medians over the rounds, the ratio within each."""
    own, peer = ([side["images"] / side["seconds"][0] for side in turns] for turns in zip(*rounds, strict=True))
    own_first, peer_first = (
        1e3 * statistics.median(side["first_batch_seconds"] for side in turns) for turns in zip(*rounds, strict=True)
    )
    return DataMeasurement(
        case=case.name,
        batch_size=batch_size,
        workers=workers,
        own_images_per_second=statistics.median(own),
        peer_images_per_second=statistics.median(peer),
        ratio=statistics.median(ours / theirs for ours, theirs in zip(own, peer, strict=True)),
        own_first_ms=own_first,
        peer_first_ms=peer_first,
        own_worker_mb=rounds[-1][0]["worker_mb"],
        peer_worker_mb=rounds[-1][1]["worker_mb"],
        peer=peer_name,
        versions=versions,
    )
