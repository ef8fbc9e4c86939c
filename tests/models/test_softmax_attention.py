"""Attention in all forms against float64, with and without windows, masks, and as many keys as queries."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from src.models.kernels import FORMS
from src.models.softmax_attention import SoftmaxAttention
from tests.models.forms import build, check_forms
from tests.models.test_kernels import GRADIENTS, VALUES, normal

B, H, K = 2, 3, 4
D = H * K


def heads(x_BND: np.ndarray) -> np.ndarray:
    """(B, N, D) -> (B, H, N, K) in float64."""
    return x_BND.astype(np.float64).reshape(*x_BND.shape[:2], H, K).transpose(0, 2, 1, 3)


def attention(q_BND, k_BMD, v_BMD, mask=1.0) -> np.ndarray:
    score = K**-0.5 * heads(q_BND) @ heads(k_BMD).swapaxes(-1, -2)
    weight = np.exp(score - score.max(-1, keepdims=True))
    out_BHNK = weight / weight.sum(-1, keepdims=True) * mask @ heads(v_BMD)
    return out_BHNK.transpose(0, 2, 1, 3).reshape(q_BND.shape)


def masked_net(mask: np.ndarray | None, window_size: int = 0) -> type[nn.Cell]:
    fixed_mask = None if mask is None else Tensor(mask)

    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            self.attention = SoftmaxAttention(D, H, window_size)

        def construct(self, q_BND, k_BMD, v_BMD):
            return self.attention(q_BND, k_BMD, v_BMD, fixed_mask)

    return Net


def drop(*shape: int) -> np.ndarray:
    return (np.random.default_rng(5).random(shape) < 0.7).astype(np.float32) / np.float32(0.7)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("N", "M"), [(7, 7), (9, 4)])
def test_attention(N, M, masked):
    q, k, v = 2.0 * normal(B, N, D, seed=1), 2.0 * normal(B, M, D, seed=2), 2.0 * normal(B, M, D, seed=3)
    mask = drop(B, H, N, M) if masked else None
    expected = attention(q, k, v, mask if masked else 1.0)
    check_forms(masked_net(mask), q, k, v, expected=expected, tolerance=VALUES, gradient_tolerance=GRADIENTS)


@pytest.mark.parametrize("masked", [False, True])
def test_windows_attend_to_themselves(masked):
    side, W = 6, 2
    q, k, v = (2.0 * normal(B, side * side, D, seed=seed) for seed in (1, 2, 3))
    mask = drop(B * 9, H, W * W, W * W) if masked else None
    expected = np.empty((B, side, side, D))
    for image in range(B):
        for number in range(9):
            rows, columns = (slice(first * W, first * W + W) for first in divmod(number, 3))
            window = [x[image].reshape(side, side, D)[rows, columns].reshape(1, W * W, D) for x in (q, k, v)]
            out = attention(*window, mask[image * 9 + number] if masked else 1.0)
            expected[image, rows, columns] = out.reshape(W, W, D)
    expected = expected.reshape(B, side * side, D)
    check_forms(masked_net(mask, W), q, k, v, expected=expected, tolerance=VALUES, gradient_tolerance=GRADIENTS)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("N", "M", "W"), [(9, 4, 0), (16, 16, 2)])
def test_probabilities_are_what_the_values_are_weighed_by(N, M, W, form):
    q, k, v = (Tensor(2.0 * normal(B, count, D, seed=seed)) for seed, count in ((1, N), (2, M), (3, M)))
    net = build(lambda: SoftmaxAttention(D, H, W), form).set_train(False)
    probability_AHPM = net.probabilities(q, k)
    assert probability_AHPM.shape == net.mask_shape(q, k)
    np.testing.assert_allclose(probability_AHPM.asnumpy().sum(-1), 1.0, rtol=0, atol=1e-6)
    out = net.tokens(net.matmul(probability_AHPM, net.heads(v)), q.shape)
    np.testing.assert_allclose(net(q, k, v).asnumpy(), out.asnumpy(), rtol=0, atol=VALUES)


def test_large_scores_are_finite():
    q = np.full((1, 2, D), 100.0, np.float32)
    v = normal(1, 2, D)
    out = build(lambda: SoftmaxAttention(D, H), "composed")(Tensor(q), Tensor(q), Tensor(v))
    assert out.dtype == ms.float32
    np.testing.assert_allclose(out.asnumpy(), attention(q, q, v), rtol=0, atol=VALUES)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match=r"dim must be a multiple of num_heads\. Received: dim 12, num_heads 5"):
        SoftmaxAttention(12, 5)
