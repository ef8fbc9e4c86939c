"""Random Erasing (arXiv 1708.04896) of a normalised image, with the settings and the arithmetic of timm 1.0.31.

Shape letters: C channels, Y X rows and columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# top, left, height, width in pixels
Box = tuple[int, int, int, int]
TRIES = 10


@dataclass(frozen=True)
class RandomErasing:
    """Overwrite random boxes of an image; where and with what comes from the generators that are passed in.

    Attributes:
        prob: share of the images that are erased.
        mode: const fills with 0 (the mean, once normalised), rand with one N(0, 1) number per channel and box, pixel
            with one N(0, 1) number per channel and pixel.
        count: most boxes of an image; from 1 to this many are drawn, all numbers equally likely.
        area: bounds of the boxes' area over the image's, divided by the number of boxes.
        aspect: smallest height over width; the largest is its inverse.
        num_splits: parts of a batch when it holds several versions of the same images, as AugMix makes them; of 2 or
            more parts the first, the clean one, is left alone.
    """

    prob: float
    mode: str = "const"
    count: int = 1
    area: tuple[float, float] = (0.02, 1 / 3)
    aspect: float = 0.3
    num_splits: int = 0

    def erases(self, position: int, batch_size: int) -> bool:
        """Whether the image at a position of its batch may be erased at all."""
        return self.num_splits < 2 or position >= batch_size // self.num_splits

    def boxes(self, shape: tuple[int, int], random: np.random.Generator) -> list[Box]:
        """Draw what to erase of an image of (Y, X) pixels.

        Returns:
            Top, left, height, width per box: none for the images that are left alone, fewer than drawn where ten tries
            found no box that is smaller than the image in both directions.
        """
        if random.random() >= self.prob:
            return []
        count = 1 if self.count == 1 else int(random.integers(1, self.count + 1))
        found = (self._box(shape, count, random) for _ in range(count))
        return [box for box in found if box is not None]

    def fill(self, image_CYX: np.ndarray, boxes: list[Box], random: np.random.Generator) -> None:
        """Overwrite the boxes of a float32 image in place, in their order."""
        channels = len(image_CYX)
        for top, left, height, width in boxes:
            window_CYX = image_CYX[:, top : top + height, left : left + width]
            if self.mode == "const":
                window_CYX[...] = 0.0
            elif self.mode == "rand":
                window_CYX[...] = random.standard_normal((channels, 1, 1), np.float32)
            else:
                window_CYX[...] = random.standard_normal((channels, height, width), np.float32)

    def _box(self, shape: tuple[int, int], count: int, random: np.random.Generator) -> Box | None:
        rows, columns = shape
        log_aspect = (math.log(self.aspect), math.log(1 / self.aspect))
        for _ in range(TRIES):
            area = random.uniform(*self.area) * rows * columns / count
            aspect = math.exp(random.uniform(*log_aspect))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height < rows and width < columns:
                top = int(random.integers(0, rows - height + 1))
                left = int(random.integers(0, columns - width + 1))
                return top, left, height, width
        return None
