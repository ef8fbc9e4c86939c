"""Precision, recall and F1 of every class: short on a terminal, whole as CSV.

Shape letters: K classes.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.files import replacing
from src.metrics import class_scores, confused_pairs, mean_of_classes

PER_CLASS_CSV = "per_class.csv"
COLUMNS = ("class", "name", "images", "answers", "right", "precision", "recall", "f1", "top5", "taken_for", "taken")
# Classes that a terminal shows, where there are more than half as many again.
_ROWS = 20
# Of a class name on a terminal, the gap behind it included.
NAME_WIDTH = 24


@dataclass(frozen=True)
class ClassRow:
    """One class; a share that has no images to be measured on is NaN.

    Attributes:
        index: place of the class among the outputs.
        name: of the class.
        images: of the class.
        answers: images that were taken for the class.
        right: images that both hold for.
        precision: ``right / answers``.
        recall: ``right / images``.
        f1: their harmonic mean.
        top5: share of the class that has it among the first five.
        taken_for: the other class that it was taken for most often; empty for none.
        taken: how often.
    """

    index: int
    name: str
    images: int
    answers: int
    right: int
    precision: float
    recall: float
    f1: float
    top5: float
    taken_for: str
    taken: int


def class_rows(prediction_N: np.ndarray, class_names: Sequence[str]) -> list[ClassRow]:
    """A row for every class, in the order of the outputs."""
    scores = class_scores(prediction_N, len(class_names))
    # The most frequent confusions come first, so they are the last to be put in.
    taken = {label: (class_names[first], count) for label, first, count in confused_pairs(prediction_N)[::-1].tolist()}
    counts = (scores.label_K, scores.first_K, scores.right_K)
    shares = (scores.precision, scores.recall, scores.f1, scores.top5_recall)
    return [
        ClassRow(
            index,
            name,
            *(int(count_K[index]) for count_K in counts),
            *(float(share_K[index]) for share_K in shares),
            *taken.get(index, ("", 0)),
        )
        for index, name in enumerate(class_names)
    ]


def means(rows: Sequence[ClassRow]) -> dict[str, float]:
    """Means over the classes that have a value."""
    names = ("precision", "recall", "f1", "top5")
    return {name: mean_of_classes(np.array([getattr(row, name) for row in rows])) for name in names}


def hardest(rows: Sequence[ClassRow], most: int) -> list[ClassRow]:
    """The classes of the lowest F1; those that nothing can be said of are left out."""
    known = [row for row in rows if not math.isnan(row.f1)]
    return sorted(known, key=lambda row: (row.f1, row.index))[:most]


def table_lines(rows: Sequence[ClassRow]) -> list[str]:
    """The classes for a terminal; of many those of the lowest F1."""
    is_cut = len(rows) > _ROWS * 3 // 2
    head = f"{'class':<{NAME_WIDTH}}{'images':>8}{'precision':>11}{'recall':>9}{'F1':>9}{'top-5':>9}  taken for"
    lines = [head]
    for row in hardest(rows, _ROWS) if is_cut else rows:
        taken = f"  {shown_name(row.taken_for)} ({row.taken})" if row.taken else ""
        shares = f"{_share(row.precision):>11}{_share(row.recall):>9}{_share(row.f1):>9}{_share(row.top5):>9}"
        lines.append(f"{shown_name(row.name):<{NAME_WIDTH}}{row.images:>8}{shares}{taken}")
    mean = means(rows)
    shares = (
        f"{_share(mean['precision']):>11}{_share(mean['recall']):>9}{_share(mean['f1']):>9}{_share(mean['top5']):>9}"
    )
    lines.append(f"{'mean of the classes':<{NAME_WIDTH}}{sum(row.images for row in rows):>8}{shares}")
    if is_cut:
        lines.append(f"({_ROWS} of {len(rows)} classes, the lowest F1 first; {PER_CLASS_CSV} has all of them)")
    return lines


def write_class_csv(folder: Path, rows: Sequence[ClassRow]) -> Path:
    """Write all rows; what has no value stays empty. Returns the file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        values = (row.index, row.name, row.images, row.answers, row.right, row.precision, row.recall, row.f1, row.top5)
        known = ["" if isinstance(value, float) and math.isnan(value) else value for value in values]
        writer.writerow([*known, row.taken_for, row.taken])
    target = folder / PER_CLASS_CSV
    with replacing(target) as temporary:
        # Names of folders need not be valid UTF-8.
        temporary.write_bytes(text.getvalue().encode("utf-8", "surrogateescape"))
    return target


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2%}"


def shown_name(name: str) -> str:
    """A class name that stays in its column."""
    # Names of folders may hold bytes that are no letters.
    name = "".join(letter if letter.isprintable() else "?" for letter in name)
    return name if len(name) < NAME_WIDTH else f"{name[: NAME_WIDTH - 4]}..."
