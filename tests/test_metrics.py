"""Top-k counts and cross entropy on plain arrays, against scikit-learn, torchmetrics and timm."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from src.metrics import TopCounts, cross_entropy_sum, label_ranks, top_counts
from tests.oracles import read_arrays, read_json, requires_oracles


@requires_oracles
@pytest.mark.parametrize("case", ["c10_no_ties", "c1000_f16", "c10_many_ties", "all_equal"])
def test_accuracies_equal_the_libraries(case):
    stored, wanted = read_arrays("metrics/metrics_inputs.npz"), read_json("metrics/metrics.json")[case]
    counts = top_counts(stored[f"{case}_scores"], stored[f"{case}_labels"])
    assert counts.total == wanted["n"]
    for k, accuracy in ((1, counts.top1_accuracy), (5, counts.top5_accuracy)):
        low, high = wanted[f"top{k}_pessimistic(ties lose)"], wanted[f"top{k}_optimistic(ties count)"]
        # Libraries differ where scores tie, and agree elsewhere.
        assert low <= accuracy <= high
        if low == high:
            assert accuracy == pytest.approx(wanted[f"top{k}_sklearn"], abs=1e-12)
            assert accuracy == pytest.approx(wanted[f"top{k}_timm_accuracy"], abs=1e-6)


@requires_oracles
def test_ties_keep_the_order_of_the_classes():
    stored = read_arrays("metrics/metrics_inputs.npz")
    counts = top_counts(stored["all_equal_scores"], stored["all_equal_labels"])
    # Twenty images, labels 0 to 9 twice: only class 0 comes first, classes 0 to 4 are among five.
    assert counts == TopCounts(20, 2, 10)


@requires_oracles
def test_not_a_number_is_never_right():
    stored = read_arrays("metrics/metrics_inputs.npz")
    scores_NK, label_N = stored["nan_scores"], stored["nan_labels"]
    assert label_ranks(scores_NK, label_N)[3] == 10
    others = np.arange(50) != 3
    assert top_counts(scores_NK, label_N) == top_counts(scores_NK[others], label_N[others]) + TopCounts(1, 0, 0)


def test_known_ranks():
    scores_NK = np.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [1.0, 1.0, 1.0], [np.nan, 9.0, 1.0], [np.inf, 0.0, 0.0]])
    assert label_ranks(scores_NK, np.array([0, 1, 2, 1, 0])).tolist() == [0, 2, 2, 3, 0]


def test_top5_of_fewer_than_five_classes_counts_them_all():
    scores_NK = np.array([[3.0, 1.0, 2.0], [np.nan, 1.0, 2.0]])
    assert top_counts(scores_NK, np.array([1, 1])) == TopCounts(2, 0, 1)


def test_counts_add_up_over_batches():
    random = np.random.default_rng(0)
    scores_NK, label_N = random.normal(size=(97, 11)), random.integers(0, 11, 97)
    parts = [top_counts(scores_NK[i : i + 10], label_N[i : i + 10]) for i in range(0, 97, 10)]
    assert sum(parts, TopCounts()) == top_counts(scores_NK, label_N)


def test_accuracies_of_nothing():
    assert (TopCounts().top1_accuracy, TopCounts().top5_accuracy) == (0.0, 0.0)
    assert TopCounts(8, 4, 6).top1_accuracy == 0.5
    assert TopCounts(8, 4, 6).top5_accuracy == 0.75


scores = arrays.arrays(np.float32, (7, 6), elements=st.floats(-50, 50, width=32))
labels = arrays.arrays(np.int64, (7,), elements=st.integers(0, 5))


@given(scores, labels)
def test_rank_is_the_place_in_a_stable_sort(scores_NK, label_N):
    order_NK = np.argsort(-scores_NK, axis=1, kind="stable")
    places = [row.tolist().index(label) for row, label in zip(order_NK, label_N, strict=True)]
    assert label_ranks(scores_NK, label_N).tolist() == places


@given(scores, labels, st.floats(-1000, 1000))
def test_cross_entropy_ignores_what_all_classes_share(scores_NK, label_N, shift):
    plain = -np.log(np.take_along_axis(softmax(scores_NK), label_N[:, None], 1)).sum()
    assert cross_entropy_sum(scores_NK, label_N) == pytest.approx(plain, rel=1e-9, abs=1e-9)
    shifted = scores_NK.astype(np.float64) + shift
    assert cross_entropy_sum(shifted, label_N) == pytest.approx(plain, rel=1e-6, abs=1e-6)


def softmax(scores_NK: np.ndarray) -> np.ndarray:
    power_NK = np.exp(scores_NK.astype(np.float64))
    return power_NK / power_NK.sum(1, keepdims=True)


def test_cross_entropy_of_scores_beyond_exp():
    assert cross_entropy_sum(np.array([[2000.0, 0.0]]), np.array([1])) == 2000.0
    assert np.isnan(cross_entropy_sum(np.array([[np.nan, 0.0]]), np.array([1])))
