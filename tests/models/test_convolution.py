"""Convolution and pooling in their forms against references in numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from mindspore import Tensor, nn
from numpy.lib.stride_tricks import sliding_window_view

from src.models.convolution import Conv2d, DepthwiseConv2d, MapLayout, MaxPool2d, TokenConv2d
from tests.models.forms import WeightedSum, build, check_forms

# Float32 noise of sums over up to 150 terms of order 1.
VALUES, GRADIENTS = 2e-5, 5e-5


class OnImages(nn.Cell):
    """A kernel of maps between images and tokens, so that forms of any layout compare."""

    def __init__(self, kernel: nn.Cell):
        super().__init__(auto_prefix=False)
        self.layout, self.kernel = MapLayout(), kernel

    def construct(self, image_BCYX: Tensor) -> Tensor:
        return self.layout.to_tokens(self.kernel(self.layout.from_image(image_BCYX)))


def tokens(map_BDYX: np.ndarray) -> np.ndarray:
    return map_BDYX.reshape(*map_BDYX.shape[:2], -1).swapaxes(1, 2)


@pytest.mark.parametrize(("kernel_size", "stride", "sides"), [(3, 1, (5, 6)), (7, 2, (9, 11)), (7, 2, (12, 8))])
def test_convolution(kernel_size, stride, sides):
    padding = kernel_size // 2

    def make():
        return OnImages(Conv2d(3, 4, kernel_size, stride, padding))

    image_BCYX = np.random.default_rng(3).standard_normal((2, 3, *sides)).astype(np.float32)
    weight = build(make, "native").trainable_params()[0].asnumpy().astype(np.float64)
    padded = np.pad(image_BCYX, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = sliding_window_view(padded, (kernel_size, kernel_size), (2, 3))[:, :, ::stride, ::stride]
    expected = tokens(np.einsum("bcyxij,ecij->beyx", windows, weight))
    check_forms(make, image_BCYX, expected=expected, tolerance=VALUES, gradient_tolerance=GRADIENTS)


def test_convolution_with_a_bias():
    def make():
        return OnImages(Conv2d(3, 4, 7, 4, 3, has_bias=True))

    image_BCYX = np.random.default_rng(3).standard_normal((2, 3, 16, 16)).astype(np.float32)
    weight, bias = (p.asnumpy().astype(np.float64) for p in parameters(build(make, "native"), "weight", "bias"))
    windows = sliding_window_view(np.pad(image_BCYX, ((0, 0), (0, 0), (3, 3), (3, 3))), (7, 7), (2, 3))[:, :, ::4, ::4]
    expected = tokens(np.einsum("bcyxij,ecij->beyx", windows, weight) + bias[:, None, None])
    check_forms(make, image_BCYX, expected=expected, tolerance=VALUES, gradient_tolerance=GRADIENTS)


def parameters(net: nn.Cell, *leaves: str) -> list:
    """Parameters by the last part of their names."""
    found = {name.rpartition(".")[2]: parameter for name, parameter in net.parameters_and_names()}
    return [found[leaf] for leaf in leaves]


@pytest.mark.parametrize(("patch_size", "side"), [(2, 4), (4, 8), (3, 3)])
def test_convolution_of_tokens_in_patches(patch_size, side):
    def make():
        return TokenConv2d(5, 6, patch_size, side)

    token_BND = np.random.default_rng(5).standard_normal((2, side * side, 5)).astype(np.float32)
    weight, bias = (p.asnumpy().astype(np.float64) for p in parameters(build(make, "native"), "weight", "bias"))
    n = side // patch_size
    patch = token_BND.reshape(2, n, patch_size, n, patch_size, 5)
    expected = np.einsum("byixjd,edij->byxe", patch, weight).reshape(2, n * n, 6) + bias
    check_forms(make, token_BND, expected=expected, tolerance=VALUES, gradient_tolerance=GRADIENTS)


def test_patches_that_do_not_fill_the_map_are_refused():
    with pytest.raises(ValueError, match=r"multiple of its patches'\. Received: 7, 2"):
        TokenConv2d(5, 6, 2, 7)


@pytest.mark.parametrize("side", [1, 2, 5])
def test_depthwise_convolution(side):
    def make():
        return DepthwiseConv2d(6, side)

    token_BND = np.random.default_rng(6).standard_normal((2, side * side, 6)).astype(np.float32)
    weight, bias = (p.asnumpy().astype(np.float64) for p in parameters(build(make, "native"), "weight", "bias"))
    padded = np.pad(token_BND.reshape(2, side, side, 6), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = sliding_window_view(padded, (3, 3), (1, 2))
    expected = np.einsum("byxdij,dij->byxd", windows, weight[:, 0]).reshape(2, side * side, 6) + bias
    if side == 1:
        # Eight of the nine weights meet nothing but the border: their gradients are 0.
        net = build(make, "composed")
        np.testing.assert_allclose(net(Tensor(token_BND)).asnumpy(), expected, rtol=0, atol=VALUES)
    else:
        check_forms(make, token_BND, expected=expected, tolerance=VALUES, gradient_tolerance=GRADIENTS)


def pooled(map_BDYX: np.ndarray, first: int) -> np.ndarray:
    """3x3 stride 2 maxima; odd sides have one row of nothing at either end, even ones ``first`` before the map."""
    for axis in (2, 3):
        before = 1 if map_BDYX.shape[axis] % 2 else first
        border = [(0, 0)] * 4
        border[axis] = (before, 2)
        padded = np.pad(map_BDYX, border)
        windows = sliding_window_view(padded, 3, axis).max(-1)
        map_BDYX = windows.take(range(0, map_BDYX.shape[axis], 2), axis)
    return map_BDYX


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("sides", [(4, 6), (5, 7), (1, 2), (8, 3)])
def test_pooling(sides, first):
    # No two entries are equal: which of them gets the gradient is then the same in all forms.
    count = 2 * 3 * sides[0] * sides[1]
    map_BDYX = np.random.default_rng(4).permutation(count).reshape(2, 3, *sides).astype(np.float32) / count
    check_forms(
        lambda: OnImages(MaxPool2d(first)),
        map_BDYX,
        expected=tokens(pooled(map_BDYX, first)),
        tolerance=0,
        gradient_tolerance=1e-6,
    )


def test_torch_pads_as_first_1_does():
    # torch.nn.functional.max_pool2d(x, 3, 2, 1) of the rows 0..3 and columns 0..3 of arange(16).
    map_BDYX = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    value = build(lambda: OnImages(MaxPool2d(1)), "composed")(Tensor(map_BDYX)).asnumpy()
    np.testing.assert_array_equal(value.ravel(), [5, 7, 13, 15])


@pytest.fixture(scope="module")
def composed_pooling() -> WeightedSum:
    return WeightedSum(build(lambda: OnImages(MaxPool2d(1)), "composed"), np.ones((1, 6, 2), np.float32), 1)


@given(arrays(np.int8, (1, 2, 4, 5), elements={"min_value": 1, "max_value": 3}))
def test_of_equal_entries_one_gets_the_gradient(composed_pooling, small):
    map_BDYX = small.astype(np.float32)
    result = composed_pooling.result(map_BDYX)
    gradient = result.gradients["input0"]
    np.testing.assert_array_equal(result.value, tokens(pooled(map_BDYX, 1)))
    assert gradient.sum() == result.value.size
    assert (gradient == np.round(gradient)).all()
    assert (gradient >= 0).all()
