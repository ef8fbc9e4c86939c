"""Random images without files, to measure everything but decoding."""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np
from PIL import Image

NUM_IMAGES = {"train": 50_000, "val": 10_000}
_STREAM = {"train": 0, "val": 1}


class SyntheticImages:
    """Noise; an image is a function of (split, index) alone, its label the index modulo the classes.

    Args:
        split: train or val, which differ.
        num_classes: how many labels there are.
        num_images: how many images there are; empty for the split's usual number.
        width: in pixels.
        height: in pixels.
    """

    def __init__(
        self, split: str, num_classes: int, num_images: int | None = None, width: int = 256, height: int = 256
    ):
        num_images = NUM_IMAGES[split] if num_images is None else num_images
        # A name for messages: there is no such folder.
        self.root = Path("synthetic")
        self.paths = tuple(f"{split}#{index}" for index in range(num_images))
        self.labels = array("i", (index % num_classes for index in range(num_images)))
        self.class_names = tuple(map(str, range(num_classes)))
        self._arguments = (split, num_classes, num_images, width, height)

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple:
        return SyntheticImages, self._arguments

    def read(self, index: int) -> Image.Image:
        """One image in RGB."""
        split, _, num_images, width, height = self._arguments
        random = np.random.Generator(np.random.SFC64([_STREAM[split], range(num_images)[index]]))
        return Image.frombytes("RGB", (width, height), random.bytes(3 * width * height))
