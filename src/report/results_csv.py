"""A file that collects evaluations, a line each."""

from __future__ import annotations

import csv
import datetime
import io
from pathlib import Path
from typing import Any

from src.device import num_ranks, versions
from src.files import append_under_header, sha256
from src.metrics import reliability, wilson_interval
from src.trainers.evaluator import Evaluation

COLUMNS = (
    *("date", "arch", "weights", "sha256", "ema", "set", "data_url", "images", "classes"),
    *("top1", "top1_low", "top1_high", "top5", "top5_low", "top5_high", "loss", "calibration_error"),
    *("image_size", "crop_pct", "resize_mode", "interpolation", "compat", "images_per_second"),
    *("device", "devices", "mindspore", "commit"),
)


def append_result(target: Path, evaluation: Evaluation) -> None:
    """Add a line to the file, which is made where it is missing. Processes that do so at once take turns.

    Raises:
        ConfigError: the file is there and has other columns.
    """
    values = result_values(evaluation)
    append_under_header(target, _csv_line(COLUMNS), _csv_line([values[column] for column in COLUMNS]))


def result_values(evaluation: Evaluation) -> dict[str, Any]:
    """Column -> value; what the set's authors do not define is None."""
    config, result, eval_set = evaluation.config, evaluation.result, evaluation.eval_set
    model, data = config.model, config.data
    total, right = result.counts.total, int(evaluation.is_right.sum())
    has_one_label = eval_set.accepted is None
    top1, found = wilson_interval(right, total), versions()
    top5 = wilson_interval(result.counts.top5, total) if has_one_label else (None, None)
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "arch": model.arch,
        "weights": str(evaluation.weights),
        "sha256": sha256(evaluation.weights),
        "ema": model.use_ema,
        "set": data.set if eval_set.name == "val" else eval_set.name,
        "data_url": data.data_url,
        "images": total,
        "classes": len(eval_set.images.class_names),
        "top1": right / total,
        "top1_low": top1[0],
        "top1_high": top1[1],
        "top5": result.counts.top5_accuracy if has_one_label else None,
        "top5_low": top5[0],
        "top5_high": top5[1],
        "loss": result.loss if has_one_label else None,
        "calibration_error": reliability(result.prediction_N).calibration_error if has_one_label else None,
        "image_size": model.image_size,
        "crop_pct": data.crop_pct,
        "resize_mode": data.resize_mode,
        "interpolation": data.interpolation,
        "compat": model.compat,
        "images_per_second": result.images_per_second,
        "device": config.run.device_target,
        "devices": num_ranks(),
        "mindspore": found["mindspore"],
        "commit": found["commit"],
    }


def _csv_line(values: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()
