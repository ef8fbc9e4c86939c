"""Evaluations that were made up, and weights as training leaves them."""

from pathlib import Path

import numpy as np

from src.data.eval_sets import EvalSet
from src.data.image_source import ImageList
from src.files import sha256
from src.metrics import PREDICTION, counts_of
from src.models import resolved
from src.schema import Config
from src.trainers.evaluator import EvalResult, Evaluation
from src.weights.manifest import Manifest, flat_config, write_manifest
from tests import small_run


def answers(label_N: list[int], first_N: list[int], confidence_N: list[float] | None = None) -> np.ndarray:
    """Predictions of these classes; a wrong one has its true class in second place."""
    prediction_N = np.zeros(len(label_N), PREDICTION)
    prediction_N["index"] = np.arange(len(label_N))
    prediction_N["label"], prediction_N["first"] = label_N, first_N
    prediction_N["rank"] = prediction_N["label"] != prediction_N["first"]
    prediction_N["confidence"] = 0.9 if confidence_N is None else confidence_N
    prediction_N["loss"] = 0.25
    return prediction_N


def evaluation(
    prediction_N: np.ndarray, class_names: tuple[str, ...] = small_run.CLASS_NAMES, **given: object
) -> Evaluation:
    """An evaluation that gave these predictions; ``given`` are fields of an `EvalSet`, and ``weights``, ``config``."""
    weights = given.pop("weights", Path("weights.ckpt"))
    weights.touch()
    paths = [f"{class_names[label]}/{index}.png" for index, label in enumerate(prediction_N["label"])]
    images = ImageList(Path("data/val"), paths, prediction_N["label"].tolist(), class_names)
    result = EvalResult(float(prediction_N["loss"].mean()), counts_of(prediction_N), prediction_N, 123.4)
    eval_set = EvalSet(given.pop("name", "val"), given.pop("images", images), **given.pop("set", {}))
    return Evaluation(given.pop("config", resolved(Config())), weights, eval_set, result)


def write_checkpoint(path: Path, data: Path, **flags: object) -> Path:
    """Weights, as drawn, with the manifest of a run on ``data`` with these flags."""
    config = resolved(small_run.config(data, path.parent, **flags))
    small_run.write_weights(path, **flags)
    manifest = Manifest(
        file=path.name,
        bytes=path.stat().st_size,
        sha256=sha256(path),
        arch=config.model.arch,
        epoch=1,
        step=3,
        steps_per_epoch=3,
        metrics={},
        class_names=list(small_run.CLASS_NAMES),
        shapes={},
        versions={},
        config={**flat_config(config), "compat": "official"},
    )
    write_manifest(path, manifest)
    return path
