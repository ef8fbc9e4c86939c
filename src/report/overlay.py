"""An attention map as colours over the image that it belongs to.

Shape letters: C image channels, Y X rows and columns, of an image or of a map.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from src.data.transforms import EvalTransform

# matplotlib's magma (CC0) at 16 even steps, which a line between each two meets within 3 of 255: perceptually uniform,
# from dark for little attention to bright for much, and the same without colours.
MAGMA = (
    *("#000004", "#0b0924", "#20114b", "#3b0f70", "#57157e", "#721f81", "#8c2981", "#a8327d"),
    *("#c43c75", "#de4968", "#f1605d", "#fa7f5e", "#fe9f6d", "#febf84", "#fddea0", "#fcfdbf"),
)
_SMALLEST_SIDE = 448
_SHARE_OF_COLOUR = 0.6


def overlay(image_CYX: np.ndarray, transform: EvalTransform, map_YX: np.ndarray) -> Image.Image:
    """The image as the network sees it, grey, under the colours of a map: black its smallest value, light its largest.

    The picture's sides are a multiple of the image's, 448 pixels at least.

    Args:
        image_CYX: normalised by ``transform``.
        transform: what made it.
        map_YX: values of any range, on a coarser grid.
    """
    side = transform.image_size * math.ceil(_SMALLEST_SIDE / transform.image_size)
    grey = picture_of(image_CYX, transform).convert("L").convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    low, high = float(map_YX.min()), float(map_YX.max())
    scaled_YX = (map_YX - low) / (high - low) if high > low else np.zeros_like(map_YX)
    smooth = Image.fromarray(scaled_YX.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR)
    return Image.blend(grey, Image.fromarray(magma(np.asarray(smooth))), _SHARE_OF_COLOUR)


def picture_of(image_CYX: np.ndarray, transform: EvalTransform) -> Image.Image:
    """The RGB image that `EvalTransform` normalised."""
    pixel_YXC = image_CYX.transpose(1, 2, 0) * np.float32(transform.std) + np.float32(transform.mean)
    return Image.fromarray(np.rint(pixel_YXC.clip(0, 1) * 255).astype(np.uint8))


def magma(value_YX: np.ndarray) -> np.ndarray:
    """Colours of values in [0, 1]: (Y, X, 3) uint8."""
    table_3 = np.array([[int(colour[i : i + 2], 16) for colour in MAGMA] for i in (1, 3, 5)])
    steps = np.linspace(0, 1, len(MAGMA))
    return np.stack([np.rint(np.interp(value_YX, steps, channel)) for channel in table_3], -1).astype(np.uint8)
