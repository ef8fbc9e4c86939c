"""Names that a user gives, of images, folders and patterns, as image files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from src.data.sources import is_image_name, walk_class


@dataclass
class Photos:
    """Image files, each once, and what is wrong with names that lead to none.

    Attributes:
        paths: in the order of the names, sorted where one stands for many.
        faults: name -> what is wrong with it.
    """

    paths: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)


def find_photos(words: Iterable[str]) -> Photos:
    """A file counts as it is named; of folders, at any depth, and of patterns, what is an image by its suffix.

    Patterns are Python's `glob`: ``*``, ``?``, ``[abc]``, and ``**`` for folders at any depth.
    """
    faults: dict[str, str] = {}
    found: dict[str, None] = {}
    for word in words:
        if not word or os.path.isdir(word):
            here = _images_below(word, faults) if word else []
        elif os.path.lexists(word):
            here = [word]
        else:
            matches = sorted(glob.glob(word, recursive=True))
            folders = [match for match in matches if os.path.isdir(match)]
            here = [match for match in matches if match not in folders and is_image_name(match)]
            here += [path for folder in folders for path in _images_below(folder, faults)]
        if not here:
            faults[word] = "holds no images" if word and os.path.isdir(word) else "no such image, folder or pattern"
        found |= dict.fromkeys(str(Path(path)) for path in here)
    return Photos(list(found), faults)


def _images_below(folder: str, faults: dict[str, str]) -> list[str]:
    def tell(error: OSError) -> None:
        faults[str(error.filename)] = f"cannot be read: {error.strerror}"

    walked = walk_class(Path(folder), "", tell)
    paths = (os.path.join(folder, parent, file) for parent, _, files in walked for file in files)
    return sorted(path for path in paths if is_image_name(path))


def names_below(paths: list[str]) -> list[str]:
    """The paths from the folder that all of them have in common: none leads out of it, and no two are equal."""
    absolute = [os.path.abspath(path) for path in paths]
    folder = os.path.commonpath([os.path.dirname(path) for path in absolute])
    return [os.path.relpath(path, folder) for path in absolute]
