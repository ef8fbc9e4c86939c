"""Colours of attention maps: against matplotlib's magma, and where they lie."""

import numpy as np
import pytest
from PIL import Image

from src.data.transforms import EvalTransform
from src.report.overlay import magma, overlay, picture_of

HALF = (0.5, 0.5, 0.5)


def transform(size: int) -> EvalTransform:
    return EvalTransform(size, 1.0, "bicubic", "shorter", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_colours_are_matplotlibs():
    # matplotlib 3.11.2, rows 10, 50, 100, 128, 150, 200 and 240 of its table's 256.
    rows = np.array([10, 50, 100, 128, 150, 200, 240])
    expected = ("050416", "390f6e", "892881", "b73779", "d9466b", "fd9869", "fde2a3")
    difference = magma(rows / 255).astype(int) - np.array([list(bytes.fromhex(colour)) for colour in expected])
    assert np.abs(difference).max() <= 3


def lightness(colour_NC: np.ndarray) -> np.ndarray:
    """CIE L*, in [0, 100]."""
    share = colour_NC / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(luminance > 216 / 24389, 116 * np.cbrt(luminance) - 16, luminance * 24389 / 27)


def test_colours_get_evenly_lighter():
    steps = np.diff(lightness(magma(np.linspace(0, 1, 11))))
    assert steps.min() > 0.6 * steps.mean()
    assert steps.max() < 1.4 * steps.mean()


@pytest.mark.parametrize(("size", "side"), [(32, 448), (224, 448), (384, 768), (500, 500)])
def test_the_lightest_place_is_that_of_the_largest_value(size, side):
    image_CYX = np.zeros((3, size, size), np.float32)
    map_YX = np.full((4, 4), 0.1)
    map_YX[1, 2] = 0.3
    picture = overlay(image_CYX, transform(size), map_YX)
    assert picture.size == (side, side)
    row, column = np.unravel_index(np.asarray(picture.convert("L")).argmax(), (side, side))
    assert (row * 4 // side, column * 4 // side) == (1, 2)


def test_a_map_without_differences_has_the_darkest_colour():
    picture = overlay(np.zeros((3, 32, 32), np.float32), transform(32), np.full((4, 4), 0.25))
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) == 1
    assert np.asarray(picture.convert("L")).max() < 60


def test_what_was_normalised_comes_back():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    one = transform(24)
    np.testing.assert_array_equal(np.asarray(picture_of(one(Image.fromarray(pixels)), one)), pixels)
