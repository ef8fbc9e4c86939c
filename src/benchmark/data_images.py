"""Generated images, in files that both sides read.

Shape letters: N images, Y X rows and columns, C channels.
"""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT, QUALITY = 500, 375, 90
_COARSE = (16, 12)
# With this much noise a file has about 95 kB, as ImageNet's photographs of this size have.
_NOISE = 17.5
_NUM_FOLDERS = 10
_ARRAYS = "images.npy"


def write_jpegs(folder: Path, count: int) -> None:
    """Write JPEG files of 500 x 375 pixels and some 95 kB, in ten class folders; the same ones in every run."""
    random = np.random.default_rng(0)
    # Windows of one field of noise: to draw every pixel anew takes longer than to encode it.
    noise_YXC = random.normal(0.0, _NOISE, (2 * HEIGHT, 2 * WIDTH, 3)).astype(np.float32)
    for name in _folder_names():
        (folder / name).mkdir()
    for path in jpeg_paths(count):
        coarse = Image.fromarray(random.integers(0, 256, (*_COARSE[::-1], 3), np.uint8))
        smooth_YXC = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
        top, left = random.integers(0, (HEIGHT, WIDTH)).tolist()
        image_YXC = smooth_YXC + noise_YXC[top : top + HEIGHT, left : left + WIDTH]
        image = Image.fromarray(np.clip(image_YXC, 0, 255).astype(np.uint8))
        image.save(folder / path, quality=QUALITY)


def jpeg_paths(count: int) -> list[str]:
    """Names of the files, class by class, which is the order that timm reads folders in."""
    names = _folder_names()
    return [f"{names[index * len(names) // count]}/{index:06d}.jpg" for index in range(count)]


def jpeg_labels(count: int) -> list[int]:
    """Class of each file."""
    return [index * _NUM_FOLDERS // count for index in range(count)]


def write_arrays(folder: Path, count: int, image_size: int) -> None:
    """Write noise as one uint8 array (N, Y, X, C)."""
    shape = (count, image_size, image_size, 3)
    np.save(folder / _ARRAYS, np.random.default_rng(0).integers(0, 256, shape, np.uint8))


class ArrayImages:
    """The images of `write_arrays` as a `src.data.image_source.Source`, held in memory by every process.

    Args:
        folder: where they were written.
        num_classes: of the labels, which go round.
    """

    def __init__(self, folder: Path, num_classes: int):
        self.root = folder
        self._image_NYXC = np.load(folder / _ARRAYS)
        self.class_names = tuple(map(str, range(num_classes)))
        self.labels = array("i", (index % num_classes for index in range(len(self._image_NYXC))))
        self.paths = tuple(f"{_ARRAYS}#{index}" for index in range(len(self._image_NYXC)))

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple:
        return ArrayImages, (self.root, len(self.class_names))

    def read(self, index: int) -> Image.Image:
        """One image in RGB."""
        return Image.fromarray(self._image_NYXC[index])

    def pixels(self, index: int) -> np.ndarray:
        """One image as (3, rows, columns) uint8."""
        return self._image_NYXC[index].transpose(2, 0, 1)


def _folder_names() -> list[str]:
    return [f"class_{index}" for index in range(_NUM_FOLDERS)]
