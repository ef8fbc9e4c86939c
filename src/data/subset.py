"""Some images of a source, spread over its classes and over each class."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from src.data.image_source import Source


@dataclass(frozen=True)
class Subset:
    """The images of a source at some places; see `Source`."""

    source: Source
    indices: tuple[int, ...]

    @property
    def root(self) -> Path:
        """Of the source."""
        return self.source.root

    @functools.cached_property
    def paths(self) -> list[str]:
        """Of the chosen images."""
        return [self.source.paths[index] for index in self.indices]

    @functools.cached_property
    def labels(self) -> list[int]:
        """Of the chosen images."""
        return [self.source.labels[index] for index in self.indices]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the source: its classes stay, whether or not one of their images was chosen."""
        return self.source.class_names

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> Image.Image:
        """One image in RGB.

        Raises:
            DataError: it cannot be decoded.
        """
        return self.source.read(self.indices[index])


def spread(labels: Sequence[int], count: int | None) -> tuple[int, ...]:
    """Places of ``count`` images in ascending order, a function of the labels alone; all places for None.

    Every class has its share, and at least one image if there are as many as classes. Within a class, and over the
    classes if there are fewer images than classes, places are equally far apart.
    """
    if count is None or count >= len(labels):
        return tuple(range(len(labels)))
    label_N = np.asarray(labels)
    classes = [np.flatnonzero(label_N == label) for label in np.unique(label_N)]
    classes = [classes[place] for place in _equally_far(min(count, len(classes)), len(classes))]
    # Whose turn it is: the first image of every class comes before any second one, then large classes come more often.
    turn_N = np.concatenate([np.arange(len(members)) / len(members) for members in classes])
    class_N = np.repeat(np.arange(len(classes)), [len(members) for members in classes])
    share_K = np.bincount(class_N[np.argsort(turn_N, kind="stable")[:count]])
    chosen = [members[_equally_far(share, len(members))] for members, share in zip(classes, share_K, strict=True)]
    return tuple(np.sort(np.concatenate(chosen)).tolist())


def _equally_far(count: int, of: int) -> np.ndarray:
    return np.arange(count) * of // count
