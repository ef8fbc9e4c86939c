"""What every data set answers, and the one made of image files.

Nothing that a source needs imports MindSpore: it travels to readers, which are processes without it.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from src.data.transforms import read_image
from src.errors import DataError

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp", ".bmp")


class Source(Protocol):
    """Labelled images in a fixed order. Can be pickled, at the cost of its names and labels and not of its pixels.

    Attributes:
        root: folder or file that the images come from.
        paths: one name for each image, unique and the same in every run.
        labels: one index into ``class_names`` for each image.
        class_names: in the order of the model's outputs.
    """

    root: Path
    paths: Sequence[str]
    labels: Sequence[int]
    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def read(self, index: int) -> Image.Image:
        """One image in RGB.

        Raises:
            DataError: it cannot be decoded.
        """


class PackedTexts(Sequence):
    """Texts one behind the other in one piece of memory: a million paths take 40 MB, half of what a tuple takes."""

    def __init__(self, texts: Iterable[str]):
        # File names need not be valid UTF-8.
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        self._bytes = b"".join(encoded)
        self._ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        index = range(len(self))[index]
        start = self._ends[index - 1] if index else 0
        return self._bytes[start : self._ends[index]].decode("utf-8", "surrogateescape")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None

    def __repr__(self) -> str:
        return repr(tuple(self))


@runtime_checkable
class PixelSource(Source, Protocol):
    """A source that holds its images as they are, all of one size."""

    def pixels(self, index: int) -> np.ndarray:
        """One image as (3, rows, columns) uint8, not to be changed."""


@dataclass(frozen=True)
class ImageList:
    """Image files with their labels; a label is an index into ``class_names``.

    Attributes:
        root: folder that relative paths start from.
        paths: of the files, relative to ``root``, with ``/``; in a list absolute ones as well.
        labels: of the files.
        class_names: in the order of the labels.
        exif_orientation: turn the images as their cameras say.
    """

    root: Path
    paths: Sequence[str]
    labels: Sequence[int]
    class_names: tuple[str, ...]
    exif_orientation: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.paths, PackedTexts):
            object.__setattr__(self, "paths", PackedTexts(self.paths))
        object.__setattr__(self, "labels", array("i", self.labels))

    def __len__(self) -> int:
        return len(self.labels)

    def file(self, index: int) -> Path:
        """Path of one image."""
        return self.root / self.paths[index]

    def read(self, index: int) -> Image.Image:
        """One image in RGB.

        Raises:
            DataError: not an image, damaged, or too large.
        """
        return read_image(self.file(index), self.exif_orientation)


@contextlib.contextmanager
def readable(subject: object) -> Iterator[None]:
    """What the system says about a folder or file that cannot be read, as an error of the data.

    Args:
        subject: what is at fault where the system names no file.

    Raises:
        DataError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise DataError(error.filename or subject, f"cannot be read: {error.strerror or error}") from None
