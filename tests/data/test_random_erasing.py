"""Random Erasing: timm's boxes for timm's draws, its distributions, and nothing touched outside of the boxes."""

import math
import random as python_random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, norm

from src.data.random_erasing import RandomErasing
from tests.oracles import read_json, requires_oracles


class TimmDraws:
    """A generator that answers out of Python's global stream of a seed, which timm draws from."""

    def __init__(self, seed: int):
        self.stream = python_random.Random(seed)
        self.random, self.uniform, self.integers = self.stream.random, self.stream.uniform, self.stream.randrange


def boxes_of(erasing: RandomErasing, shape: tuple[int, int], number: int) -> list[list[tuple[int, int, int, int]]]:
    random = np.random.default_rng(0)
    return [erasing.boxes(shape, random) for _ in range(number)]


# ---------------------------------------------------------------------------------------------------------------------
# Boxes


@requires_oracles
def test_boxes_equal_timm_of_the_outside_reference():
    for row in read_json("aug/random_erasing.json")["seeded"]:
        (box,) = RandomErasing(1.0).boxes((224, 224), TimmDraws(row["seed"]))
        top, bottom, left, right = row["box_y0y1x0x1"]
        assert box == (top, left, bottom - top, right - left)


# timm 1.0.31's RandomErasing(prob, max_count=count) after random.seed(seed), its randint and _get_pixels listened to.
@pytest.mark.parametrize(
    ("shape", "count", "prob", "boxes_of_seed"),
    [
        ((224, 224), 1, 1.0, [[(33, 65, 103, 125)], [(16, 30, 164, 87)], [(21, 5, 74, 215)], [(121, 80, 84, 114)]]),
        (
            (32, 20),
            3,
            1.0,
            [
                [(15, 12, 6, 2), (15, 5, 15, 7)],
                [(14, 7, 8, 8)],
                [(5, 11, 5, 7)],
                [(15, 18, 6, 2), (26, 15, 2, 5), (22, 7, 3, 6)],
                [(2, 1, 12, 13)],
                [(23, 16, 7, 4), (30, 7, 2, 3), (3, 11, 11, 4)],
            ],
        ),
        ((9, 64), 2, 0.5, [[], [(1, 30, 8, 8)], [], [(0, 30, 7, 19)], [(4, 18, 3, 9)], []]),
    ],
)
def test_boxes_equal_timm_for_its_draws(shape, count, prob, boxes_of_seed):
    erasing = RandomErasing(prob, count=count)
    assert [erasing.boxes(shape, TimmDraws(seed)) for seed in range(len(boxes_of_seed))] == boxes_of_seed


@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)), st.integers(1, 4), st.floats(0.05, 1.0), st.integers(0, 10**6)
)
def test_boxes_lie_inside_the_image_and_are_smaller(shape, count, aspect, seed):
    erasing = RandomErasing(1.0, count=count, aspect=aspect)
    boxes = erasing.boxes(shape, np.random.default_rng(seed))
    assert len(boxes) <= count
    for top, left, height, width in boxes:
        assert 0 <= top <= top + height <= shape[0]
        assert 0 <= left <= left + width <= shape[1]
        assert height < shape[0]
        assert width < shape[1]
    assert boxes == erasing.boxes(shape, np.random.default_rng(seed))


def test_areas_and_aspects_follow_their_formulas():
    # Aspects of 0.8 to 1.25 always fit, so that no retry bends the distributions; whole pixels of 2000 hardly do.
    boxes = [box for (box,) in boxes_of(RandomErasing(1.0, aspect=0.8), (2000, 2000), 2000)]
    areas = [height * width / 2000**2 for _, _, height, width in boxes]
    aspects = [math.log(height / width) for _, _, height, width in boxes]
    tops = [(top + 0.5) / (2001 - height) for top, _, height, _ in boxes]
    lefts = [(left + 0.5) / (2001 - width) for _, left, _, width in boxes]
    assert kstest(areas, "uniform", (0.02, 1 / 3 - 0.02)).pvalue > 1e-3
    assert kstest(aspects, "uniform", (math.log(0.8), 2 * math.log(1.25))).pvalue > 1e-3
    assert kstest(tops, "uniform").pvalue > 1e-3
    assert kstest(lefts, "uniform").pvalue > 1e-3


@requires_oracles
def test_statistics_equal_timm():
    stored = read_json("aug/random_erasing.json")["statistics"]
    boxes = [box for found in boxes_of(RandomErasing(0.25), (224, 224), 8000) for box in found]
    assert abs(len(boxes) / 8000 - stored["erased_share"]) < 0.03
    areas = [height * width / 224**2 for _, _, height, width in boxes]
    aspects = [height / width for _, _, height, width in boxes]
    # About 1000 boxes on timm's side and 2000 here: the standard error of a median is 0.005 of area, 0.06 of aspect.
    for values, name, error in ((areas, "area_quantiles", 0.02), (aspects, "aspect_h_over_w_quantiles", 0.25)):
        for share, quantile in stored[name].items():
            assert abs(np.quantile(values, float(share)) - quantile) < error


