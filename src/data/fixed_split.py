"""A share of every class held out for validation, the same one in every run."""

from __future__ import annotations

import hashlib

from src.data.image_source import ImageList
from src.errors import DataError


def fixed_split(images: ImageList, split: str, val_fraction: float) -> ImageList:
    """The images of one part; a class of two or more images has some in either.

    What is held out depends on the names within a class alone: not on a seed, the order, or other classes. A larger
    fraction holds out the same images and more.

    Args:
        images: all of them.
        split: train or val.
        val_fraction: share of every class that becomes val, in (0, 1).

    Raises:
        DataError: every class has a single image, so that none can be spared.
    """
    members: dict[int, list[int]] = {}
    for index, label in enumerate(images.labels):
        members.setdefault(label, []).append(index)
    held_out = set()
    for indices in members.values():
        count = min(max(round(len(indices) * val_fraction), 1), len(indices) - 1)
        held_out.update(sorted(indices, key=lambda index: _rank(images.paths[index]))[:count])
    if not held_out:
        raise DataError("val_fraction", "leaves nothing to validate: every class has a single image", images.root)
    chosen = [index for index in range(len(images)) if (index in held_out) == (split == "val")]
    paths = (images.paths[index] for index in chosen)
    return ImageList(images.root, paths, (images.labels[index] for index in chosen), images.class_names)


def _rank(path: str) -> bytes:
    # Fixed for ever: results on the held-out images are compared across versions.
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest()
