"""Accuracies, scores by class, intervals and calibration on plain arrays, against scikit-learn, scipy and timm."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import precision_recall_fscore_support

from src.metrics import (
    PREDICTION,
    TopCounts,
    class_scores,
    confused_pairs,
    confusion_matrix,
    counts_of,
    label_ranks,
    mcnemar_p,
    mean_of_classes,
    predictions,
    reliability,
    top_counts,
    wilson_interval,
)
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
    plain = -np.log(np.take_along_axis(softmax(scores_NK), label_N[:, None], 1))[:, 0]
    np.testing.assert_allclose(predictions(scores_NK, label_N)["loss"], plain, rtol=1e-9, atol=1e-9)
    shifted = scores_NK.astype(np.float64) + shift
    np.testing.assert_allclose(predictions(shifted, label_N)["loss"], plain, rtol=1e-6, atol=1e-6)


def softmax(scores_NK: np.ndarray) -> np.ndarray:
    power_NK = np.exp(scores_NK.astype(np.float64))
    return power_NK / power_NK.sum(1, keepdims=True)


def test_cross_entropy_of_scores_beyond_exp():
    (prediction,) = predictions(np.array([[2000.0, 0.0]]), np.array([1]))
    assert (prediction["loss"], prediction["confidence"]) == (2000.0, 1.0)


@given(scores, labels)
def test_predictions_say_what_the_logits_say(scores_NK, label_N):
    prediction_N = predictions(scores_NK, label_N)
    assert counts_of(prediction_N) == top_counts(scores_NK, label_N)
    np.testing.assert_array_equal(prediction_N["first"] == label_N, prediction_N["rank"] == 0)
    np.testing.assert_allclose(prediction_N["confidence"], softmax(scores_NK).max(1), rtol=1e-9)
    assert (prediction_N["label"].tolist(), prediction_N["index"].tolist()) == (label_N.tolist(), list(range(7)))


# ---------------------------------------------------------------------------------------------------------------------
# By class


def answered(label_N: list[int], first_N: list[int], confidence_N: list[float] | None = None) -> np.ndarray:
    """Predictions of these classes; a wrong one has its true class in second place."""
    prediction_N = np.zeros(len(label_N), PREDICTION)
    prediction_N["label"], prediction_N["first"] = label_N, first_N
    prediction_N["rank"] = prediction_N["label"] != prediction_N["first"]
    prediction_N["confidence"] = 0.5 if confidence_N is None else confidence_N
    return prediction_N


classes = st.lists(st.integers(0, 6), min_size=1, max_size=40)


@given(classes, st.randoms(use_true_random=False))
def test_class_scores_equal_scikit_learn(label_N, random):
    first_N = [label if random.random() < 0.5 else random.randrange(7) for label in label_N]
    prediction_N = answered(label_N, first_N)
    found = class_scores(prediction_N, 7)
    options = dict(labels=range(7), zero_division=np.nan)
    precision_K, recall_K, f1_K, support_K = precision_recall_fscore_support(label_N, first_N, **options)
    np.testing.assert_allclose(found.precision, precision_K, rtol=1e-12)
    np.testing.assert_allclose(found.recall, recall_K, rtol=1e-12)
    np.testing.assert_array_equal(found.label_K, support_K)
    # scikit-learn calls F1 undefined where precision or recall is; it is where there is nothing to count.
    is_counted_K = ~np.isnan(found.f1)
    np.testing.assert_array_equal(is_counted_K, (found.label_K + found.first_K) > 0)
    np.testing.assert_allclose(found.f1[is_counted_K], np.nan_to_num(f1_K[is_counted_K]), rtol=1e-12)
    np.testing.assert_array_equal(
        confusion_matrix(prediction_N, 7), sklearn_confusion(label_N, first_N, labels=range(7))
    )
    macro = [np.nanmean(value_K) if not np.isnan(value_K).all() else np.nan for value_K in (precision_K, recall_K)]
    np.testing.assert_allclose([mean_of_classes(found.precision), mean_of_classes(found.recall)], macro)


def test_known_class_scores():
    found = class_scores(answered([0, 0, 0, 1, 1], [0, 0, 1, 1, 3]), 5)
    np.testing.assert_array_equal(found.precision, [1.0, 0.5, np.nan, 0.0, np.nan])
    np.testing.assert_array_equal(found.recall, [2 / 3, 0.5, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(found.f1, [0.8, 0.5, np.nan, 0.0, np.nan])
    np.testing.assert_array_equal(found.top5_recall, [1.0, 1.0, np.nan, np.nan, np.nan])
    assert mean_of_classes(found.recall) == pytest.approx(7 / 12)
    assert np.isnan(mean_of_classes(np.array([np.nan])))


@given(classes, st.randoms(use_true_random=False))
def test_confused_pairs_are_the_matrix_without_its_diagonal(label_N, random):
    prediction_N = answered(label_N, [random.randrange(7) for _ in label_N])
    wrong_KK = confusion_matrix(prediction_N, 7)
    np.fill_diagonal(wrong_KK, 0)
    pair_P3 = confused_pairs(prediction_N)
    assert pair_P3[:, 2].sum() == wrong_KK.sum()
    assert all(wrong_KK[label, first] == count for label, first, count in pair_P3.tolist())
    assert pair_P3[:, 2].tolist() == sorted(pair_P3[:, 2].tolist(), reverse=True)


# ---------------------------------------------------------------------------------------------------------------------
# Intervals and calibration


@pytest.mark.parametrize("right", [0, 1, 17, 359, 360])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_intervals_equal_scipy(right, level):
    wanted = binomtest(right, 360).proportion_ci(level, "wilson")
    assert wilson_interval(right, 360, level) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@given(st.integers(1, 100_000), st.data())
def test_intervals_hold_the_share_and_mirror(total, data):
    right = data.draw(st.integers(0, total))
    low, high = wilson_interval(right, total)
    assert 0 <= low <= right / total <= high <= 1
    mirrored = wilson_interval(total - right, total)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)
    assert wilson_interval(0, 0) == (0.0, 1.0)


@given(st.integers(0, 400), st.integers(0, 400))
def test_probability_of_a_difference_equals_scipy(gained, lost):
    wanted = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar_p(gained, lost) == pytest.approx(wanted, rel=1e-6)
    assert mcnemar_p(gained, lost) == mcnemar_p(lost, gained)


def test_probability_of_a_difference_beyond_floats():
    assert mcnemar_p(0, 5000) == 0.0
    assert mcnemar_p(2500, 2500) == 1.0


def test_known_calibration_error():
    # Five bins: (0.4, 0.6] holds 0.6 right and 0.5 wrong, (0.8, 1] holds 0.9 right, 1.0 right.
    prediction_N = answered([0, 0, 0, 0], [0, 1, 0, 0], [0.6, 0.5, 0.9, 1.0])
    found = reliability(prediction_N, 5)
    assert found.total_M.tolist() == [0, 0, 2, 0, 2]
    assert found.right_M.tolist() == [0, 0, 1, 0, 2]
    np.testing.assert_allclose(found.confidence_M, [0, 0, 1.1, 0, 1.9])
    assert found.calibration_error == pytest.approx((abs(1 - 1.1) + abs(2 - 1.9)) / 4)
    assert np.isnan(reliability(prediction_N[:0]).calibration_error)


confidences = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


@given(confidences, st.integers(1, 20))
def test_calibration_error_is_its_definition(pairs, bins):
    confidence_N, right_N = (np.array(values) for values in zip(*pairs, strict=True))
    prediction_N = answered([0] * len(pairs), (~right_N).astype(int), confidence_N)
    error = 0.0
    for m in range(bins):
        low = -1.0 if m == 0 else m
        inside_N = (confidence_N * bins > low) & (confidence_N * bins <= m + 1)
        if inside_N.any():
            gap = abs(right_N[inside_N].mean() - confidence_N[inside_N].mean())
            error += inside_N.mean() * gap
    found = reliability(prediction_N, bins)
    assert found.calibration_error == pytest.approx(error, abs=1e-9)
    assert 0 <= found.calibration_error <= 1
    assert found.total_M.sum() == len(pairs)


def test_perfect_confidence_has_no_calibration_error():
    assert reliability(answered([0, 1], [0, 1], [1.0, 1.0])).calibration_error == 0.0
    assert reliability(answered([0, 1], [1, 0], [1.0, 1.0])).calibration_error == 1.0
