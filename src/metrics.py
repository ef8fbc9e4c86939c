"""Accuracies, precision and recall by class, intervals and calibration, on numpy arrays.

Shape letters: N images, K classes, M bins of confidence, P pairs of classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist

import numpy as np

# What is kept of an image once a network has answered: a few numbers in place of its logits.
PREDICTION = np.dtype(
    [
        ("index", np.int64),  # of the image in its source
        ("label", np.int32),  # its true class
        ("first", np.int32),  # the class of the highest score
        ("rank", np.int32),  # place of the true class among the scores, 0 for the best
        ("confidence", np.float64),  # probability of the first class
        ("loss", np.float64),  # cross entropy
    ]
)
# Guo et al. 2017, figure 4 and table 1.
CALIBRATION_BINS = 15


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


def counts_of(prediction_N: np.ndarray) -> TopCounts:
    """`top_counts` of the same images."""
    rank_N = prediction_N["rank"]
    return TopCounts(len(rank_N), *(int(np.count_nonzero(rank_N < top)) for top in (1, 5)))


def predictions(logits_NK: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    """A `PREDICTION` for each row of finite logits, numbered from 0. Of equal scores the first class counts."""
    score_NK = logits_NK.astype(np.float64)
    largest_N = score_NK.max(1)
    log_sum_N = np.log(np.exp(score_NK - largest_N[:, None]).sum(1)) + largest_N
    prediction_N = np.empty(len(label_N), PREDICTION)
    prediction_N["index"] = np.arange(len(label_N))
    prediction_N["label"] = label_N
    prediction_N["first"] = logits_NK.argmax(1)
    prediction_N["rank"] = label_ranks(logits_NK, label_N)
    prediction_N["confidence"] = np.exp(largest_N - log_sum_N)
    prediction_N["loss"] = log_sum_N - np.take_along_axis(score_NK, label_N[:, None], 1)[:, 0]
    return prediction_N


# ---------------------------------------------------------------------------------------------------------------------
# By class


@dataclass(frozen=True)
class ClassScores:
    """Counts of images by class, and shares (K,) that follow from them; one without images to be measured on is NaN.

    Attributes:
        label_K: images of the class.
        first_K: images that were taken for the class.
        right_K: images that both hold for.
        top5_K: images of the class that have it among their first five.
    """

    label_K: np.ndarray
    first_K: np.ndarray
    right_K: np.ndarray
    top5_K: np.ndarray

    @property
    def precision(self) -> np.ndarray:
        """Share of what was taken for the class that is of it."""
        return _ratio(self.right_K, self.first_K)

    @property
    def recall(self) -> np.ndarray:
        """Share of the class that was taken for it: its top-1."""
        return _ratio(self.right_K, self.label_K)

    @property
    def top5_recall(self) -> np.ndarray:
        """Share of the class that has it among the first five."""
        return _ratio(self.top5_K, self.label_K)

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall."""
        return _ratio(2 * self.right_K, self.label_K + self.first_K)


def class_scores(prediction_N: np.ndarray, num_classes: int) -> ClassScores:
    """Count predictions by class."""
    label_N, first_N = prediction_N["label"], prediction_N["first"]
    chosen = (label_N, first_N, label_N[label_N == first_N], label_N[prediction_N["rank"] < 5])
    return ClassScores(*(np.bincount(class_N, minlength=num_classes) for class_N in chosen))


def mean_of_classes(value_K: np.ndarray) -> float:
    """Mean over the classes that have a value; NaN without any."""
    is_known_K = ~np.isnan(value_K)
    return float(value_K[is_known_K].mean()) if is_known_K.any() else math.nan


def confusion_matrix(prediction_N: np.ndarray, num_classes: int) -> np.ndarray:
    """Images by true class (rows) and first class (columns), (K, K)."""
    place_N = prediction_N["label"].astype(np.int64) * num_classes + prediction_N["first"]
    return np.bincount(place_N, minlength=num_classes**2).reshape(num_classes, num_classes)


def confused_pairs(prediction_N: np.ndarray) -> np.ndarray:
    """True class, first class and number of images of every confusion, (P, 3), the most frequent first."""
    wrong_N = prediction_N[prediction_N["label"] != prediction_N["first"]]
    pair_N2 = np.stack([wrong_N["label"], wrong_N["first"]], 1).astype(np.int64)
    pair_P2, count_P = np.unique(pair_N2, axis=0, return_counts=True)
    order = np.argsort(-count_P, kind="stable")
    return np.column_stack([pair_P2, count_P])[order]


def _ratio(part_K: np.ndarray, whole_K: np.ndarray) -> np.ndarray:
    return np.divide(part_K, whole_K, out=np.full(len(whole_K), math.nan), where=whole_K > 0)


# ---------------------------------------------------------------------------------------------------------------------
# How certain an accuracy is, and how certain the network


def wilson_interval(right: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of a share, from its counts; all of [0, 1] without images.

    E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22, 1927.
    """
    if not total:
        return 0.0, 1.0
    z, share = NormalDist().inv_cdf((1 + level) / 2), right / total
    center = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    low, high = ((center + sign * half) / (1 + z * z / total) for sign in (-1, 1))
    # Where nothing or everything is right the bound is exact, but for rounding.
    return (0.0 if right == 0 else low), (1.0 if right == total else high)


def mcnemar_p(gained: int, lost: int) -> float:
    """Probability of a difference at least as large between two networks that are equally good on the same images.

    Args:
        gained: images that the second one alone has right.
        lost: images that the first one alone has right.

    Q. McNemar, Psychometrika 12, 1947, with the binomial distribution itself: a two-sided sign test.
    """
    differing = gained + lost
    tail = sum(math.comb(differing, count) for count in range(min(gained, lost) + 1))
    # Whole numbers first: powers of two beyond float's range.
    return min(1.0, float(Fraction(2 * tail, 2**differing)))


@dataclass(frozen=True)
class Reliability:
    """Images by the probability of their first class, in bins of equal width; a bin holds its upper end.

    Attributes:
        total_M: images of a bin.
        right_M: how many of them are right.
        confidence_M: sum of their probabilities.
    """

    total_M: np.ndarray
    right_M: np.ndarray
    confidence_M: np.ndarray

    @property
    def calibration_error(self) -> float:
        """Expected calibration error, in [0, 1]: how far confidence and accuracy are apart, mean over the images.

        https://arxiv.org/abs/1706.04599 equation 5; NaN without images.
        """
        total = self.total_M.sum()
        return float(np.abs(self.right_M - self.confidence_M).sum() / total) if total else math.nan


def reliability(prediction_N: np.ndarray, bins: int = CALIBRATION_BINS) -> Reliability:
    """Sort predictions into bins of confidence."""
    confidence_N = prediction_N["confidence"]
    bin_N = np.clip(np.ceil(confidence_N * bins).astype(np.int64) - 1, 0, bins - 1)
    is_right_N = prediction_N["rank"] == 0
    return Reliability(
        np.bincount(bin_N, minlength=bins),
        np.bincount(bin_N[is_right_N], minlength=bins),
        np.bincount(bin_N, confidence_N, minlength=bins),
    )
