"""Every operator in its forms against float64 references, and the forms' gradients against each other."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mindspore import Tensor, nn

from src.models.kernels import (
    FORMS,
    Dense,
    Gelu,
    LayerNorm,
    PatchConv2d,
    Permute,
    current_form,
    kernel_form,
)
from tests.models.forms import build, check_forms, differentiate

# Float32 noise of sums over a few dozen terms of order 1; a wrong term would be off by a tenth at least.
VALUES, GRADIENTS = 5e-6, 2e-5


def normal(*shape: int, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def parameters(make) -> dict[str, np.ndarray]:
    return {p.name: p.asnumpy().astype(np.float64) for p in build(make, "native").trainable_params()}


def test_a_form_is_chosen_by_name_and_by_target():
    assert current_form() == "composed"
    for form in FORMS:
        with kernel_form(form):
            assert current_form() == form
    assert current_form() == "composed"
    with pytest.raises(ValueError, match="Received: fast"), kernel_form("fast"):
        pass


# ---------------------------------------------------------------------------------------------------------------------
# Dense, layer norm, patches


@pytest.mark.parametrize("has_bias", [True, False])
def test_dense(has_bias):
    def make():
        return Dense(6, 5, has_bias)

    x_BND = normal(2, 3, 6)
    values = parameters(make)
    expected = x_BND @ values["weight"].T + values.get("bias", 0.0)
    check_forms(make, x_BND, expected=expected, tolerance=VALUES, gradient_tolerance=GRADIENTS)


@pytest.mark.parametrize(("epsilon", "mean", "deviation"), [(1e-6, 0.0, 1.0), (1e-5, 3.0, 0.01)])
def test_layer_norm(epsilon, mean, deviation):
    # The second case has an epsilon that matters, and rows far from zero.
    def make():
        return LayerNorm(24, epsilon)

    x_BND = normal(2, 5, 24) * np.float32(deviation) + np.float32(mean)
    values, x = parameters(make), x_BND.astype(np.float64)
    deviation_BN1 = np.sqrt(x.var(-1, keepdims=True) + epsilon)
    expected = (x - x.mean(-1, keepdims=True)) / deviation_BN1 * values["gamma"] + values["beta"]
    # The input itself is rounded at 1e-7 of its mean.
    noise = 1.0 + mean / deviation / 10
    check_forms(make, x_BND, expected=expected, tolerance=VALUES * noise, gradient_tolerance=GRADIENTS * noise**2)


def test_patch_convolution():
    def make():
        return PatchConv2d(3, 5, 4)

    image_BCYX = normal(2, 3, 8, 12)
    values = parameters(make)
    patch_BYXCPP = image_BCYX.reshape(2, 3, 2, 4, 3, 4).transpose(0, 2, 4, 1, 3, 5)
    expected = np.einsum("byxcpq,ecpq->byxe", patch_BYXCPP, values["weight"]).reshape(2, 6, 5) + values["bias"]
    check_forms(make, image_BCYX, expected=expected, tolerance=VALUES, gradient_tolerance=2 * GRADIENTS)


# ---------------------------------------------------------------------------------------------------------------------
# GELU


GRID = np.linspace(-9.0, 9.0, 40001).astype(np.float32)
GRID_64 = GRID.astype(np.float64)
PHI = np.array([0.5 * math.erfc(-x / math.sqrt(2.0)) for x in GRID_64])
DENSITY = np.exp(-0.5 * GRID_64**2) / math.sqrt(2.0 * math.pi)


@pytest.mark.parametrize("form", FORMS)
def test_gelu_is_the_erf_form(form):
    value = build(Gelu, form)(Tensor(GRID)).asnumpy()
    np.testing.assert_allclose(value, GRID_64 * PHI, rtol=0, atol=1e-6)


def test_derivative_of_gelu_is_that_of_the_erf_form():
    result = differentiate(build(Gelu, "composed"), GRID, weight=np.ones_like(GRID))
    np.testing.assert_allclose(result.gradients["input0"], PHI + GRID_64 * DENSITY, rtol=0, atol=1.5e-6)


@pytest.mark.parametrize("tanh", [False, True])
def test_forms_of_gelu(tanh):
    x = np.linspace(-6.0, 6.0, 1001).astype(np.float32)
    inner = math.sqrt(2.0 / math.pi) * (x.astype(np.float64) + 0.044715 * x.astype(np.float64) ** 3)
    erf = np.array([math.erf(value / math.sqrt(2.0)) for value in x])
    expected = 0.5 * x * (1.0 + (np.tanh(inner) if tanh else erf))
    # The native tanh is itself off by 1e-4 on a CPU.
    tolerance = 3e-4 if tanh else 1e-6
    check_forms(
        lambda: Gelu(tanh), x, expected=expected, tolerance=tolerance, gradient_tolerance=1e-3 if tanh else 5e-6
    )


def test_tanh_gelu_is_exact_where_it_is_composed():
    inner = math.sqrt(2.0 / math.pi) * (GRID_64 + 0.044715 * GRID_64**3)
    for form in ("composed", "export"):
        value = build(lambda: Gelu(True), form)(Tensor(GRID)).asnumpy()
        np.testing.assert_allclose(value, 0.5 * GRID_64 * (1.0 + np.tanh(inner)), rtol=0, atol=2e-6)


@pytest.fixture(scope="module")
def composed_gelu() -> nn.Cell:
    return build(Gelu, "composed")


@given(arrays(np.float32, 16, elements=st.floats(-1e4, 1e4, width=32)))
def test_gelu_anywhere(composed_gelu, x):
    expected = np.array([value * 0.5 * math.erfc(-value / math.sqrt(2.0)) for value in x.astype(np.float64)])
    # Far below zero the clipped polynomial leaves 2e-8 of x, as much as float32 leaves of a sum with x.
    error = np.abs(composed_gelu(Tensor(x)).asnumpy() - expected)
    assert (error <= 1e-6 + 6e-8 * np.abs(x)).all()


def test_gelu_does_not_hide_what_is_no_number(composed_gelu):
    x = np.full(16, np.nan, np.float32)
    assert np.isnan(composed_gelu(Tensor(x)).asnumpy()).all()


# ---------------------------------------------------------------------------------------------------------------------
# Transposition


@pytest.mark.parametrize("axes", [(0, 2, 1, 3), (0, 2, 4, 1, 3, 5), (0, 3, 1, 2, 4)])
def test_permute(axes):
    x = normal(*(2, 3, 4, 5, 3, 2)[: len(axes)])
    check_forms(lambda: Permute(*axes), x, expected=x.transpose(axes), tolerance=0, gradient_tolerance=0)


def test_permute_keeps_first_and_last_axis():
    with pytest.raises(ValueError, match=r"must stay in place\. Received: \(0, 2, 1\)"):
        Permute(0, 2, 1)
