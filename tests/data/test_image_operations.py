"""The operations of augmentation: pixels and arguments equal timm's.

tests/goldens/augment.npz was made once by timm 1.0.31 under Pillow 12.3.0 on an image of 32x26 pixels drawn from sines,
noise and four rectangles, with timm's random source replaced by fixed numbers. Its `meta` is JSON: `arguments` are rows
of operation, magnitude, uniform number, translate_pct, argument; `operations` says what made the images op0, op1, ...;
the rest belongs to test_auto_augment.
"""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from src.data.image_operations import (
    OPERATIONS,
    Mix,
    Step,
    TranslationRange,
    apply_operation,
    apply_plan,
    argument_of,
)
from tests.data.images import picture
from tests.oracles import PROJECT, read_arrays, read_json, requires_oracles

with np.load(PROJECT / "tests/goldens/augment.npz") as archive:
    GOLDEN = {key: archive[key] for key in archive.files}
META = json.loads(str(GOLDEN["meta"]))
FILL = tuple(META["fill"])
RANGE = TranslationRange(20)
GEOMETRIC = {name for name, row in OPERATIONS.items() if row.geometric}
# What does nothing at magnitude 0; the other forms do something there.
UNCHANGED_AT_ZERO = [*sorted(GEOMETRIC), "SolarizeAdd", "SolarizeIncreasing"]
UNCHANGED_AT_ZERO += [f"{name}Increasing" for name in ("Color", "Contrast", "Brightness", "Sharpness")]


def applied(image: Image.Image, operation: str, argument: float | None, resampling: str | None = None) -> np.ndarray:
    return np.asarray(apply_operation(image, operation, argument, resampling, FILL))


# ---------------------------------------------------------------------------------------------------------------------
# timm


@pytest.mark.parametrize("index", range(len(META["operations"])))
def test_pixels_of_the_goldens(index):
    ours = applied(Image.fromarray(GOLDEN["image"]), *META["operations"][index])
    assert np.array_equal(ours, GOLDEN[f"op{index}"]), META["operations"][index]


def test_goldens_reach_every_function():
    reached = {OPERATIONS[name].apply for name, *_ in META["operations"]}
    assert reached == {row.apply for row in OPERATIONS.values()}


def test_arguments_of_the_goldens():
    names = {name for name, *_ in META["arguments"]}
    assert names == {name for name, row in OPERATIONS.items() if row.argument} - {"GaussianBlurRand"}
    for name, magnitude, chance, share, wanted in META["arguments"]:
        assert argument_of(name, magnitude, chance, TranslationRange(100, share)) == wanted, (name, magnitude, chance)


def test_random_radius():
    # Uniform from 0.1 to twice the magnitude's share of 10.
    assert argument_of("GaussianBlurRand", 10, 0.0, RANGE) == 0.1
    assert argument_of("GaussianBlurRand", 10, 0.5, RANGE) == pytest.approx(1.05)
    assert argument_of("GaussianBlurRand", 5, 0.5, RANGE) == pytest.approx(0.55)


@requires_oracles
def test_pixels_of_the_oracle():
    table, stored = read_json("aug/ra_ops.json"), read_arrays("aug/ra_ops_golden.npz")
    image = Image.fromarray(np.load(PROJECT.parent / "shared/oracles/aug/image.npy"))
    assert len(table["golden"]) == len(stored) == 105
    for row in table["golden"]:
        argument = row["args"][0] if row["args"] else None
        if row["op"].startswith(("Posterize", "Solarize")):
            argument = int(argument)
        ours = applied(image, row["op"], argument, row["interpolation"])
        assert np.array_equal(ours, stored[row["key"]]), row["key"]


@requires_oracles
def test_arguments_of_the_oracle():
    table = read_json("aug/ra_ops.json")["level_args"]
    assert len(table) == 15
    for name, rows in table.items():
        for row in rows:
            for key, chance in (("args_pos", 0.0), ("args_neg", 0.99)):
                ours = argument_of(name, row["m"], chance, RANGE)
                assert ours == (row[key] and row[key][0]), (name, row["m"])


# ---------------------------------------------------------------------------------------------------------------------
# Properties


@pytest.mark.parametrize("name", OPERATIONS)
@given(magnitude=st.floats(0, 30), chance=st.floats(0, 1, exclude_max=True), size=st.tuples(*[st.integers(1, 40)] * 2))
def test_any_magnitude_keeps_size_and_mode_and_the_given_image(name, magnitude, chance, size):
    image = picture(3, *size)
    before = image.tobytes()
    argument = argument_of(name, magnitude, chance, RANGE)
    result = apply_operation(image, name, argument, "bilinear", FILL)
    assert (result.mode, result.size) == ("RGB", size)
    assert image.tobytes() == before


