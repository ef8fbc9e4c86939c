"""Automatic augmentation: timm's strings, timm's pictures for timm's draws, timm's distributions.

tests/goldens/augment.npz (see test_image_operations) holds in `parsed` the settings that timm reads from a string as
(operation, probability, magnitude, its standard deviation, mmax), in `policies` and `mixes` the calls of operations
that timm made after `random.seed` and `np.random.seed`; policy0, mix0 and so on are the images that it made.
"""

import collections
import math
import pickle
import random as python_random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from src.data.auto_augment import AugMix, AutoAugment, Policy, RandAugment, parse_policy
from src.data.image_operations import Mix, Step, TranslationRange, apply_plan, argument_of
from src.data.random_numbers import Stream, generator
from src.errors import ConfigError
from tests.data.images import picture
from tests.data.test_image_operations import FILL, GEOMETRIC, GOLDEN, META
from tests.oracles import PROJECT, read_arrays, read_json, requires_oracles

MEAN = (0.485, 0.456, 0.406)
STRINGS = [*META["parsed"], "trivial"]
# Whose argument depends on a random sign.
SIGNED = {"Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"}
SIGNED |= {f"{name}Increasing" for name in ("Color", "Contrast", "Brightness", "Sharpness")}


def policy(text: str, **changed) -> Policy:
    return parse_policy(text, **{**dict(image_size=224, mean=MEAN, interpolation="random"), **changed})


def random(position: int = 0) -> np.random.Generator:
    return generator(0, Stream.TRANSFORM, 0, position)


def plans(text: str, count: int, **changed) -> list:
    """Plans from one generator: independent draws without the cost of many generators."""
    drawn, numbers = policy(text, **changed), random(77)
    return [drawn.plan(numbers) for _ in range(count)]


def shares(values) -> dict:
    counts = collections.Counter(values)
    return {key: count / counts.total() for key, count in counts.items()}


# ---------------------------------------------------------------------------------------------------------------------
# timm


@pytest.mark.parametrize("text", META["parsed"])
def test_strings_mean_what_they_mean_to_timm(text):
    wanted, ours = META["parsed"][text], policy(text)
    settings = ours.draw.magnitude_std, ours.draw.largest_magnitude
    slots = ours.sub_policies if isinstance(ours, AutoAugment) else [ours.slots]
    rows = [[(slot.operation, slot.probability, slot.magnitude, *settings) for slot in row] for row in slots]
    theirs = wanted["sub_policies"] if isinstance(ours, AutoAugment) else [wanted["slots"]]
    # timm has None for the default of mmax.
    assert rows == [[(*values, mmax or 10) for *values, mmax in row] for row in theirs]
    if isinstance(ours, RandAugment):
        assert ours.layers == wanted["layers"]
        weights = ours.weights and dict(zip([slot.operation for slot in ours.slots], ours.weights, strict=True))
        assert weights == (wanted["weights"] and pytest.approx(wanted["weights"]))
    if isinstance(ours, AugMix):
        assert {key: getattr(ours, key) for key in ("width", "depth", "alpha", "blended")} == {
            key: wanted[key] for key in ("width", "depth", "alpha", "blended")
        }


@pytest.mark.parametrize("index", range(len(META["policies"])))
def test_pictures_of_timms_policies(index):
    plan = tuple(Step(*step) for step in META["policies"][index]["plan"])
    ours = np.asarray(apply_plan(Image.fromarray(GOLDEN["image"]), plan, FILL))
    assert np.array_equal(ours, GOLDEN[f"policy{index}"])


@pytest.mark.parametrize("index", range(len(META["mixes"])))
def test_pictures_of_timms_augmix(index):
    drawn = META["mixes"][index]
    chains = tuple(tuple(Step(*step) for step in chain) for chain in drawn["chains"])
    plan = (Mix(chains, tuple(drawn["weights"]), drawn["share"], drawn["blended"]),)
    ours = np.asarray(apply_plan(Image.fromarray(GOLDEN["image"]), plan, FILL))
    assert np.array_equal(ours, GOLDEN[f"mix{index}"])