@pytest.mark.parametrize(("prob", "low", "high"), [(0.0, 0, 0), (0.25, 200, 300), (1.0, 1000, 1000)])
def test_share_of_erased_images(prob, low, high):
    assert low <= sum(map(bool, boxes_of(RandomErasing(prob), (64, 64), 1000))) <= high


def test_several_boxes_share_the_area_of_one():
    numbers = np.zeros(4, int)
    for boxes in boxes_of(RandomErasing(1.0, count=3, aspect=0.8), (300, 300), 600):
        numbers[len(boxes)] += 1
        for _, _, height, width in boxes:
            # Half a pixel of rounding on either side.
            assert 0.019 / len(boxes) < height * width / 90_000 < 0.337 / len(boxes)
    assert numbers[0] == 0
    assert numbers[1:].min() > 150


def test_an_image_that_no_box_fits_is_left_alone_after_ten_tries():
    random, replayed = np.random.default_rng(4), np.random.default_rng(4)
    assert RandomErasing(1.0, area=(2.0, 3.0), aspect=1.0).boxes((30, 30), random) == []
    # One number for the choice, two for each try.
    replayed.random(1 + 2 * 10)
    assert random.random() == replayed.random()


# As timm leaves them: batches of 7 and 8 with num_splits 0 to 3.
@pytest.mark.parametrize(
    ("batch_size", "num_splits", "untouched"),
    [(7, 0, 0), (7, 1, 0), (7, 2, 3), (7, 3, 2), (8, 0, 0), (8, 1, 0), (8, 2, 4), (8, 3, 2)],
)
def test_the_clean_split_is_left_alone(batch_size, num_splits, untouched):
    erasing = RandomErasing(1.0, num_splits=num_splits)
    erased = [erasing.erases(position, batch_size) for position in range(batch_size)]
    assert erased == [False] * untouched + [True] * (batch_size - untouched)


# ---------------------------------------------------------------------------------------------------------------------
# Fill


@given(st.sampled_from(["const", "rand", "pixel"]), st.integers(1, 3), st.integers(0, 10**6))
def test_only_the_boxes_change(mode, count, seed):
    random = np.random.default_rng(seed)
    erasing = RandomErasing(1.0, mode=mode, count=count)
    boxes = erasing.boxes((20, 31), random)
    image_CYX = np.full((3, 20, 31), 7.0, np.float32)
    erasing.fill(image_CYX, boxes, random)
    inside_YX = np.zeros((20, 31), bool)
    for top, left, height, width in boxes:
        inside_YX[top : top + height, left : left + width] = True
    # No normal number reaches 7.
    assert np.array_equal(image_CYX == 7.0, np.broadcast_to(~inside_YX, image_CYX.shape))


def test_fills():
    boxes = [(2, 3, 50, 60), (70, 5, 20, 80)]
    filled = {}
    for mode in ("const", "rand", "pixel"):
        image_CYX = np.full((3, 100, 90), 7.0, np.float32)
        RandomErasing(1.0, mode=mode).fill(image_CYX, boxes, np.random.default_rng(1))
        filled[mode] = [image_CYX[:, top : top + h, left : left + w] for top, left, h, w in boxes]
        assert image_CYX.dtype == np.float32
    assert not any(window.any() for window in filled["const"])
    colours = [window[:, 0, 0] for window in filled["rand"]]
    assert all(np.array_equal(w, np.broadcast_to(w[:, :1, :1], w.shape)) for w in filled["rand"])
    assert len({*np.concatenate(colours).tolist()}) == 6
    for window in filled["pixel"]:
        assert kstest(window.ravel(), norm.cdf).pvalue > 1e-3
        assert abs(np.corrcoef(window.reshape(3, -1))[np.triu_indices(3, 1)]).max() < 0.1


def test_a_colour_per_channel_is_normal():
    random = np.random.default_rng(2)
    image_CYX = np.zeros((3, 4, 4), np.float32)
    colours = []
    for _ in range(500):
        RandomErasing(1.0, mode="rand").fill(image_CYX, [(1, 1, 2, 2)], random)
        colours.append(image_CYX[:, 1, 1].copy())
    assert kstest(np.concatenate(colours), norm.cdf).pvalue > 1e-3


def test_later_boxes_cover_earlier_ones():
    boxes = [(0, 0, 3, 3), (1, 1, 3, 3)]
    both, last = np.zeros((1, 5, 5), np.float32), np.zeros((1, 3, 3), np.float32)
    random, replayed = np.random.default_rng(3), np.random.default_rng(3)
    RandomErasing(1.0, mode="pixel").fill(both, boxes, random)
    replayed.standard_normal((1, 3, 3), np.float32)
    last[...] = replayed.standard_normal((1, 3, 3), np.float32)
    assert np.array_equal(both[:, 1:4, 1:4], last)


def test_erasing_is_a_function_of_its_generator():
    images = []
    for seed in (5, 5, 6):
        random = np.random.default_rng(seed)
        image_CYX = np.zeros((3, 16, 16), np.float32)
        erasing = RandomErasing(1.0, mode="pixel", count=2)
        erasing.fill(image_CYX, erasing.boxes((16, 16), random), random)
        images.append(image_CYX)
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])
