"""Counts behind accuracies, on numpy arrays.

Shape letters: N images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TopCounts:
    """Images, and how many of them are right among the first one and the first five."""

    total: int = 0
    top1: int = 0
    top5: int = 0

    def __add__(self, other: TopCounts) -> TopCounts:
        return TopCounts(self.total + other.total, self.top1 + other.top1, self.top5 + other.top5)

    @property
    def top1_accuracy(self) -> float:
        """In [0, 1]; 0 without images."""
        return self.top1 / self.total if self.total else 0.0

    @property
    def top5_accuracy(self) -> float:
        """In [0, 1]; 0 without images."""
        return self.top5 / self.total if self.total else 0.0


def label_ranks(logits_NK: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    """Place of each true class among its image's scores, 0 for the best.

    Equal scores keep the order of their classes (a stable sort). A row that holds NaN is wrong at every place.
    """
    score_N1 = np.take_along_axis(logits_NK, label_N[:, None], 1)
    better_NK = logits_NK > score_N1
    equal_before_NK = (logits_NK == score_N1) & (np.arange(logits_NK.shape[1]) < label_N[:, None])
    rank_N = (better_NK | equal_before_NK).sum(1)
    return np.where(np.isnan(logits_NK).any(1), logits_NK.shape[1], rank_N)


def top_counts(logits_NK: np.ndarray, label_N: np.ndarray) -> TopCounts:
    """Count right answers. With fewer than five classes, top-5 counts what lies among all of them."""
    rank_N = label_ranks(logits_NK, label_N)
    top5 = np.count_nonzero(rank_N < min(5, logits_NK.shape[1]))
    return TopCounts(len(label_N), int(np.count_nonzero(rank_N == 0)), int(top5))


def cross_entropy_sum(logits_NK: np.ndarray, label_N: np.ndarray) -> float:
    """Sum over images of -log softmax at the label, in float64."""
    scores = logits_NK.astype(np.float64)
    largest_N1 = scores.max(1, keepdims=True)
    log_sum_N = np.log(np.exp(scores - largest_N1).sum(1)) + largest_N1[:, 0]
    return float((log_sum_N - np.take_along_axis(scores, label_N[:, None], 1)[:, 0]).sum())