@requires_oracles
def test_seeded_pictures_of_the_oracle():
    stored = read_arrays("aug/ra_policy_seeded.npz")
    image = Image.fromarray(np.load(PROJECT.parent / "shared/oracles/aug/image.npy"))
    assert len(stored) == 24
    for seed in range(24):
        plan = plan_of_timms_draws(seed)
        assert np.array_equal(apply_plan(image, plan, FILL), stored[f"seed{seed}"]), seed


def plan_of_timms_draws(seed: int) -> tuple[Step, ...]:
    """What timm's rand-m9-mstd0.5-inc1 draws after both seeds."""
    python_random.seed(seed)
    np.random.seed(seed)
    slots, steps = policy("rand-m9-mstd0.5-inc1").slots, []
    for index in np.random.choice(15, 2):
        if python_random.random() > 0.5:
            continue
        name, magnitude = slots[index].operation, min(max(python_random.gauss(9, 0.5), 0.0), 10.0)
        chance = python_random.random() if name in SIGNED else 0.0
        argument = argument_of(name, magnitude, chance, TranslationRange(100))
        steps.append(Step(name, argument, "bicubic" if name in GEOMETRIC else None))
    return tuple(steps)


@requires_oracles
def test_parsed_strings_of_the_oracle():
    for text, wanted in read_json("aug/ra_ops.json")["parse"].items():
        ours = policy(text)
        assert [slot.operation for slot in ours.slots] == wanted["ops"]
        assert {(slot.magnitude, slot.probability) for slot in ours.slots} == {(wanted["m"], wanted["prob"])}
        assert ours.layers == wanted["n"]
        assert (ours.draw.magnitude_std, ours.draw.largest_magnitude) == (wanted["mstd"], wanted["mmax"] or 10)


def test_settings_besides_the_string():
    ours = policy("rand-m9", image_size=299, mean=(0.5, 0.0, 1.0), interpolation="bilinear")
    assert ours.fill == (128, 0, 255)
    assert ours.draw.translation == TranslationRange(134, 0.45)
    assert ours.draw.resampling == ("bilinear",)
    assert policy("augmix").draw.translation.share == 0.3
    assert set(policy("v0").draw.resampling) == {"bilinear", "bicubic"}


def test_every_option():
    ours = policy("rand-inc1-p0.25-mmax20-mstd1.5-n3-m12")
    assert ours == policy("rand-m12-n3-mstd1.5-mmax20-p0.25-inc1")
    assert (ours.layers, ours.draw.magnitude_std, ours.draw.largest_magnitude) == (3, 1.5, 20)
    assert {(slot.probability, slot.magnitude) for slot in ours.slots} == {(0.25, 12)}
    assert math.isinf(policy("rand-mstd101").draw.magnitude_std)
    assert policy("rand-mstd100").draw.magnitude_std == 100
    mixed = policy("augmix-m3-w3-d-1-b1-mstd0")
    assert (mixed.width, mixed.depth, mixed.blended, mixed.draw.magnitude_std) == (3, -1, True, 0)
    assert math.isinf(policy("augmix").draw.magnitude_std)


# ---------------------------------------------------------------------------------------------------------------------
# Distributions: the tolerances are four standard deviations or more, and the generator is seeded


def test_frequencies_of_rand_augment():
    drawn = plans("rand-m9-mstd0.5-inc1", 12_000)
    layers = shares(map(len, drawn))
    assert layers == pytest.approx({0: 0.25, 1: 0.5, 2: 0.25}, abs=0.02)
    steps = [step for plan in drawn for step in plan]
    operations = shares(step.operation for step in steps)
    assert operations == pytest.approx(dict.fromkeys(operations, 1 / 15), abs=0.01)
    assert len(operations) == 15
    # With replacement: one pair in fifteen is of one operation.
    pairs = [plan for plan in drawn if len(plan) == 2]
    assert np.mean([first.operation == second.operation for first, second in pairs]) == pytest.approx(1 / 15, abs=0.02)
    assert shares(step.resampling for step in steps if step.operation in GEOMETRIC) == pytest.approx(
        {"bilinear": 0.5, "bicubic": 0.5}, abs=0.04
    )
    assert {step.resampling for step in steps if step.operation not in GEOMETRIC} == {None}


