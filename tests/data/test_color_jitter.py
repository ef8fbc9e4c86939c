"""Colour jitter: torchvision's pixels for given factors, timm's distributions of the factors."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import kstest

from src.data.color_jitter import ColorJitter, JitterPlan, gaussian_blur
from tests.data.images import picture

JITTER = ColorJitter(0.4, 0.4, 0.4)


def draws(jitter: ColorJitter, number: int) -> list[JitterPlan]:
    random = np.random.default_rng(0)
    return [jitter.draw(random) for _ in range(number)]


def pattern() -> Image.Image:
    """16 x 13 pixels of ramps, which jump where they leave the 8 bits."""
    y, x = np.mgrid[0:13, 0:16]
    return Image.fromarray(
        np.stack([(17 * x + 5 * y) % 256, (31 * y + 3 * x) % 256, (7 * x * y + 40) % 256], -1).astype(np.uint8)
    )


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


# ---------------------------------------------------------------------------------------------------------------------
# Pixels, against torchvision 0.29.2 on Pillow 13.0.0


@pytest.mark.parametrize(
    ("plan", "middle", "corner", "total"),
    [
        (
            JitterPlan((("brightness", 0.7), ("contrast", 1.3), ("saturation", 0.6))),
            [[36, 121, 42], [49, 127, 68], [63, 133, 96], [77, 139, 123]],
            [[30, 100, 74], [44, 107, 126], [49, 104, 32]],
            50450,
        ),
        (
            JitterPlan((("saturation", 1.4), ("brightness", 1.25), ("contrast", 0.65))),
            [[46, 212, 51], [56, 212, 95], [71, 212, 139], [86, 212, 183]],
            [[46, 186, 132], [53, 184, 212], [76, 191, 46]],
            83453,
        ),
        (JitterPlan((("contrast", 0.0),)), [[114] * 3] * 4, [[114] * 3] * 3, 71136),
        (
            JitterPlan((("saturation", 0.0),)),
            [[123] * 3, [134] * 3, [146] * 3, [158] * 3],
            [[111] * 3, [127] * 3, [114] * 3],
            71223,
        ),
        (
            JitterPlan(grayscale=True),
            [[123] * 3, [134] * 3, [146] * 3, [158] * 3],
            [[111] * 3, [127] * 3, [114] * 3],
            71223,
        ),
    ],
)
def test_colours_equal_torchvision(plan, middle, corner, total):
    result = pixels(JITTER.apply(plan, pattern()))
    assert result[6, :4].tolist() == middle
    assert result[12, -3:].tolist() == corner
    assert result.sum() == total


@pytest.mark.parametrize(
    ("sigma", "top", "middle", "corner", "total"),
    [
        (
            0.1,
            [[0, 0, 40], [17, 3, 40], [34, 6, 40], [51, 9, 40]],
            [[115, 201, 250], [132, 204, 36], [149, 207, 78]],
            [[25, 155, 108], [42, 158, 192], [59, 161, 20]],
            72144,
        ),
        (
            0.6,
            [[8, 12, 41], [19, 14, 42], [36, 17, 45], [53, 20, 47]],
            [[115, 200, 185], [132, 203, 101], [149, 206, 86]],
            [[24, 144, 92], [40, 147, 131], [51, 149, 100]],
            72533,
        ),
        (
            2.0,
            [[34, 53, 57], [38, 54, 59], [47, 55, 65], [61, 58, 73]],
            [[115, 147, 139], [132, 148, 136], [149, 150, 133]],
            [[92, 109, 123], [68, 110, 124], [60, 110, 125]],
            73725,
        ),
    ],
)
def test_blur_equals_torchvision(sigma, top, middle, corner, total):
    result = pixels(JITTER.apply(JitterPlan(blur_sigma=sigma), pattern()))
    # The order of a sum in float32 can turn one of some 20,000 pixels by one level; none of these.
    assert result[0, :4].tolist() == top
    assert result[6, 5:8].tolist() == middle
    assert result[12, -3:].tolist() == corner
    assert abs(result.sum() - total) <= 1


def test_the_order_of_the_steps_matters_and_grey_comes_after_colours():
    steps = (("brightness", 1.4), ("contrast", 0.6), ("saturation", 0.6))
    images = {
        order: pixels(JITTER.apply(JitterPlan(order), pattern())).tobytes() for order in itertools.permutations(steps)
    }
    assert len(set(images.values())) > 3
    gray = pixels(JITTER.apply(JitterPlan(steps, grayscale=True), pattern()))
    assert np.array_equal(gray, pixels(JITTER.apply(JitterPlan(steps), pattern()).convert("L").convert("RGB")))


@given(st.floats(0.1, 2.0), st.integers(1, 30), st.integers(1, 30))
def test_blur_keeps_a_plain_image_and_any_size(sigma, width, height):
    image = Image.new("RGB", (width, height), (0, 117, 255))
    assert np.array_equal(pixels(gaussian_blur(image, sigma)), pixels(image))


def test_blur_of_a_point_is_the_gaussian():
    image = Image.new("RGB", (41, 41))
    image.putpixel((20, 20), (255, 255, 255))
    blurred = pixels(gaussian_blur(image, 1.0))[..., 0]
    offset = np.arange(-20, 21)
    weight = np.exp(-(offset**2) / 2) / np.exp(-(offset**2) / 2).sum()
    assert abs(blurred - 255 * np.outer(weight, weight)).max() < 0.501


# ---------------------------------------------------------------------------------------------------------------------
# Draws


def test_factors_are_uniform_and_orders_equally_likely():
    jitter = ColorJitter(0.4, 0.2, 1.5)
    plans = draws(jitter, 3000)
    for name, low, high in (("brightness", 0.6, 1.4), ("contrast", 0.8, 1.2), ("saturation", 0.0, 2.5)):
        factors = [dict(plan.steps)[name] for plan in plans]
        assert kstest(factors, "uniform", (low, high - low)).pvalue > 1e-3
    orders = Counter(tuple(name for name, _ in plan.steps) for plan in plans)
    assert len(orders) == 6
    assert min(orders.values()) > 420
    assert not any(plan.grayscale or plan.blur_sigma for plan in plans)


def test_shares_of_jitter_grey_and_blur():
    plans = draws(ColorJitter(0.4, 0.4, 0.4, prob=0.8, grayscale_prob=0.2, blur_prob=0.5), 3000)
    jittered = np.array([bool(plan.steps) for plan in plans])
    gray = np.array([plan.grayscale for plan in plans])
    sigmas = np.array([plan.blur_sigma for plan in plans])
    assert abs(jittered.mean() - 0.8) < 0.03
    assert abs(gray.mean() - 0.2) < 0.03
    assert abs((sigmas > 0).mean() - 0.5) < 0.03
    # Three independent choices.
    assert abs(np.corrcoef([jittered, gray, sigmas > 0])[np.triu_indices(3, 1)]).max() < 0.06
    assert kstest(sigmas[sigmas > 0], "uniform", (0.1, 1.9)).pvalue > 1e-3


def test_a_strength_of_zero_is_no_step_and_shifts_no_other():
    for full, part in zip(draws(JITTER, 50), draws(ColorJitter(0.4, 0.0, 0.4), 50), strict=True):
        assert part.steps == tuple(step for step in full.steps if step[0] != "contrast")
    assert draws(ColorJitter(0.0, 0.0, 0.0), 5) == [JitterPlan()] * 5


def test_without_choices_the_image_is_kept():
    image = picture(1)
    assert np.array_equal(pixels(ColorJitter(0.0, 0.0, 0.0)(image, np.random.default_rng(0))), pixels(image))
    never = ColorJitter(0.4, 0.4, 0.4, prob=0.0)
    assert np.array_equal(pixels(never(image, np.random.default_rng(0))), pixels(image))


@given(st.integers(0, 10**6))
def test_jitter_is_a_function_of_its_generator(seed):
    jitter, image = ColorJitter(0.4, 0.4, 0.4, grayscale_prob=0.3, blur_prob=0.3), picture(2)
    first, again = (jitter(image, np.random.default_rng(seed)) for _ in range(2))
    assert (first.mode, first.size) == ("RGB", image.size)
    assert np.array_equal(pixels(first), pixels(again))
    assert np.array_equal(pixels(first), pixels(jitter.apply(jitter.draw(np.random.default_rng(seed)), image)))
