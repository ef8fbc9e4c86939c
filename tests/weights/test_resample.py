"""Position embeddings and patch kernels of other sizes equal those of torch, timm, scipy and the authors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.weights.resample import (
    BICUBIC,
    BICUBIC_ANTIALIAS,
    BILINEAR,
    CORNERS,
    prefix_tokens,
    resample_patch_kernel,
    resample_positions,
    resize_matrix,
)
from tests.oracles import read_arrays, requires_oracles

RULES = (BICUBIC_ANTIALIAS, BICUBIC, BILINEAR, CORNERS)
RANDOM = np.random.default_rng(0)

# What torch's interpolate (scipy's zoom for the last) makes of unit vectors: three places to four, five to two.
THREE_TO_FOUR = {
    BICUBIC_ANTIALIAS: [[1.052239, -0.052239, 0.0], [0.373246, 0.696913, -0.070159]],
    BICUBIC: [[1.071777, -0.071777, 0.0], [0.360352, 0.749512, -0.109863]],
    BILINEAR: [[1.0, 0.0, 0.0], [0.375, 0.625, 0.0]],
    CORNERS: [[1.0, 0.0, 0.0], [0.333333, 0.666667, 0.0]],
}
FIVE_TO_TWO = {
    BICUBIC_ANTIALIAS: [0.347095, 0.41562, 0.239413, 0.029155, -0.031283],
    BICUBIC: [0.226562, 0.878906, -0.105469, 0.0, 0.0],
    BILINEAR: [0.25, 0.75, 0.0, 0.0, 0.0],
    CORNERS: [1.0, 0.0, 0.0, 0.0, 0.0],
}


@pytest.mark.parametrize("rule", RULES)
def test_weights_are_those_of_torch_and_scipy(rule):
    first, second = THREE_TO_FOUR[rule]
    np.testing.assert_allclose(resize_matrix(3, 4, rule), [first, second, second[::-1], first[::-1]], atol=1e-6)
    row = FIVE_TO_TWO[rule]
    np.testing.assert_allclose(resize_matrix(5, 2, rule), [row, row[::-1]], atol=1e-6)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(RULES))
def test_every_place_is_a_mean(old, new, rule):
    weight = resize_matrix(old, new, rule)
    assert weight.shape == (new, old)
    np.testing.assert_allclose(weight.sum(1), 1.0, atol=1e-12)
    if new > 1 or rule != CORNERS:
        np.testing.assert_allclose(weight, weight[::-1, ::-1], atol=2e-5)


@given(st.integers(1, 30), st.sampled_from(RULES))
def test_the_same_size_stays_itself(side, rule):
    np.testing.assert_allclose(resize_matrix(side, side, rule), np.eye(side), atol=1e-12)


@given(st.integers(2, 20), st.integers(1, 20), st.integers(0, 2), st.sampled_from(RULES))
def test_tokens_in_front_of_the_grid_are_kept(old, new, prefix, rule):
    table = np.random.default_rng(old).normal(size=(1, old * old + prefix, 3)).astype(np.float32)
    resampled = resample_positions(table, new * new + prefix, rule)
    assert resampled.shape == (1, new * new + prefix, 3)
    assert resampled.dtype == np.float32
    assert np.array_equal(resampled[:, :prefix], table[:, :prefix])
    weight = resize_matrix(old, new, rule)
    rows = np.tensordot(weight, table[0, prefix:].reshape(old, old, 3), (1, 0))
    expected = np.tensordot(weight, rows, (1, 1)).transpose(1, 0, 2)
    np.testing.assert_allclose(resampled[0, prefix:].reshape(new, new, 3), expected, atol=1e-5)


@given(st.integers(1, 1000), st.integers(0, 2))
def test_tokens_in_front_are_counted(side, prefix):
    assert prefix_tokens(side * side + prefix) == prefix


@pytest.mark.parametrize(("num_tokens", "wanted"), [(197, 198), (198, 197), (196, 197), (200, 577), (1, 5)])
def test_no_square_grid_is_refused(num_tokens, wanted):
    with pytest.raises(ValueError, match="no square grid"):
        resample_positions(np.zeros((1, num_tokens, 2), np.float32), wanted, BICUBIC)


@requires_oracles
@pytest.mark.parametrize("side", [7, 16, 24])
@pytest.mark.parametrize(
    ("name", "table", "rule"),
    [
        ("timm_bicubic_antialias", "src_14x14_cls", BICUBIC_ANTIALIAS),
        ("timm_dist_bicubic_antialias", "src_14x14_cls_dist", BICUBIC_ANTIALIAS),
        ("timm_npz_bilinear", "src_14x14_cls", BILINEAR),
        ("deit_bicubic", "src_14x14_cls", BICUBIC),
        ("google_scipy_zoom", "src_14x14_cls", CORNERS),
    ],
)
def test_tables_equal_those_of_outside_code(name, table, rule, side):
    stored = read_arrays("posembed/posembed.npz")
    expected = stored[f"{name}_{side}"]
    resampled = resample_positions(stored[table], expected.shape[1], rule)
    np.testing.assert_allclose(resampled, expected, rtol=0, atol=2e-6)


@requires_oracles
@pytest.mark.parametrize("side", [8, 24])
def test_tables_equal_those_of_the_cct_authors(side):
    stored = read_arrays("posembed/posembed.npz")
    resampled = resample_positions(stored["src_16x16_nocls"], side * side, BILINEAR)
    np.testing.assert_allclose(resampled, stored[f"cct_official_bilinear_16_to_{side}"], rtol=0, atol=2e-6)


# ---------------------------------------------------------------------------------------------------------------------
# Patch kernels


def test_patch_kernels_equal_those_of_timm():
    kernel = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3) ** 1.5
    smaller = [[-1.764464, 4.910029], [30.057539, 47.441895]]
    larger = [
        [-0.10774, 0.0302, 0.62025, 1.2925],
        [1.10364, 1.94578, 3.20755, 4.09792],
        [4.6549, 6.24423, 8.09607, 9.0495],
        [8.31971, 10.23078, 12.22116, 13.04305],
    ]
    np.testing.assert_allclose(resample_patch_kernel(kernel, 2, BICUBIC_ANTIALIAS)[0, 0], smaller, atol=1e-5)
    np.testing.assert_allclose(resample_patch_kernel(kernel, 4, BICUBIC_ANTIALIAS)[0, 0], larger, atol=1e-5)


@pytest.mark.parametrize("rule", [BICUBIC_ANTIALIAS, BILINEAR])
def test_enlarged_patches_are_embedded_alike(rule):
    kernel, patch = RANDOM.normal(size=(5, 3, 8, 8)), RANDOM.normal(size=(3, 8, 8))
    weight = resize_matrix(8, 12, rule)
    enlarged = np.einsum("yi,xj,cij->cyx", weight, weight, patch)
    larger = resample_patch_kernel(kernel.astype(np.float32), 12, rule)
    assert larger.shape == (5, 3, 12, 12)
    np.testing.assert_allclose(np.tensordot(larger, enlarged, 3), np.tensordot(kernel, patch, 3), atol=1e-4)