def test_magnitudes_of_rand_augment():
    degrees = np.array(
        [s.argument for p in plans("rand-m9-mstd0.5-n100-p1", 300) for s in p if s.operation == "Rotate"]
    )
    assert np.mean(degrees > 0) == pytest.approx(0.5, abs=0.05)
    magnitudes = np.abs(degrees) / 3
    # Two standard deviations above 9 lies the clip.
    assert magnitudes.max() == 10
    assert np.mean(magnitudes == 10) == pytest.approx(0.0228, abs=0.015)
    assert np.median(magnitudes) == pytest.approx(9, abs=0.06)
    assert np.quantile(magnitudes, 0.1587) == pytest.approx(8.5, abs=0.1)


def test_without_noise_magnitudes_are_fixed():
    steps = [s for p in plans("rand-m4-mstd0-n20-p1", 50) for s in p if s.operation == "Rotate"]
    assert {abs(step.argument) for step in steps} == {12.0}


def test_uniform_magnitudes():
    drawn = plans("rand-m8-mstd101-n100-p1", 200)
    magnitudes = [abs(s.argument) / 3 for p in drawn for s in p if s.operation == "Rotate"]
    assert max(magnitudes) < 8
    assert np.quantile(magnitudes, [0.25, 0.5, 0.75]) == pytest.approx([2, 4, 6], abs=0.5)


def test_weighted_operations_are_drawn_without_replacement():
    drawn = plans("rand-n3-p1-t3aw", 3000)
    assert all(len({step.operation for step in plan}) == 3 for plan in drawn)
    ours = policy("rand-t3aw")
    wanted = dict(zip([slot.operation for slot in ours.slots], ours.weights, strict=True))
    first = shares(plan[0].operation for plan in plans("rand-n1-p1-t3aw", 8000))
    assert first == pytest.approx(wanted, abs=0.02)


def test_frequencies_of_auto_augment():
    steps = collections.Counter(step.operation for plan in plans("original", 8000) for step in plan)
    wanted = collections.Counter()
    for sub_policy in policy("original").sub_policies:
        for slot in sub_policy:
            wanted[slot.operation] += slot.probability / 25
    assert {name: count / 8000 for name, count in steps.items()} == pytest.approx(dict(wanted), abs=0.03)


def test_frequencies_of_three_augment():
    drawn = plans("3a", 4000)
    assert {len(plan) for plan in drawn} == {1}
    wanted = dict.fromkeys(["Solarize", "Desaturate", "GaussianBlurRand"], 1 / 3)
    assert shares(plan[0].operation for plan in drawn) == pytest.approx(wanted, abs=0.04)
    assert {plan[0].argument for plan in drawn if plan[0].operation == "Solarize"} == {128}
    radii = [plan[0].argument for plan in drawn if plan[0].operation == "GaussianBlurRand"]
    assert 0.1 <= min(radii) < max(radii) < 2
    assert np.median(radii) == pytest.approx(1.05, abs=0.1)


