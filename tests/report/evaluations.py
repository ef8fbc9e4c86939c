"""Evaluations and reports that were made up, and weights as training leaves them."""

import datetime
from pathlib import Path

import numpy as np
from PIL import Image

from src.data.eval_sets import EvalSet
from src.data.image_source import ImageList
from src.files import sha256
from src.metrics import PREDICTION, counts_of
from src.models import resolved
from src.report.content import Content, SplitCounts
from src.report.mistakes import Mistake
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


def records(epochs: int = 3) -> list[dict]:
    """The log of a run of ten updates an epoch, with a record every five."""
    found = []
    for step in range(5, 10 * epochs + 1, 5):
        epoch = (step - 1) // 10 + 1
        now = {"epoch": epoch, "step": step, "loss": 3 / step, "lr": step / 1000, "images_per_second": 100.0 + epoch}
        found.append({"kind": "step", **now})
        if step % 10 == 0:
            found.append({"kind": "epoch", **now, "val_loss": 2 / step, "top1": 1 - 1 / step, "top5": 1.0})
    return found


def content(class_names: tuple[str, ...], **changed: object) -> Content:
    """A report with everything: each class has four images, one of which is taken for the next class."""
    K = len(class_names)
    label_N = np.repeat(np.arange(K), 4)
    first_N = np.where(np.arange(4 * K) % 4 == 0, (label_N + 1) % K, label_N)
    made = evaluation(answers(label_N, first_N, np.linspace(0.05, 1.0, 4 * K)), class_names)
    pictures = [Image.new("RGB", (side, side), (200, 30, 30)) for side in (32, 224)]
    mistakes = [
        Mistake("a/1.png", class_names[0], class_names[1], 0.9, pictures[0]),
        Mistake("a/2.png", class_names[1], class_names[0], 0.8, pictures[1], pictures[1]),
    ]
    rows = [
        {"backend": "checkpoint", "images": 4, "top1": 0.75, "agreement": 1.0, "max_difference": 0.0},
        {"backend": "ONNX Runtime", "images": 4, "top1": 0.75, "agreement": 1.0, "max_difference": 2.5e-6},
    ]
    values = dict(
        config=made.config,
        made=datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.timezone.utc),
        versions={"python": "3.11.7", "commit": "abc123"},
        weights=made.weights,
        weights_sha256="0123456789abcdef" * 4,
        manifest=None,
        records=records(),
        splits=[SplitCounts("train", class_names, np.full(K, 9)), SplitCounts("val", class_names, np.full(K, 4))],
        evaluation=made,
        mistakes=mistakes,
        backends=rows,
    )
    return Content(**{**values, **changed})