@pytest.mark.parametrize("name", UNCHANGED_AT_ZERO)
@pytest.mark.parametrize("chance", [0.0, 0.99])
def test_no_magnitude_no_change(name, chance):
    image = picture(4, 21, 17)
    argument = argument_of(name, 0, chance, RANGE)
    assert np.array_equal(applied(image, name, argument, "bicubic"), np.asarray(image))
    stronger = applied(image, name, argument_of(name, 9, chance, RANGE), "bicubic")
    assert not np.array_equal(stronger, np.asarray(image))


@pytest.mark.parametrize("name", sorted(GEOMETRIC))
def test_the_background_has_the_fill_colour(name):
    image = Image.new("RGB", (40, 40), (255, 255, 255))
    result = applied(image, name, argument_of(name, 4, 0.0, RANGE), "bilinear")
    outside = (result == FILL).all(-1)
    assert outside.any()
    assert not outside.all()


@pytest.mark.parametrize("name", sorted(GEOMETRIC))
def test_signs_and_resampling_matter(name):
    image = picture(5, 40, 40)
    image.putpixel((20, 20), (255, 0, 0))
    results = [applied(image, name, argument_of(name, 4.1, chance, RANGE), "bilinear") for chance in (0.0, 0.99)]
    results.append(applied(image, name, argument_of(name, 4.1, 0.0, RANGE), "bicubic"))
    assert len({result.tobytes() for result in results}) == 3


def test_translations_of_whole_pixels():
    pixel_YXC = np.asarray(picture(6, 20, 10))
    right = applied(Image.fromarray(pixel_YXC), "TranslateX", -3, "bilinear")
    assert np.array_equal(right[:, 3:], pixel_YXC[:, :-3])
    up = applied(Image.fromarray(pixel_YXC), "TranslateYRel", 0.4, "bilinear")
    assert np.array_equal(up[:-4], pixel_YXC[4:])


def test_no_bits_are_black():
    # Pillow 13 refuses 0 bits, which rand-m9-mstd0.5-inc1 reaches wherever the magnitude is clipped at 10.
    assert argument_of("PosterizeIncreasing", 10, 0.0, RANGE) == 0
    assert applied(picture(7), "PosterizeIncreasing", 0).max() == 0
    assert np.array_equal(applied(picture(7), "PosterizeOriginal", 8), np.asarray(picture(7)))


# ---------------------------------------------------------------------------------------------------------------------
# Plans


def test_steps_follow_each_other():
    image = picture(8, 16, 16)
    plan = (Step("Rotate", 20.0, "bicubic"), Step("Invert"), Step("Solarize", 90))
    wanted = image
    for step in plan:
        wanted = apply_operation(wanted, step.operation, step.argument, step.resampling, FILL)
    ours = np.asarray(apply_plan(image, plan, FILL))
    assert np.array_equal(ours, np.asarray(wanted))
    assert not np.array_equal(ours, np.asarray(apply_plan(image, plan[::-1], FILL)))
    assert apply_plan(image, (), FILL).tobytes() == image.tobytes()


@pytest.mark.parametrize("blended", [False, True])
def test_a_mix_of_constant_images(blended):
    # 100 is inverted to 155: 0.5 * 100 + 0.5 * (0.2 * 155 + 0.8 * 100) = 105.5, less one rounding down.
    image = Image.new("RGB", (4, 4), (100, 100, 100))
    mix = Mix(chains=((Step("Invert"),), ()), weights=(0.2, 0.8), share=0.5, blended=blended)
    result = np.asarray(apply_plan(image, (mix,), FILL))
    assert result.min() == result.max()
    assert result[0, 0, 0] in (105, 106)


@pytest.mark.parametrize("blended", [False, True])
def test_the_ends_of_a_mix(blended):
    image = picture(9, 8, 8)
    chains = ((Step("Solarize", 40),), (Step("Invert"),))
    nothing = apply_plan(image, (Mix(chains, (0.4, 0.6), 0.0, blended),), FILL)
    assert nothing.tobytes() == image.tobytes()
    # With tiny alphas one chain takes everything, and blending it leaves nothing to divide by.
    last = apply_plan(image, (Mix(chains, (0.0, 1.0), 1.0, blended),), FILL)
    assert last.tobytes() == apply_plan(image, chains[1], FILL).tobytes()
