"""Which classes are taken for which: short on a terminal, whole as CSV. Needs numpy alone.

Shape letters: K classes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.class_table import NAME_WIDTH, shown_name
from src.files import replacing
from src.metrics import confused_pairs, confusion_matrix

CONFUSION_CSV = "confusion.csv"
# Confusions that a terminal shows, and columns of a matrix there.
_ROWS, _COLUMNS = 20, 12


def confusion_lines(prediction_N: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """The matrix for a terminal; of many classes the most frequent confusions."""
    K = len(class_names)
    if K > _COLUMNS:
        return _pair_lines(prediction_N, class_names)
    confusion_KK = confusion_matrix(prediction_N, K)
    width = max(5, len(str(confusion_KK.max())) + 1)
    lines = [f"{'label, first class':<{NAME_WIDTH + 4}}" + "".join(f"{index:>{width}}" for index in range(K))]
    for index, row in enumerate(confusion_KK):
        lines.append(_title(index, class_names) + "".join(f"{count:>{width}}" for count in row))
    return lines


def write_confusion_csv(folder: Path, prediction_N: np.ndarray, class_names: Sequence[str]) -> Path:
    """Write the whole matrix, a row for every label. Returns the file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["label \\ first class", *class_names])
    confusion_KK = confusion_matrix(prediction_N, len(class_names))
    writer.writerows([name, *row] for name, row in zip(class_names, confusion_KK.tolist(), strict=True))
    target = folder / CONFUSION_CSV
    with replacing(target) as temporary:
        # Names of folders need not be valid UTF-8.
        temporary.write_bytes(text.getvalue().encode("utf-8", "surrogateescape"))
    return target


def _pair_lines(prediction_N: np.ndarray, class_names: Sequence[str]) -> list[str]:
    pairs = confused_pairs(prediction_N).tolist()
    lines = [f"{'label':<{NAME_WIDTH + 4}}{'first class':<{NAME_WIDTH + 4}}{'images':>8}"]
    for label, first, count in pairs[:_ROWS]:
        lines.append(f"{_title(label, class_names)}{_title(first, class_names)}{count:>8}")
    shown = f"{len(pairs[:_ROWS])} of {len(pairs)} confusions, the most frequent first"
    return [*lines, f"({shown}; {CONFUSION_CSV} has the whole matrix)"]


def _title(index: int, class_names: Sequence[str]) -> str:
    return f"{index:>3} {shown_name(class_names[index]):<{NAME_WIDTH}}"
