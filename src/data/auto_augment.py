"""Automatic augmentation: RandAugment, AutoAugment, 3-Augment, AugMix and TrivialAugment from timm's strings.

A policy draws a plan, in which nothing is random any more, and `apply_plan` carries it out. Every choice is distributed
as in timm 1.0.31; the random numbers come from the generator that is passed in, so the pictures are not timm's.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from src.data.image_operations import (
    AFFINE_RESAMPLING,
    FULL_MAGNITUDE,
    OPERATIONS,
    Color,
    Mix,
    Plan,
    Step,
    TranslationRange,
    apply_plan,
    argument_of,
)
from src.errors import ConfigError

# ---------------------------------------------------------------------------------------------------------------------
# Policies


@dataclass(frozen=True)
class Slot:
    """An operation that a policy may apply, with its probability and its magnitude before noise."""

    operation: str
    probability: float
    magnitude: float


@dataclass(frozen=True)
class StepDraw:
    """How slots become steps.

    Attributes:
        resampling: keys of `AFFINE_RESAMPLING`, one of which is chosen for each geometric operation.
        translation: the range of translations.
        magnitude_std: of the normal noise on magnitudes; infinity for magnitudes uniform from 0 to the slot's.
        largest_magnitude: magnitudes are clipped to [0, this].
    """

    resampling: tuple[str, ...]
    translation: TranslationRange
    magnitude_std: float = 0.0
    largest_magnitude: float = FULL_MAGNITUDE

    def steps(self, slots: Sequence[Slot], random: np.random.Generator) -> tuple[Step, ...]:
        """One step for each slot that is not skipped."""
        # Always the same number of draws for a slot: one choice shifts no other.
        uniform = random.random((len(slots), 4)).tolist()
        normal = random.standard_normal(len(slots)).tolist()
        steps = []
        for slot, (skip, part, chance, pick), noise in zip(slots, uniform, normal, strict=True):
            if skip >= slot.probability:
                continue
            uniformly = math.isinf(self.magnitude_std)
            magnitude = slot.magnitude * part if uniformly else slot.magnitude + self.magnitude_std * noise
            magnitude = min(max(magnitude, 0.0), self.largest_magnitude)
            argument = argument_of(slot.operation, magnitude, chance, self.translation)
            steps.append(_step(slot.operation, argument, self.resampling, pick))
        return tuple(steps)


def _step(operation: str, argument: float | None, resampling: tuple[str, ...], pick: float) -> Step:
    geometric = OPERATIONS[operation].geometric
    return Step(operation, argument, resampling[int(pick * len(resampling))] if geometric else None)


@dataclass(frozen=True)
class Policy(ABC):
    """A random transformation of RGB images.

    Attributes:
        fill: the colour that appears behind an image, in [0, 255].
    """

    fill: Color

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """An augmented image of the same size."""
        return apply_plan(image, self.plan(random), self.fill)

    @abstractmethod
    def plan(self, random: np.random.Generator) -> Plan:
        """Draw what to do with one image."""


@dataclass(frozen=True)
class RandAugment(Policy):
    """Operations drawn from a set (https://arxiv.org/abs/1909.13719).

    Attributes:
        draw: how slots become steps.
        slots: the set, all of one probability and magnitude.
        layers: operations per image, before skipping.
        weights: probabilities of the slots, drawn without replacement; None for uniform with replacement.
    """

    draw: StepDraw
    slots: tuple[Slot, ...]
    layers: int
    weights: tuple[float, ...] | None

    def plan(self, random: np.random.Generator) -> Plan:
        if self.weights is None:
            chosen = random.integers(len(self.slots), size=self.layers)
        else:
            chosen = random.choice(len(self.slots), self.layers, replace=False, p=self.weights)
        return self.draw.steps([self.slots[index] for index in chosen.tolist()], random)


@dataclass(frozen=True)
class AutoAugment(Policy):
    """One of some searched sequences of operations (https://arxiv.org/abs/1805.09501)."""

    draw: StepDraw
    sub_policies: tuple[tuple[Slot, ...], ...]

    def plan(self, random: np.random.Generator) -> Plan:
        return self.draw.steps(self.sub_policies[random.integers(len(self.sub_policies))], random)


@dataclass(frozen=True)
class AugMix(Policy):
    """Chains of operations, mixed with the image (https://arxiv.org/abs/1912.02781).

    Attributes:
        draw: how slots become steps.
        slots: the set that chains draw from, uniformly.
        width: the number of chains.
        depth: operations of a chain; 0 or -1 for 1, 2 or 3 at random.
        alpha: of the Dirichlet distribution of the weights and of the beta distribution of the share.
        blended: see `Mix`.
    """

    draw: StepDraw
    slots: tuple[Slot, ...]
    width: int
    depth: int
    alpha: float
    blended: bool

    def plan(self, random: np.random.Generator) -> Plan:
        weights = random.dirichlet([self.alpha] * self.width).astype(np.float32)
        share = np.float32(random.beta(self.alpha, self.alpha))
        chains = tuple(self._chain(random) for _ in range(self.width))
        return (Mix(chains, tuple(weights.tolist()), float(share), self.blended),)

    def _chain(self, random: np.random.Generator) -> tuple[Step, ...]:
        depth = self.depth if self.depth > 0 else random.integers(1, 4)
        chosen = random.integers(len(self.slots), size=depth)
        return self.draw.steps([self.slots[index] for index in chosen.tolist()], random)


@dataclass(frozen=True)
class WideRange:
    """The arguments that TrivialAugment chooses from: 31 even ones from start to stop.

    Attributes:
        start: at level 0.
        stop: at level 30.
        signed: negative half of the time.
        whole: the distance from start is cut to a whole number.
    """

    start: float
    stop: float
    signed: bool = False
    whole: bool = False

    def argument(self, level: int, chance: float) -> float:
        """The argument at a level from 0 to 30; a chance above 0.5 makes it negative."""
        distance = level * (self.stop - self.start) / 30
        argument = self.start + (int(distance) if self.whole else distance)
        return -argument if self.signed and chance > 0.5 else argument


@dataclass(frozen=True)
class TrivialAugment(Policy):
    """One operation of one strength, both uniform (https://arxiv.org/abs/2103.10158, the Wide search space)."""

    resampling: tuple[str, ...]

    def plan(self, random: np.random.Generator) -> Plan:
        which, level = random.integers((len(_TRIVIAL_WIDE), 31)).tolist()
        chance, pick = random.random(2).tolist()
        operation, wide = _TRIVIAL_WIDE[which]
        if operation is None:
            return ()
        return (_step(operation, None if wide is None else wide.argument(level, chance), self.resampling, pick),)


# ---------------------------------------------------------------------------------------------------------------------
# What the policies choose from


def _increasing(operation: str) -> str:
    return f"{operation}Increasing" if f"{operation}Increasing" in OPERATIONS else operation


_RAND = (
    *("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd"),
    *("Color", "Contrast", "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"),
)
_RAND_INCREASING = tuple(map(_increasing, _RAND))
# The sets of RandAugment's option t. With weights, operations are drawn without replacement.
_RAND_SETS = {
    "weights": """
        Rotate 3, ShearX 2, ShearY 2, TranslateXRel 1, TranslateYRel 1, ColorIncreasing .25, SharpnessIncreasing .25,
        AutoContrast .25, SolarizeIncreasing .05, SolarizeAdd .05, ContrastIncreasing .05, BrightnessIncreasing .05,
        Equalize .05, PosterizeIncreasing .05, Invert .05""",
    "3a": "SolarizeIncreasing, Desaturate, GaussianBlur",
    "3aw": """
        SolarizeIncreasing 6, Desaturate 6, GaussianBlur 6, Rotate 3, ShearX 2, ShearY 2, PosterizeIncreasing 1,
        AutoContrast 1, ColorIncreasing 1, SharpnessIncreasing 1, ContrastIncreasing 1, BrightnessIncreasing 1,
        Equalize 1, Invert 1""",
}
_AUGMIX = (
    *("AutoContrast", "ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing", "SharpnessIncreasing"),
    *("Equalize", "Rotate", "PosterizeIncreasing", "SolarizeIncreasing"),
    *("ShearX", "ShearY", "TranslateXRel", "TranslateYRel"),
)
# The paper's Wide space, the identity first; what is cut to whole numbers is so in the authors' trivialaugment.
_TRIVIAL_WIDE = (
    *((None, None), ("AutoContrast", None), ("Equalize", None)),
    ("Rotate", WideRange(0, 135, signed=True, whole=True)),
    ("Solarize", WideRange(256, 0, whole=True)),
    ("Posterize", WideRange(8, 2, whole=True)),
    *((operation, WideRange(0.01, 2.0)) for operation in ("Color", "Contrast", "Brightness", "Sharpness")),
    *((operation, WideRange(0, 0.99, signed=True)) for operation in ("ShearX", "ShearY")),
    *((operation, WideRange(0, 32, signed=True, whole=True)) for operation in ("TranslateX", "TranslateY")),
)
# Sub-policies between semicolons: operation, probability, magnitude. The first is the AutoAugment paper's for
# ImageNet, the second of the EfficientNet code for TPUs, the third of DeiT III.
_SEARCHED = {
    "original": """
        PosterizeOriginal .4 8, Rotate .6 9; Solarize .6 5, AutoContrast .6 5; Equalize .8 8, Equalize .6 3;
        PosterizeOriginal .6 7, PosterizeOriginal .6 6; Equalize .4 7, Solarize .2 4; Equalize .4 4, Rotate .8 8;
        Solarize .6 3, Equalize .6 7; PosterizeOriginal .8 5, Equalize 1 2; Rotate .2 3, Solarize .6 8;
        Equalize .6 8, PosterizeOriginal .4 6; Rotate .8 8, Color .4 0; Rotate .4 9, Equalize .6 2;
        Equalize 0 7, Equalize .8 8; Invert .6 4, Equalize 1 8; Color .6 4, Contrast 1 8; Rotate .8 8, Color 1 2;
        Color .8 8, Solarize .8 7; Sharpness .4 7, Invert .6 8; ShearX .6 5, Equalize 1 9; Color .4 0, Equalize .6 3;
        Equalize .4 7, Solarize .2 4; Solarize .6 5, AutoContrast .6 5; Invert .6 4, Equalize 1 8;
        Color .6 4, Contrast 1 8; Equalize .8 8, Equalize .6 3""",
    "v0": """
        Equalize .8 1, ShearY .8 4; Color .4 9, Equalize .6 3; Color .4 1, Rotate .6 8; Solarize .8 3, Equalize .4 7;
        Solarize .4 2, Solarize .6 2; Color .2 0, Equalize .8 8; Equalize .4 8, SolarizeAdd .8 3;
        ShearX .2 9, Rotate .6 8; Color .6 1, Equalize 1 2; Invert .4 9, Rotate .6 0; Equalize 1 9, ShearY .6 3;
        Color .4 7, Equalize .6 0; Posterize .4 6, AutoContrast .4 7; Solarize .6 8, Color .6 9;
        Solarize .2 4, Rotate .8 9; Rotate 1 7, TranslateYRel .8 9; ShearX 0 0, Solarize .8 4; ShearY .8 0, Color .6 4;
        Color 1 0, Rotate .6 2; Equalize .8 4, Equalize 0 8; Equalize 1 4, AutoContrast .6 2;
        ShearY .4 7, SolarizeAdd .6 7; Posterize .8 2, Solarize .6 10; Solarize .6 8, Equalize .6 1;
        Color .8 6, Rotate .4 5""",
    "3a": "Solarize 1 5; Desaturate 1 10; GaussianBlurRand 1 10",
}
# The research code's form of the first two, in which posterisation grows with the magnitude.
_SEARCHED["originalr"] = _SEARCHED["original"].replace("PosterizeOriginal", "PosterizeIncreasing")
_SEARCHED["v0r"] = _SEARCHED["v0"].replace("Posterize", "PosterizeIncreasing")


# ---------------------------------------------------------------------------------------------------------------------
# Strings


@dataclass(frozen=True)
class _Option:
    meaning: str
    low: float
    high: float = math.inf
    whole: bool = True


_MAGNITUDE = _Option("magnitude", 0)
_STD = _Option("standard deviation of magnitudes", 0, 100, whole=False)
_OPTIONS: dict[str, dict[str, _Option]] = {
    "rand": {
        "m": _MAGNITUDE,
        "n": _Option("operations per image", 1, 100),
        "p": _Option("probability of each", 0, 1, whole=False),
        "mstd": _Option("standard deviation of magnitudes, above 100 for uniform ones", 0, whole=False),
        "mmax": _Option("largest magnitude", 1),
        "inc": _Option("increasing forms", 0, 1),
        # Not a number, but a key of _RAND_SETS.
        "t": _Option("set of operations", 0),
    },
    "augmix": {
        "m": _MAGNITUDE,
        "w": _Option("chains", 1, 100),
        "d": _Option("operations per chain, 0 or -1 for 1 to 3", -1, 100),
        "a": _Option("alpha of the mixing distributions", 0.001, 1000, whole=False),
        "b": _Option("blend chain by chain", 0, 1),
        "mstd": _STD,
    },
    **{name: {"mstd": _STD} for name in _SEARCHED},
    "trivial": {},
}


def parse_policy(text: str, *, image_size: int, mean: tuple[float, float, float], interpolation: str) -> Policy:
    """The policy of a string in timm's notation.

    Args:
        text: a policy and options such as ``rand-m9-mstd0.5-inc1``, ``original-mstd0.5``, ``augmix-m5-w4-d2`` or
            ``trivial``. Defaults are timm's: m10-n2-p0.5-mstd0-mmax10-inc0 of rand, m3-w3-d-1-a1-b0 and uniform
            magnitudes of augmix. Magnitudes are clipped at mmax, 10 where that is no option.
        image_size: side of the network's input in pixels, for absolute translations.
        mean: of the channels, in [0, 1]; the colour behind an image.
        interpolation: bilinear, bicubic, or random for either of them at each operation.

    Raises:
        ConfigError: unknown policy or option, value out of range, interpolation that affine transforms do not have.
    """
    # A dash before a digit is a sign.
    name, *sections = re.split(r"-(?=[^\d.])", text)
    if name not in _OPTIONS:
        raise ConfigError("auto_augment", "no such policy", name, _OPTIONS)
    if interpolation not in (*AFFINE_RESAMPLING, "random"):
        known = [*AFFINE_RESAMPLING, "random"]
        raise ConfigError("auto_augment", "interpolation cannot rotate, shear and translate", interpolation, known)
    values = _read_options(name, sections)
    fill = tuple(min(255, round(255 * value)) for value in mean)
    resampling = tuple(AFFINE_RESAMPLING) if interpolation == "random" else (interpolation,)
    if name == "trivial":
        return TrivialAugment(fill, resampling)
    # AugMix moves images less, as in timm's factory of transforms.
    translation = TranslationRange(int(image_size * 0.45), 0.3 if name == "augmix" else 0.45)
    std = values.get("mstd", math.inf if name == "augmix" else 0.0)
    std = math.inf if std > 100 else std
    draw = StepDraw(resampling, translation, std, values.get("mmax", FULL_MAGNITUDE))
    if name == "rand":
        return _rand_augment(fill, draw, values)
    if name == "augmix":
        slots = tuple(Slot(operation, 1.0, values.get("m", 3)) for operation in _AUGMIX)
        mixing = values.get("w", 3), values.get("d", -1), values.get("a", 1.0), bool(values.get("b", 0))
        return AugMix(fill, draw, slots, *mixing)
    rows = [[entry.split() for entry in row.split(",")] for row in _SEARCHED[name].split(";")]
    return AutoAugment(fill, draw, tuple(tuple(Slot(o, float(p), float(m)) for o, p, m in row) for row in rows))


def _rand_augment(fill: Color, draw: StepDraw, values: dict) -> RandAugment:
    layers, weights = values.get("n", 2), None
    operations = _RAND_INCREASING if values.get("inc", 0) else _RAND
    if "t" in values:
        operations, *column = zip(*(entry.split() for entry in _RAND_SETS[values["t"]].split(",")), strict=True)
        weights = tuple(float(weight) for weight in column[0]) if column else None
    if weights and layers > len(weights):
        known = f"1 to {len(weights)}"
        raise ConfigError("auto_augment", "n is at most the number of weighted operations", layers, known)
    weights = weights and tuple(weight / sum(weights) for weight in weights)
    slots = tuple(Slot(operation, values.get("p", 0.5), values.get("m", FULL_MAGNITUDE)) for operation in operations)
    return RandAugment(fill, draw, slots, layers, weights)


def _read_options(name: str, sections: list[str]) -> dict:
    """Values by option; t is text, whole options are int."""
    options, values = _OPTIONS[name], {}
    for section in sections:
        key, number = re.fullmatch(r"([a-z]*)(.*)", section, re.DOTALL).groups()
        if name == "rand" and section.startswith("t"):
            key, number = "t", section[1:]
            if number not in _RAND_SETS:
                raise ConfigError("auto_augment", "no such set of operations", section, [f"t{s}" for s in _RAND_SETS])
        elif key not in options:
            known = ", ".join(f"{key} ({option.meaning})" for key, option in options.items()) or "none"
            raise ConfigError("auto_augment", f"{name} has no such option", section, known)
        else:
            number = _number(key, number, options[key])
        if key in values:
            raise ConfigError("auto_augment", "an option stands twice", section)
        values[key] = number
    return values


def _number(key: str, text: str, option: _Option) -> float:
    digits = r"-?\d{1,9}" if option.whole else r"\d{1,9}(\.\d{1,9})?"
    # Only after the match: int takes underscores and other scripts' digits.
    number = (int if option.whole else float)(text) if re.fullmatch(digits, text, re.ASCII) else math.nan
    if not option.low <= number <= option.high:
        known = f"{'whole numbers' if option.whole else 'numbers'} from {option.low}"
        known += "" if math.isinf(option.high) else f" to {option.high}"
        raise ConfigError("auto_augment", f"bad value of {key} ({option.meaning})", key + text, known)
    return number
