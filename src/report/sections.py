"""The parts of a report, each from its numbers alone.

Shape letters: K classes.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from src.class_table import ClassRow, class_rows, hardest, means
from src.config import leaf_sections
from src.metrics import Reliability, confused_pairs, confusion_matrix, reliability, wilson_interval
from src.report.charts import number_text, reliability_diagram
from src.report.content import Content, SplitCounts
from src.report.corruptions import corruption_errors
from src.report.curves import learning_curves
from src.report.html import Html, element, join, scroll_box, table
from src.report.mistakes import Mistake, data_uri
from src.schema import Config
from src.trainers.evaluator import Evaluation

# Classes that are shown whole, and in a matrix; of more, so many rows of what matters most.
_MOST_CLASSES, _MOST_IN_MATRIX, _ROWS = 30, 20, 25
# Letters of a class name, from which on the matrix's headings are turned.
_WIDE = 4


def section(title: str, *parts: object) -> Html:
    """A part of the report under a heading."""
    return element("section", element("h2", title), *parts)


def tiles(content: Content) -> Html:
    """The few numbers that matter most."""
    shown = []
    if content.evaluation is not None:
        shown += _accuracy_tiles(content.evaluation)
    epochs = [record for record in content.records if record["kind"] == "epoch"]
    rates = [record["images_per_second"] for record in epochs if record.get("images_per_second")]
    if rates:
        note = f"images/s, median of {_count(len(rates), 'epoch')}"
        shown.append(("training", f"{statistics.median(rates):,.0f}", note))
    boxes = [
        element("div", element("dt", name), element("dd", element("b", value), " ", element("span", note)))
        for name, value, note in shown
    ]
    return element("dl", *boxes, class_="tiles")


def _accuracy_tiles(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    result, counts = evaluation.result, evaluation.result.counts
    right = int(evaluation.is_right.sum())
    shown = [("top-1", _percent(right / counts.total), _interval(right, counts.total))]
    if evaluation.eval_set.accepted is None:
        error = reliability(result.prediction_N).calibration_error
        shown += [
            ("top-5", _percent(counts.top5_accuracy), _interval(counts.top5, counts.total)),
            ("loss", f"{result.loss:.4f}", "mean cross entropy"),
            ("calibration error", _percent(error), "expected, 15 bins"),
        ]
    shown.append(("images", f"{counts.total:,}", f"{counts.total - right:,} wrong"))
    if result.images_per_second:
        shown.append(("evaluation", f"{result.images_per_second:,.0f}", "images/s, without the first batch"))
    return shown


def curves(content: Content) -> Html:
    """Learning curves; nothing without a run."""
    charts = learning_curves(content.records)
    return section("Learning curves", element("div", *charts, class_="charts")) if charts else Html()


def corruptions(evaluation: Evaluation) -> Html:
    """Errors on ImageNet-C; nothing on other sets."""
    eval_set = evaluation.eval_set
    if eval_set.corruptions is None:
        return Html()
    errors = corruption_errors(evaluation.result.prediction_N["index"], evaluation.is_right, eval_set.corruptions)
    rows = [(name, _percent(error)) for name, error in errors.items()]
    rows.append(("plain mean", _percent(sum(errors.values()) / len(errors))))
    note = element("p", "The mean is not divided by AlexNet's errors: it is no mCE.", class_="note")
    return section("Corruptions", table(("corruption", "error"), rows, "Error of every corruption"), note)


def classes(evaluation: Evaluation) -> Html:
    """Precision, recall and F1 of every class, and what is taken for what; nothing where images have several labels."""
    if evaluation.eval_set.accepted is not None:
        return Html()
    names = evaluation.eval_set.images.class_names
    prediction_N = evaluation.result.prediction_N
    rows = class_rows(prediction_N, names)
    if len(rows) <= _MOST_CLASSES:
        by_class = _class_table(rows, "Scores of every class", rows)
    else:
        worst = hardest(rows, _ROWS)
        title = f"All {len(rows):,} classes"
        by_class = join(
            [
                element("p", f"The {len(worst)} classes of the lowest F1; all of them below.", class_="note"),
                _class_table(worst, "The classes of the lowest F1", rows),
                _folded(title, _class_table(rows, title, rows, is_tall=True)),
            ]
        )
    matrix = Html()
    if len(names) <= _MOST_IN_MATRIX:
        matrix = section("Confusion matrix", _matrix(confusion_matrix(prediction_N, len(names)), names))
    return join([section("Classes", by_class), matrix, _confusions(prediction_N, names)])


def _class_table(rows: Sequence[ClassRow], label: str, whole: Sequence[ClassRow], is_tall: bool = False) -> Html:
    heads = ("class", "images", "precision", "recall", "F1", "top-5", "taken for")
    cells = [
        (
            _name(row.name),
            f"{row.images:,}",
            *map(_percent, (row.precision, row.recall, row.f1, row.top5)),
            _name(f"{row.taken_for} ({row.taken})") if row.taken else "",
        )
        for row in rows
    ]
    mean = means(whole)
    total = f"{sum(row.images for row in whole):,}"
    cells.append((element("em", "mean of the classes"), total, *map(_percent, mean.values()), ""))
    return table(heads, cells, label, texts=(0, 6), is_tall=is_tall)


def _matrix(count_KK: Any, names: Sequence[str]) -> Html:
    """Images by class and answer; a cell is the darker the larger its share of its row."""
    kind = "turned" if max(map(len, names)) > _WIDE else None
    heads = [element("th", element("span", _cut(name)), scope="col", title=name, class_=kind) for name in names]
    rows = []
    for name, count_K in zip(names, count_KK.tolist(), strict=True):
        total = sum(count_K) or 1
        cells = [element("td", count or "", class_=f"shade{math.ceil(4 * count / total)}") for count in count_K]
        rows.append(element("tr", element("th", _cut(name), scope="row", title=name), *cells))
    head = element("tr", element("th", "class, answer", scope="col"), *heads)
    body = element("table", element("thead", head), element("tbody", *rows), class_="matrix")
    note = element("p", "A row is a class, a column what its images were taken for.", class_="note")
    return join([scroll_box(body, "Confusion matrix"), note])


def _confusions(prediction_N: Any, names: Sequence[str]) -> Html:
    pairs = confused_pairs(prediction_N).tolist()
    if not pairs:
        return Html()
    rows = [(_name(names[label]), _name(names[first]), f"{count:,}") for label, first, count in pairs[:_ROWS]]
    left = len(pairs) - len(rows)
    note = element("p", f"{left:,} more pairs are confused less often.", class_="note") if left else Html()
    heads = ("class", "taken for", "images")
    return section("Most frequent confusions", table(heads, rows, "Most frequent confusions", texts=(0, 1)), note)


def calibration(evaluation: Evaluation) -> Html:
    """Whether the network is as often right as it is sure."""
    if evaluation.eval_set.accepted is not None:
        return Html()
    found = reliability(evaluation.result.prediction_N)
    text = f"Expected calibration error {_percent(found.calibration_error)}: how far the network's confidence and its "
    text += (
        "accuracy are apart, mean over the images (Guo et al. 2017, 15 bins of equal width). A dot lies at the mean "
    )
    text += "confidence of its bin; above the dashed line the network is right more often than it is sure."
    parts = element("div", reliability_diagram(found), _reliability_table(found), class_="charts")
    return section("Calibration", element("p", text, class_="note"), parts)


def _reliability_table(found: Reliability) -> Html:
    bins = len(found.total_M)
    rows = [
        (
            f"{place / bins:.2f} to {(place + 1) / bins:.2f}",
            f"{images:,}",
            _percent(sure / images),
            _percent(right / images),
        )
        for place, (images, right, sure) in enumerate(
            zip(found.total_M.tolist(), found.right_M.tolist(), found.confidence_M.tolist(), strict=True)
        )
        if images
    ]
    return table(("confidence", "images", "mean", "right"), rows, "Bins of confidence")


def mistakes(found: Sequence[Mistake]) -> Html:
    """Pictures of the worst mistakes."""
    if not found:
        return Html()
    figures = []
    for one in found:
        pictures = [_picture(one.image, one.path)]
        if one.overlay is not None:
            pictures.append(_picture(one.overlay, f"where the network looked: {one.path}"))
        says = [
            "is ",
            element("b", one.label),
            ", taken for ",
            element("b", one.answer),
            f", {_percent(one.confidence)}",
        ]
        caption = element("figcaption", *says, element("small", one.path))
        figures.append(element("figure", element("div", *pictures, class_="pictures"), caption))
    is_paired = any(one.overlay is not None for one in found)
    looked = "; beside them, where it looked" if is_paired else ""
    note = element("p", f"Wrong answers, those first that the network was most certain of{looked}.", class_="note")
    kind = "mistakes pairs" if is_paired else "mistakes"
    return section("Worst mistakes", note, element("div", *figures, class_=kind))


def _picture(image: Any, text: str) -> Html:
    kind = "pixels" if max(image.size) <= 64 else None
    return element("img", src=data_uri(image), alt=text, width=96, height=96, class_=kind)


def data(splits: Sequence[SplitCounts], config: Config) -> Html:
    """How many images each split and class has."""
    if not splits:
        return Html()
    rows = []
    for split in splits:
        least, most = int(split.count_K.argmin()), int(split.count_K.argmax())
        ends = (f"{split.count_K[place]:,} in {split.class_names[place]}" for place in (least, most))
        rows.append((split.name, *ends, f"{split.count_K.sum():,}", f"{len(split.count_K):,}"))
    heads = ("split", "smallest class", "largest class", "images", "classes")
    summary = table(heads, rows, "Splits of the data set", texts=(0, 1, 2))
    names = splits[-1].class_names
    counts = {split.name: dict(zip(split.class_names, split.count_K.tolist(), strict=True)) for split in splits}
    by_class = [(_name(name), *(f"{count.get(name, 0):,}" for count in counts.values())) for name in names]
    whole = table(("class", *counts), by_class, "Images of every class", is_tall=len(names) > _MOST_CLASSES)
    source = element("p", f"{config.data.set} in {config.data.data_url}", class_="note")
    return section("Data", source, summary, _folded(f"Images of every class ({len(names):,})", whole))


_BACKEND_COLUMNS = {
    "images": ("images", "{:,}"),
    "top1": ("top-1", "%"),
    "top5": ("top-5", "%"),
    "agreement": ("agreement", "%"),
    "max_difference": ("largest difference of a logit", "{:.2e}"),
    "mean_difference": ("mean difference", "{:.2e}"),
    "ms_per_image": ("ms per image", "{:.3f}"),
}


def backends(rows: Sequence[dict[str, Any]]) -> Html:
    """What verify.py found; nothing where it did not run."""
    if not rows:
        return Html()
    keys = [key for key in _BACKEND_COLUMNS if any(row.get(key) is not None for row in rows)]
    cells = [
        (_name(row.get("backend", "")), *(_formatted(row.get(key), _BACKEND_COLUMNS[key][1]) for key in keys))
        for row in rows
    ]
    heads = ("backend", *(_BACKEND_COLUMNS[key][0] for key in keys))
    return section("Backends", table(heads, cells, "Agreement of the backends"))


def settings(content: Content) -> Html:
    """The configuration: what differs from the defaults first, then all; versions."""
    home, defaults = leaf_sections(), Config()
    rows, changed = [], []
    for key, name in home.items():
        value = getattr(getattr(content.config, name), key)
        row = (element("code", key), _setting(value), name)
        rows.append(row)
        if value != getattr(getattr(defaults, name), key):
            changed.append(row)
    heads = ("key", "value", "section")
    parts = [
        table(heads, changed, "Settings that differ from the defaults", texts=(0, 1, 2)),
        _folded(f"All {len(rows)} settings", table(heads, rows, "All settings", texts=(0, 1, 2), is_tall=True)),
    ]
    found = dict(content.versions)
    told = content.manifest.versions if content.manifest else {}
    cells = [(name, told.get(name, ""), version) for name, version in found.items()]
    heads = ("package", "trained with", "report made with")
    versions = table(heads, cells, "Versions", texts=(0, 1, 2))
    return join([section("Settings", *parts), section("Versions", versions)])


def _folded(title: str, content: Html) -> Html:
    return element("details", element("summary", title), content)


def _interval(right: int, total: int) -> str:
    low, high = wilson_interval(right, total)
    return f"95 % interval {100 * low:.2f} to {100 * high:.2f}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f} %"


def _formatted(value: object, form: str) -> str:
    if not isinstance(value, (int, float)):
        return "-"
    return _percent(value) if form == "%" else form.format(value)


def _setting(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return number_text(value)
    return ", ".join(map(_setting, value)) if isinstance(value, tuple) else str(value)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _name(text: object) -> Html:
    return element("span", text, class_="name")


def _cut(name: str, most: int = 14) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
