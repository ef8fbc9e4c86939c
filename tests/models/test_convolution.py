"""Convolution and pooling in their forms against references in numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from mindspore import Tensor, nn
from numpy.lib.stride_tricks import sliding_window_view

from src.models.convolution import Conv2d, MapLayout, MaxPool2d
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
