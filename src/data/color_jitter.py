"""Random brightness, contrast and saturation, grey and blur of RGB images, as timm 1.0.31 sets torchvision up.

The arithmetic is PIL's and torchvision's: colours and grey are equal to the bit, a blurred pixel to one level.

Shape letters: C channels, Y X rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}
# Of the blur: pixels to each side, and the range of its standard deviation in pixels.
BLUR_RADIUS = 11
BLUR_SIGMA = (0.1, 2.0)


@dataclass(frozen=True)
class JitterPlan:
    """What happens to one image.

    Attributes:
        steps: names of `ENHANCERS` and their factors, in the order of application; 1 leaves the image as it is.
        grayscale: whether the colours are dropped.
        blur_sigma: standard deviation of the blur in pixels, 0 for none.
    """

    steps: tuple[tuple[str, float], ...] = ()
    grayscale: bool = False
    blur_sigma: float = 0.0


@dataclass(frozen=True)
class ColorJitter:
    """Change an image's colours; every random choice comes from the generator that is passed in.

    Attributes:
        brightness: v, for a factor that is uniform in [max(0, 1 - v), 1 + v]; 0 for none.
        contrast: the same, away from the mean grey of the image.
        saturation: the same, away from the grey of the pixel.
        prob: share of the images whose brightness, contrast and saturation change.
        grayscale_prob: share of the images that become grey.
        blur_prob: share of the images that are blurred.
    """

    brightness: float
    contrast: float
    saturation: float
    prob: float = 1.0
    grayscale_prob: float = 0.0
    blur_prob: float = 0.0

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """RGB image to RGB image of the same size."""
        return self.apply(self.draw(random), image)

    def draw(self, random: np.random.Generator) -> JitterPlan:
        """Choose what happens to one image."""
        # Always the same draws: switching one choice off shifts no other.
        jitter, gray, blur = random.random(3)
        order = random.permutation(len(ENHANCERS))
        factors = {name: self._factor(name, pick) for name, pick in zip(ENHANCERS, random.random(3), strict=True)}
        sigma = random.uniform(*BLUR_SIGMA)
        steps = [(name, factors[name]) for name in np.array(list(ENHANCERS))[order].tolist() if getattr(self, name)]
        return JitterPlan(
            tuple(steps) if jitter < self.prob else (),
            bool(gray < self.grayscale_prob),
            sigma if blur < self.blur_prob else 0.0,
        )

    def apply(self, plan: JitterPlan, image: Image.Image) -> Image.Image:
        """Carry out a plan on an RGB image: colours, then grey, then blur."""
        for name, factor in plan.steps:
            image = ENHANCERS[name](image).enhance(factor)
        if plan.grayscale:
            image = image.convert("L").convert("RGB")
        return gaussian_blur(image, plan.blur_sigma) if plan.blur_sigma else image

    def _factor(self, name: str, pick: float) -> float:
        strength = getattr(self, name)
        low = max(0.0, 1.0 - strength)
        return float(low + pick * (1.0 + strength - low))


def gaussian_blur(image: Image.Image, sigma: float) -> Image.Image:
    """Blur with a Gaussian of 23 x 23 pixels; the image goes on mirrored beyond its border."""
    offset = np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, dtype=np.float32)
    weight = np.exp(-0.5 * (offset / np.float32(sigma)) ** 2)
    weight /= weight.sum()
    border = (BLUR_RADIUS, BLUR_RADIUS)
    padded_YXC = np.pad(np.asarray(image, np.float32), (border, border, (0, 0)), "reflect")
    rows_YXC = _weighted_sum(weight, padded_YXC, image.height)
    pixel_XYC = _weighted_sum(weight, rows_YXC.swapaxes(0, 1), image.width)
    return Image.fromarray(np.rint(pixel_XYC.swapaxes(0, 1)).astype(np.uint8))


def _weighted_sum(weight: np.ndarray, padded: np.ndarray, length: int) -> np.ndarray:
    """Sum over the taps along the first axis, which shrinks to ``length``."""
    total = np.zeros((length, *padded.shape[1:]), np.float32)
    # A narrow Gaussian has few taps that a pixel of 8 bits can show.
    for tap in np.flatnonzero(weight > 1e-9):
        total += weight[tap] * padded[tap : tap + length]
    return total
