"""Learning curves from the records of a run's log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from src.report.charts import Series, line_chart
from src.report.html import Html

Records = Sequence[Mapping[str, Any]]


def learning_curves(records: Records) -> list[Html]:
    """Charts of loss, top-1 and learning rate; none of what was not recorded."""
    steps = [record for record in records if record["kind"] == "step"]
    epochs = [record for record in records if record["kind"] == "epoch"]
    per_epoch = {record["epoch"]: record["step"] / record["epoch"] for record in epochs}
    # An epoch that was cut off has as many updates as the one before it.
    last = list(per_epoch.values())[-1] if per_epoch else None
    places = [record["step"] / (per_epoch.get(record["epoch"]) or last or 1) for record in steps]
    of_steps = {key: _series(steps, places, key) for key in ("loss", "lr")}
    ends = [float(record["epoch"]) for record in epochs]
    x_name = "epoch" if last else "update"
    charts = []
    for title, lines, is_share in (
        ("Loss", [("training", of_steps["loss"]), *_evaluated(epochs, ends, "val_loss")], False),
        ("Top-1", _evaluated(epochs, ends, "top1"), True),
        ("Learning rate", [("learning rate", of_steps["lr"])], False),
    ):
        series = [Series(name, points) for name, points in lines if points]
        if series:
            charts.append(line_chart(title, series, x_name, is_share))
    return charts


def _evaluated(epochs: Records, ends: Sequence[float], key: str) -> list[tuple[str, tuple]]:
    """What was measured after every epoch, by the weights and by their moving average."""
    return [("held-out", _series(epochs, ends, key)), ("moving average", _series(epochs, ends, f"ema_{key}"))]


def _series(records: Records, places: Sequence[float], key: str) -> tuple[tuple[float, float], ...]:
    pairs = zip(places, records, strict=True)
    return tuple((place, record[key]) for place, record in pairs if record.get(key) is not None)