def test_frequencies_of_augmix():
    mixes = [mix for (mix,) in plans("augmix-w4", 3000)]
    weights = np.array([mix.weights for mix in mixes])
    assert weights.shape == (3000, 4)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(weights.mean(0), 0.25, atol=0.02)
    # Dirichlet(1, 1, 1, 1) has a variance of 3 / 80 in each weight, beta(1, 1) is uniform.
    np.testing.assert_allclose(weights.var(0), 3 / 80, atol=0.006)
    quartiles = np.quantile([mix.share for mix in mixes], [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quartiles, [0.25, 0.5, 0.75], atol=0.05)
    depths = shares(len(chain) for mix in mixes for chain in mix.chains)
    assert depths == pytest.approx({1: 1 / 3, 2: 1 / 3, 3: 1 / 3}, abs=0.02)
    operations = shares(step.operation for mix in mixes for chain in mix.chains for step in chain)
    assert operations == pytest.approx(dict.fromkeys(operations, 1 / 13), abs=0.01)
    degrees = [abs(s.argument) for mix in mixes for chain in mix.chains for s in chain if s.operation == "Rotate"]
    assert np.quantile(degrees, [0.5, 1]) == pytest.approx([4.5, 9], abs=0.5)


def test_options_of_augmix():
    mixes = [mix for (mix,) in plans("augmix-w2-d4-a100-b1-mstd0-m5", 50)]
    assert {len(chain) for mix in mixes for chain in mix.chains} == {4}
    assert all(mix.blended for mix in mixes)
    assert max(abs(mix.share - 0.5) for mix in mixes) < 0.25
    degrees = {abs(s.argument) for mix in mixes for chain in mix.chains for s in chain if s.operation == "Rotate"}
    assert degrees == {15.0}


def test_frequencies_of_trivial_augment():
    drawn = plans("trivial", 28_000)
    operations = shares(plan[0].operation if plan else "Identity" for plan in drawn)
    assert operations == pytest.approx(dict.fromkeys(operations, 1 / 14), abs=0.01)
    assert len(operations) == 14
    arguments = collections.defaultdict(list)
    for (step,) in filter(None, drawn):
        arguments[step.operation].append(step.argument)
    for name, ends, count in [
        ("Rotate", (-135, 135), 61),
        ("ShearY", (-0.99, 0.99), 61),
        ("TranslateX", (-32, 32), 61),
        ("Color", (0.01, 2.0), 31),
        ("Sharpness", (0.01, 2.0), 31),
        ("Posterize", (2, 8), 7),
        ("Solarize", (0, 256), 31),
    ]:
        values = arguments[name]
        assert (min(values), max(values)) == pytest.approx(ends)
        assert len(set(values)) == count, name
    # Six steps of five levels each, and 8 bits of level 0 to 4, 2 bits of level 30 alone.
    assert shares(arguments["Posterize"]) == pytest.approx({2: 1 / 31, **dict.fromkeys(range(3, 9), 5 / 31)}, abs=0.04)
    assert shares(value > 0 for value in arguments["Rotate"] if value) == pytest.approx(
        {True: 0.5, False: 0.5}, abs=0.06
    )
    assert set(arguments["Equalize"]) == {None}


# ---------------------------------------------------------------------------------------------------------------------
# Policies as a whole


@pytest.mark.parametrize("text", STRINGS)
def test_a_picture_is_a_function_of_its_generator(text):
    ours, image = policy(text), picture(1, 24, 20)
    first = [ours(image, random(position)).tobytes() for position in range(12)]
    assert first == [ours(image, random(position)).tobytes() for position in range(12)]
    assert len(set(first)) > 3
    for position in range(12):
        result = ours(image, random(position))
        assert (result.mode, result.size) == ("RGB", (24, 20))


@pytest.mark.parametrize("text", STRINGS)
def test_global_random_numbers_are_neither_used_nor_moved(text):
    python_random.seed(1)
    np.random.seed(1)
    before = python_random.getstate(), np.random.get_state()[1].tolist()
    ours, image = policy(text), picture(2, 24, 20)
    first = ours(image, random()).tobytes()
    assert (python_random.getstate(), np.random.get_state()[1].tolist()) == before
    np.random.seed(2)
    python_random.seed(2)
    assert ours(image, random()).tobytes() == first


@pytest.mark.parametrize("text", STRINGS)
def test_policies_travel_to_worker_processes(text):
    ours = policy(text)
    assert pickle.loads(pickle.dumps(ours)) == ours


def test_a_policy_is_its_plan_applied():
    ours, image = policy("rand-m9-mstd0.5-inc1"), picture(3, 24, 20)
    for position in range(20):
        planned = apply_plan(image, ours.plan(random(position)), FILL)
        assert ours(image, random(position)).tobytes() == planned.tobytes()


def test_no_magnitude_and_no_probability():
    image = picture(4, 24, 20)
    for position in range(10):
        assert policy("rand-m9-p0")(image, random(position)).tobytes() == image.tobytes()
    # At magnitude 0 what remains is the operations without an argument, and 4 bits.
    steps = [step for plan in plans("rand-m0-inc1-p1", 200) for step in plan]
    changing = {s.operation for s in steps if apply_plan(image, (s,), FILL).tobytes() != image.tobytes()}
    assert changing == {"AutoContrast", "Equalize", "Invert", "PosterizeIncreasing"}


# ---------------------------------------------------------------------------------------------------------------------
# Errors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no such policy. Received: . Known: rand, augmix, original, v0, 3a, "),
        ("randaugment-m9", "no such policy. Received: randaugment. Known: rand, augmix, "),
        ("RAND-m9", "no such policy. Received: RAND. Known: "),
        ("rand-w0", "rand has no such option. Received: w0. Known: m (magnitude), n (operations per image), p ("),
        ("rand-m", "bad value of m (magnitude). Received: m. Known: whole numbers from 0"),
        ("rand-m9.5", "bad value of m (magnitude). Received: m9.5. Known: whole numbers from 0"),
        ("rand-m-9", "bad value of m (magnitude). Received: m-9. Known: whole numbers from 0"),
        ("rand-m٩", "bad value of m (magnitude). Received: m٩. "),
        ("rand-n-1", "bad value of n (operations per image). Received: n-1. Known: whole numbers from 1 to 100"),
        ("rand-p1.5", "bad value of p (probability of each). Received: p1.5. Known: numbers from 0 to 1"),
        ("rand-p-0.5", "bad value of p (probability of each). Received: p-0.5."),
        ("rand-mmax0", "bad value of mmax (largest magnitude). Received: mmax0. Known: whole numbers from 1"),
        ("rand-inc2", "bad value of inc (increasing forms). Received: inc2. Known: whole numbers from 0 to 1"),
        ("rand-inc", "bad value of inc (increasing forms). Received: inc."),
        ("rand-mstdinf", "rand has no such option. Received: mstdinf."),
        ("rand-m9-m5", "an option stands twice. Received: m5"),
        ("rand-tweight", "no such set of operations. Received: tweight. Known: tweights, t3a, t3aw"),
        ("rand-t", "no such set of operations. Received: t. Known: tweights, t3a, t3aw"),
        ("rand-tweights-n16", "n is at most the number of weighted operations. Received: 16. Known: 1 to 15"),
        ("rand--m9", "rand has no such option. Received: . Known: "),
        ("rand-m9-", "bad value of m (magnitude). Received: m9-."),
        ("original-m9", "original has no such option. Received: m9. Known: mstd (standard"),
        (
            "v0-mstd101",
            "bad value of mstd (standard deviation of magnitudes). Received: mstd101. Known: numbers from 0",
        ),
        ("augmix-w0", "bad value of w (chains). Received: w0. Known: whole numbers from 1 to 100"),
        ("augmix-d-2", "bad value of d (operations per chain, 0 or -1 for 1 to 3). Received: d-2."),
        ("augmix-a0", "bad value of a (alpha of the mixing distributions). Received: a0. Known: numbers from 0.001"),
        ("trivial-m9", "trivial has no such option. Received: m9. Known: none"),
    ],
)
def test_what_is_no_policy(text, message):
    with pytest.raises(ConfigError) as caught:
        policy(text)
    assert str(caught.value).startswith(f"auto_augment: {message}")


@pytest.mark.parametrize("text", ["rand-m9", "trivial"])
@pytest.mark.parametrize("interpolation", ["lanczos", "hamming", "nearest"])
def test_interpolations_of_resizing_alone(text, interpolation):
    with pytest.raises(ConfigError, match=rf"^auto_augment: .* Received: {interpolation}. Known: bilinear, bicubic, "):
        policy(text, interpolation=interpolation)


SECTIONS = st.sampled_from(["m", "n", "p", "w", "d", "a", "b", "t", "inc", "mstd", "mmax"])
NUMBERS = st.sampled_from(
    ["", "0", "1", "-1", "3", "0.5", "101", "1e9", "9" * 400, "nan", "inf", "3a", "weights", "\n"]
)


@given(
    st.sampled_from(["rand", "augmix", "v0", "3a", "trivial", "x"]), st.lists(st.tuples(SECTIONS, NUMBERS), max_size=3)
)
def test_any_string_is_a_policy_or_an_error(name, options):
    text = "-".join([name, *(key + number for key, number in options)])
    try:
        ours = policy(text)
    except ConfigError:
        # Anything else, as from int or from drawing, fails the test.
        return
    assert ours(picture(5), random()).size == (12, 10)
