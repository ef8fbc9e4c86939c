"""The operations of automatic augmentation on PIL images, how strong each is at a magnitude, and plans of them.

Names, ranges and pixels are those of timm 1.0.31 (`timm.data.auto_augment`), which follows AutoAugment
(https://arxiv.org/abs/1805.09501), RandAugment (https://arxiv.org/abs/1909.13719) and DeiT III
(https://arxiv.org/abs/2204.07118). Nothing here is random: whoever draws hands in what was drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

# What PIL's affine transforms can do; the other filters of a resize cannot.
AFFINE_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# The magnitude at which an operation has its full strength.
FULL_MAGNITUDE = 10.0
_ALL_VALUES = Image.frombytes("L", (256, 1), bytes(range(256)))
Color = tuple[int, int, int]


@dataclass(frozen=True)
class TranslationRange:
    """How far translations go at full magnitude.

    Attributes:
        pixels: for TranslateX and TranslateY.
        share: of the image's side, for TranslateXRel and TranslateYRel.
    """

    pixels: int
    share: float = 0.45


@dataclass(frozen=True)
class Operation:
    """A row of `OPERATIONS`.

    Attributes:
        apply: (image, argument) to image; of a geometric operation (image, argument, resampling, fill) to image.
        argument: (magnitude, chance, TranslationRange) to the argument of `apply`; None where there is none. The
            chance is uniform in [0, 1): a sign is negative above 0.5, a random radius is linear in it.
        geometric: whether pixels move, so that resampling and the colour behind the image matter.
    """

    apply: Callable
    argument: Callable[[float, float, TranslationRange], float] | None = None
    geometric: bool = False


def argument_of(operation: str, magnitude: float, chance: float, translation: TranslationRange) -> float | None:
    """The argument of an operation at a magnitude of at least 0.

    Args:
        operation: a key of `OPERATIONS`.
        magnitude: 10 is full strength; larger ones go beyond.
        chance: a uniform random number in [0, 1), see `Operation`.
        translation: the range of translations.

    Returns:
        Degrees, factor, bits, threshold, pixels, share or radius; None for an operation that takes no argument.
    """
    argument = OPERATIONS[operation].argument
    return None if argument is None else argument(magnitude, chance, translation)


def apply_operation(
    image: Image.Image, operation: str, argument: float | None, resampling: str | None, fill: Color
) -> Image.Image:
    """An RGB image of the same size; the given one stays as it is.

    Args:
        image: of mode RGB.
        operation: a key of `OPERATIONS`.
        argument: what `argument_of` returns.
        resampling: a key of `AFFINE_RESAMPLING`; only geometric operations look at it.
        fill: colour in [0, 255] of what was outside of the image; only geometric operations look at it.
    """
    row = OPERATIONS[operation]
    if row.geometric:
        return row.apply(image, argument, AFFINE_RESAMPLING[resampling], fill)
    return row.apply(image, argument)


# ---------------------------------------------------------------------------------------------------------------------
# Colours


def _auto_contrast(image: Image.Image, _: None) -> Image.Image:
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, _: None) -> Image.Image:
    return ImageOps.equalize(image)


def _invert(image: Image.Image, _: None) -> Image.Image:
    # ImageOps.invert goes through a table and takes fifteen times as long.
    return ImageChops.invert(image)


def _posterize(image: Image.Image, bits: int) -> Image.Image:
    if bits >= 8:
        return image
    # Without any bit the image is black; Pillow 13 refuses what earlier versions and timm do.
    return ImageOps.posterize(image, bits) if bits > 0 else Image.new("RGB", image.size)


def _solarize(image: Image.Image, threshold: int) -> Image.Image:
    return ImageOps.solarize(image, threshold)


def _solarize_add(image: Image.Image, addend: int) -> Image.Image:
    table = [min(255, value + addend) if value < 128 else value for value in range(256)]
    return image.point(table * 3)


def _color(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(factor)


def _contrast(image: Image.Image, factor: float) -> Image.Image:
    # Blending with one grey is a function of the value: ImageEnhance.Contrast on 256 pixels gives its table.
    total = sum(value * count for value, count in enumerate(image.convert("L").histogram()))
    grey = int(total / (image.width * image.height) + 0.5)
    table = Image.blend(Image.new("L", _ALL_VALUES.size, grey), _ALL_VALUES, factor)
    return image.point(table.tobytes() * 3)


def _brightness(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def _sharpness(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Sharpness(image).enhance(factor)


def _desaturate(image: Image.Image, share: float) -> Image.Image:
    return _color(image, min(1.0, max(0.0, 1.0 - share)))


def _gaussian_blur(image: Image.Image, radius: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


# ---------------------------------------------------------------------------------------------------------------------
# Geometry: the matrices lead from a pixel of the result to its place in the source.


def _affine(image: Image.Image, matrix: tuple[float, ...], resampling: Image.Resampling, fill: Color) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resampling, fillcolor=fill)


def _rotate(image: Image.Image, degrees: float, resampling: Image.Resampling, fill: Color) -> Image.Image:
    return image.rotate(degrees, resampling, fillcolor=fill)


def _shear_x(image: Image.Image, factor: float, resampling: Image.Resampling, fill: Color) -> Image.Image:
    return _affine(image, (1, factor, 0, 0, 1, 0), resampling, fill)


def _shear_y(image: Image.Image, factor: float, resampling: Image.Resampling, fill: Color) -> Image.Image:
    return _affine(image, (1, 0, 0, factor, 1, 0), resampling, fill)


def _translate_x(image: Image.Image, pixels: float, resampling: Image.Resampling, fill: Color) -> Image.Image:
    return _affine(image, (1, 0, pixels, 0, 1, 0), resampling, fill)


def _translate_y(image: Image.Image, pixels: float, resampling: Image.Resampling, fill: Color) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, pixels), resampling, fill)


def _translate_x_share(image: Image.Image, share: float, resampling: Image.Resampling, fill: Color) -> Image.Image:
    return _translate_x(image, share * image.width, resampling, fill)


def _translate_y_share(image: Image.Image, share: float, resampling: Image.Resampling, fill: Color) -> Image.Image:
    return _translate_y(image, share * image.height, resampling, fill)


# ---------------------------------------------------------------------------------------------------------------------
# Arguments. "Increasing": the image changes more at a larger magnitude, the other forms pass the unchanged image
# somewhere inside their range, or approach it.


def _signed(value: float, chance: float) -> float:
    return -value if chance > 0.5 else value


def _even(limit: float) -> Callable[[float, float, TranslationRange], float]:
    """From 0 to the limit, to either side."""
    return lambda magnitude, chance, _: _signed(magnitude / FULL_MAGNITUDE * limit, chance)


def _between(low: float, high: float) -> Callable[[float, float, TranslationRange], float]:
    """From low to high and never beyond."""
    return lambda magnitude, *_: max(low, min(high, low + (high - low) * (magnitude / FULL_MAGNITUDE)))


def _factor(magnitude: float, *_) -> float:
    return magnitude / FULL_MAGNITUDE * 1.8 + 0.1


def _factor_increasing(magnitude: float, chance: float, _: TranslationRange) -> float:
    return max(0.1, 1.0 + _signed(magnitude / FULL_MAGNITUDE * 0.9, chance))


def _bits(magnitude: float, *_) -> int:
    return int(magnitude / FULL_MAGNITUDE * 4)


def _bits_increasing(magnitude: float, *_) -> int:
    return 4 - _bits(magnitude)


def _bits_original(magnitude: float, *_) -> int:
    return 4 + _bits(magnitude)


def _threshold(magnitude: float, *_) -> int:
    return min(256, int(magnitude / FULL_MAGNITUDE * 256))


def _threshold_increasing(magnitude: float, *_) -> int:
    return 256 - _threshold(magnitude)


def _addend(magnitude: float, *_) -> int:
    return min(128, int(magnitude / FULL_MAGNITUDE * 110))


def _pixels(magnitude: float, chance: float, translation: TranslationRange) -> float:
    return _signed(magnitude / FULL_MAGNITUDE * translation.pixels, chance)


def _share(magnitude: float, chance: float, translation: TranslationRange) -> float:
    return _signed(magnitude / FULL_MAGNITUDE * translation.share, chance)


def _random_radius(magnitude: float, chance: float, _: TranslationRange) -> float:
    largest = 2.0 * max(0.0, min(1.0, magnitude / FULL_MAGNITUDE))
    return 0.1 + (largest - 0.1) * chance


OPERATIONS: dict[str, Operation] = {
    "AutoContrast": Operation(_auto_contrast),
    "Equalize": Operation(_equalize),
    "Invert": Operation(_invert),
    "Rotate": Operation(_rotate, _even(30.0), geometric=True),
    "Posterize": Operation(_posterize, _bits),
    "PosterizeIncreasing": Operation(_posterize, _bits_increasing),
    "PosterizeOriginal": Operation(_posterize, _bits_original),
    "Solarize": Operation(_solarize, _threshold),
    "SolarizeIncreasing": Operation(_solarize, _threshold_increasing),
    "SolarizeAdd": Operation(_solarize_add, _addend),
    "Color": Operation(_color, _factor),
    "ColorIncreasing": Operation(_color, _factor_increasing),
    "Contrast": Operation(_contrast, _factor),
    "ContrastIncreasing": Operation(_contrast, _factor_increasing),
    "Brightness": Operation(_brightness, _factor),
    "BrightnessIncreasing": Operation(_brightness, _factor_increasing),
    "Sharpness": Operation(_sharpness, _factor),
    "SharpnessIncreasing": Operation(_sharpness, _factor_increasing),
    "ShearX": Operation(_shear_x, _even(0.3), geometric=True),
    "ShearY": Operation(_shear_y, _even(0.3), geometric=True),
    "TranslateX": Operation(_translate_x, _pixels, geometric=True),
    "TranslateY": Operation(_translate_y, _pixels, geometric=True),
    "TranslateXRel": Operation(_translate_x_share, _share, geometric=True),
    "TranslateYRel": Operation(_translate_y_share, _share, geometric=True),
    "Desaturate": Operation(_desaturate, _between(0.5, 1.0)),
    "GaussianBlur": Operation(_gaussian_blur, _between(0.1, 2.0)),
    "GaussianBlurRand": Operation(_gaussian_blur, _random_radius),
}


# ---------------------------------------------------------------------------------------------------------------------
# Plans


@dataclass(frozen=True)
class Step:
    """One operation.

    Attributes:
        operation: a key of `OPERATIONS`.
        argument: degrees, factor, bits and so on; None for an operation without one.
        resampling: a key of `AFFINE_RESAMPLING`; None where no pixel moves.
    """

    operation: str
    argument: float | None = None
    resampling: str | None = None


@dataclass(frozen=True)
class Mix:
    """AugMix: chains of operations on the same image, mixed.

    Attributes:
        chains: the steps of each chain.
        weights: of the chains, float32 values that sum to 1.
        share: of the mixed chains in the result, a float32 value in [0, 1].
        blended: blend chain by chain, rounding after each, instead of summing in float32.
    """

    chains: tuple[tuple[Step, ...], ...]
    weights: tuple[float, ...]
    share: float
    blended: bool


Plan = tuple[Step | Mix, ...]


def apply_plan(image: Image.Image, plan: Plan, fill: Color) -> Image.Image:
    """Carry out a plan on an RGB image, with the colour that appears behind it; the size stays."""
    for part in plan:
        if isinstance(part, Mix):
            image = (_blend_chains if part.blended else _sum_chains)(image, part, fill)
        else:
            image = apply_operation(image, part.operation, part.argument, part.resampling, fill)
    return image


def _sum_chains(image: Image.Image, mix: Mix, fill: Color) -> Image.Image:
    """Algorithm 1 of https://arxiv.org/abs/1912.02781."""
    mixed_YXC = np.zeros_like(image, np.float32)
    for weight, chain in zip(mix.weights, mix.chains, strict=True):
        mixed_YXC += np.float32(weight) * np.asarray(apply_plan(image, chain, fill), np.float32)
    # Rounding of the weights may lift white above 255.
    mixed = Image.fromarray(np.clip(mixed_YXC, 0, 255).astype(np.uint8))
    return Image.blend(image, mixed, mix.share)


def _blend_chains(image: Image.Image, mix: Mix, fill: Color) -> Image.Image:
    result = image
    for ratio, chain in zip(_blend_ratios(mix), mix.chains, strict=True):
        result = Image.blend(result, apply_plan(image, chain, fill), ratio)
    return result


def _blend_ratios(mix: Mix) -> list[float]:
    """Ratios of successive blends after which each chain has its weight times the share."""
    ratios, rest = [], 1.0
    for weight in reversed(mix.weights):
        # In float64 from float32 products, which is what timm computes.
        product = float(np.float32(weight) * np.float32(mix.share))
        ratio = product / rest if rest > 0 else 0.0
        rest *= 1.0 - ratio
        ratios.append(float(np.float32(ratio)))
    return ratios[::-1]
