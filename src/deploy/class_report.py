"""Accuracy of each class, and which classes are taken for which: short on a terminal, whole as CSV. Needs numpy alone.

Shape letters: N images, K classes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.files import write_text
from src.metrics import label_ranks

PER_CLASS_FILE, CONFUSION_FILE = "per_class.csv", "confusion.csv"
# Classes and confusions that a terminal shows, columns of a matrix there, and letters of a class name.
_ROWS, _COLUMNS, _LETTERS = 20, 12, 24


@dataclass(frozen=True)
class ClassReport:
    """Counts of images by class.

    Attributes:
        names: of the classes.
        images_K: how many images a class has.
        top1_K: how many of them have it as their first class.
        top5_K: how many of them have it among their first five.
        confusion_KK: images by label (rows) and first class (columns).
    """

    names: tuple[str, ...]
    images_K: np.ndarray
    top1_K: np.ndarray
    top5_K: np.ndarray
    confusion_KK: np.ndarray

    @classmethod
    def of(cls, logits_NK: np.ndarray, label_N: np.ndarray, names: Sequence[str]) -> ClassReport:
        """Count finite logits and labels below K."""
        K = logits_NK.shape[1]
        rank_N = label_ranks(logits_NK, label_N)
        right = {top: np.bincount(label_N[rank_N < top], minlength=K) for top in (1, 5)}
        # Of equal scores the first class counts, as in `label_ranks`.
        confusion_KK = np.bincount(label_N * K + logits_NK.argmax(1), minlength=K * K).reshape(K, K)
        shown = tuple("".join(letter if letter.isprintable() else "?" for letter in name) for name in names)
        return cls(shown, confusion_KK.sum(1), right[1], right[5], confusion_KK)

    def write(self, folder: Path) -> None:
        """Write both tables as a whole, each in one step."""
        titles = ("class", "name", "images", "top1_correct", "top5_correct", "top1", "top5")
        rows = []
        for index, name in enumerate(self.names):
            images, *right = (int(count[index]) for count in (self.images_K, self.top1_K, self.top5_K))
            rows.append((index, name, images, *right, *(count / images if images else "" for count in right)))
        write_text(folder / PER_CLASS_FILE, _csv([titles, *rows]))
        matrix = [(name, *row) for name, row in zip(self.names, self.confusion_KK.tolist(), strict=True)]
        write_text(folder / CONFUSION_FILE, _csv([("label \\ first class", *self.names), *matrix]))

    def per_class_text(self) -> str:
        """The classes that have images; of many those with the smallest top-1."""
        present = np.flatnonzero(self.images_K)
        share_K = self.top1_K / np.maximum(self.images_K, 1)
        shown = present
        if len(present) > _ROWS:
            shown = present[np.argsort(share_K[present], kind="stable")[:_ROWS]]
        lines = [f"{'class':<{_LETTERS + 6}}{'images':>8}{'top-1':>10}{'top-5':>10}"]
        for index in shown:
            images = self.images_K[index]
            shares = f"{share_K[index]:>10.2%}{self.top5_K[index] / images:>10.2%}"
            lines.append(f"{self._title(index):<{_LETTERS + 6}}{images:>8}{shares}")
        if len(present) > _ROWS:
            lines.append(f"({_ROWS} of {len(present)} classes, the smallest top-1 first; {PER_CLASS_FILE} has all)")
        return "\n".join(lines)

    def confusion_text(self) -> str:
        """The matrix; of many classes the most frequent confusions."""
        K = len(self.names)
        if K > _COLUMNS:
            return self._confusions_text()
        width = max(5, len(str(self.images_K.max())) + 1)
        columns = "".join(f"{index:>{width}}" for index in range(K))
        lines = [f"{'label, first class':<{_LETTERS + 6}}{columns}"]
        for index, row in enumerate(self.confusion_KK):
            lines.append(f"{self._title(index):<{_LETTERS + 6}}" + "".join(f"{count:>{width}}" for count in row))
        return "\n".join(lines)

    def _confusions_text(self) -> str:
        wrong_KK = self.confusion_KK.copy()
        np.fill_diagonal(wrong_KK, 0)
        label_M, first_M = np.nonzero(wrong_KK)
        order = np.argsort(-wrong_KK[label_M, first_M], kind="stable")[:_ROWS]
        lines = [f"{'label':<{_LETTERS + 6}}{'first class':<{_LETTERS + 6}}{'images':>8}"]
        for label, first in zip(label_M[order], first_M[order], strict=True):
            names = f"{self._title(label):<{_LETTERS + 6}}{self._title(first):<{_LETTERS + 6}}"
            lines.append(f"{names}{wrong_KK[label, first]:>8}")
        shown = f"{len(order)} of {len(label_M)} confusions, the most frequent first"
        return "\n".join([*lines, f"({shown}; {CONFUSION_FILE} has the whole matrix)"])

    def _title(self, index: int) -> str:
        name = self.names[index]
        return f"{index:>4} {name if len(name) <= _LETTERS else name[: _LETTERS - 3] + '...'}"


def _csv(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
