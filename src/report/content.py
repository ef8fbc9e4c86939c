"""What a report is made of: an evaluation, and what lies beside its weights.

ckpt_0/metrics.jsonl        learning curves
ckpt_0/best.json            the checkpoint's manifest: epoch, versions
OUTPUT_DIR/verify.json      whether other backends give the same answers
"""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.data.image_source import Source
from src.data.sources import open_split
from src.device import versions
from src.errors import DataError
from src.files import sha256
from src.report.mistakes import Mistake, evaluated_network, worst_mistakes
from src.schema import Config
from src.trainers.evaluator import Evaluation
from src.trainers.log_files import METRICS_JSONL, read_records
from src.weights.manifest import Manifest, read_manifest


@dataclass(frozen=True)
class SplitCounts:
    """Images of a split by class; ``class_names`` are those of ``count_K``."""

    name: str
    class_names: tuple[str, ...]
    count_K: np.ndarray

    @classmethod
    def of(cls, name: str, images: Source) -> SplitCounts:
        """Count the labels of a source."""
        return cls(name, images.class_names, np.bincount(images.labels, minlength=len(images.class_names)))


@dataclass(frozen=True)
class Content:
    """Everything that a report shows.

    Attributes:
        config: resolved.
        made: when, in UTC.
        versions: of what made the report.
        weights: file that was evaluated; None for a run without evaluation.
        weights_sha256: of its content.
        manifest: what its run says of it.
        records: of the run's log.
        splits: of the data set.
        evaluation: what the weights answered.
        mistakes: the worst ones.
        backends: rows of ``verify.json``, where they are of these weights.
    """

    config: Config
    made: datetime.datetime
    versions: dict[str, str]
    weights: Path | None
    weights_sha256: str
    manifest: Manifest | None
    records: list[dict[str, Any]]
    splits: list[SplitCounts]
    evaluation: Evaluation | None
    mistakes: list[Mistake]
    backends: list[dict[str, Any]]


def content_of(evaluation: Evaluation) -> Content:
    """What is known about an evaluation and the run of its weights."""
    config, weights = evaluation.config, evaluation.weights
    digest = sha256(weights)
    net = None if evaluation.is_right.all() else evaluated_network(evaluation)
    splits = [SplitCounts.of(evaluation.eval_set.name, evaluation.eval_set.images)]
    if evaluation.eval_set.name == "val":
        splits = [*_train_counts(config), *splits]
    return Content(
        config=config,
        made=datetime.datetime.now(datetime.timezone.utc),
        versions=versions(),
        weights=weights,
        weights_sha256=digest,
        manifest=read_manifest(weights),
        records=read_records(weights.parent / METRICS_JSONL),
        splits=splits,
        evaluation=evaluation,
        mistakes=worst_mistakes(evaluation, net=net),
        backends=backends_of(Path(config.checkpoint.output_dir) / "verify.json", weights, digest),
    )


def content_of_run(config: Config, folder: Path) -> Content:
    """What is known about a run that was never evaluated."""
    return Content(
        config=config,
        made=datetime.datetime.now(datetime.timezone.utc),
        versions=versions(),
        weights=None,
        weights_sha256="",
        manifest=None,
        records=read_records(folder / METRICS_JSONL),
        splits=_train_counts(config),
        evaluation=None,
        mistakes=[],
        backends=[],
    )


def backends_of(path: Path, weights: Path, digest: str) -> list[dict[str, Any]]:
    """The rows of a ``verify.json``; none without the file, or where it is about other weights."""
    try:
        found = json.loads(path.read_bytes())
        rows = found["rows"]
        files = found.get("files", [])
        checkpoint = next((one for one in files if one["backend"] == "checkpoint"), None)
        is_same = (
            checkpoint["sha256"] == digest if checkpoint else Path(found["weights"]).resolve() == weights.resolve()
        )
        return [dict(row) for row in rows] if is_same else []
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _train_counts(config: Config) -> list[SplitCounts]:
    # Evaluation needs no training images.
    try:
        return [SplitCounts.of("train", open_split(config.data, "train", config.model.num_classes))]
    except DataError:
        return []
