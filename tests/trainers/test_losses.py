"""Soft-target cross entropy and label smoothing equal timm and torch, values and gradients."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mindspore import Tensor, ops

from src.data.mixup import soft_targets
from src.trainers.losses import SoftTargetCrossEntropy
from tests.oracles import read_arrays, read_json, requires_oracles

CASES = ("small", "imagenet", "huge_logits", "one_class_dominates")


def loss_and_gradient(logits_BK: np.ndarray, target_BK: np.ndarray) -> tuple[float, np.ndarray]:
    loss, gradient = ops.value_and_grad(SoftTargetCrossEntropy())(Tensor(logits_BK), Tensor(target_BK))
    return float(loss), gradient.asnumpy()


@requires_oracles
@pytest.mark.parametrize("case", CASES)
def test_soft_targets_equal_timm(case):
    stored = read_arrays("loss/loss_inputs_and_grads.npz")
    loss, gradient = loss_and_gradient(stored[f"{case}_logits"], stored[f"{case}_soft"])
    assert loss == pytest.approx(read_json("loss/losses.json")[f"{case}/soft_target_ce"], rel=2e-6)
    np.testing.assert_allclose(gradient, stored[f"{case}_soft_target_ce_grad_logits"], rtol=0, atol=1e-6)


@requires_oracles
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("smoothing", "name"), [(0.1, "label_smoothing_0.1_torch"), (0.0, "ce")])
def test_smoothed_labels_equal_torch(case, smoothing, name):
    stored = read_arrays("loss/loss_inputs_and_grads.npz")
    logits_BK = stored[f"{case}_logits"]
    target_BK = soft_targets(stored[f"{case}_labels"], logits_BK.shape[1], smoothing)
    loss, gradient = loss_and_gradient(logits_BK, target_BK)
    assert loss == pytest.approx(read_json("loss/losses.json")[f"{case}/{name}"], rel=2e-6)
    np.testing.assert_allclose(gradient, stored[f"{case}_{name}_grad_logits"], rtol=0, atol=1e-6)


def test_loss_of_known_numbers():
    # Two equal scores: log 2 whatever the target; and a certain right answer costs nothing.
    even = loss_and_gradient(np.zeros((1, 2), np.float32), np.array([[0.3, 0.7]], np.float32))
    assert even[0] == pytest.approx(np.log(2), rel=5e-6)
    np.testing.assert_allclose(even[1], [[0.2, -0.2]], atol=2e-6)
    sure = loss_and_gradient(np.array([[100.0, 0.0]], np.float32), np.array([[1.0, 0.0]], np.float32))
    assert sure[0] == 0.0


def test_smoothed_targets_of_known_numbers():
    target_BK = soft_targets(np.array([2, 0]), 4, 0.1)
    np.testing.assert_allclose(target_BK, [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]], rtol=1e-6)
    assert target_BK.dtype == np.float32


@given(st.integers(1, 1000), st.floats(0, 0.99), st.data())
def test_targets_are_distributions_with_the_label_on_top(num_classes, smoothing, data):
    label_B = np.array(data.draw(st.lists(st.integers(0, num_classes - 1), min_size=1, max_size=5)))
    target_BK = soft_targets(label_B, num_classes, smoothing)
    np.testing.assert_allclose(target_BK.sum(1), 1.0, rtol=1e-5)
    assert (target_BK >= 0).all()
    assert (target_BK[np.arange(len(label_B)), label_B] == target_BK.max(1)).all()
