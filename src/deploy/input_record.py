"""Which files for the C++ runner are done, so that preprocess.py can be cut off and called again."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from src.data.image_source import readable
from src.data.transforms import EvalTransform
from src.files import AppendedFile, write_text

# Size in bytes and time of change in nanoseconds.
Stamp = tuple[int, int]


class InputRecord:
    """A file of JSON lines: how images are read, then a line for each file that is done, with the stamp of its image.

    Lines behind another transform count for nothing. A line follows its file, so that a killed call loses no more than
    the files that it was at. Close it, or use it in a ``with``.

    Args:
        path: the file, made where it is missing.
        transform: of all images.
        exif_orientation: whether images are turned as their cameras say.

    Attributes:
        names: of all files that the record knew when it was opened, with whatever transform.
        added: how many files were added since.
    """

    def __init__(self, path: Path, transform: EvalTransform, exif_orientation: bool = False):
        head = json.dumps({"transform": transform.as_dict(), "exif_orientation": exif_orientation})
        lines = _whole_lines(path)
        done = dict(filter(None, map(_parse, lines[1:])))
        self.names = set(done)
        self.added = 0
        self._done = done if lines[:1] == [head] else {}
        if lines[:1] != [head]:
            write_text(path, head + "\n")
        self._file = AppendedFile(path)
        self._lock = threading.Lock()

    def is_done(self, name: str, image: Stamp) -> bool:
        """Whether the file of this name was made of this image."""
        return self._done.get(name) == image

    def add(self, name: str, image: Stamp) -> None:
        """The file is there, as a whole."""
        line = json.dumps([name, *image]) + "\n"
        with self._lock:
            self._file.append(line.encode())
            self.added += 1

    def __enter__(self) -> InputRecord:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


def stamp_of(file: Path) -> Stamp:
    """What tells an image from the one that was there before.

    Raises:
        DataError: there is no such file.
    """
    with readable(file):
        facts = file.stat()
    return facts.st_size, facts.st_mtime_ns


def _whole_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    return text.split("\n")[:-1]


def _parse(line: str) -> tuple[str, Stamp] | None:
    """A line that says something, None for what is left of a damaged one."""
    try:
        name, size, changed = json.loads(line)
    except (TypeError, ValueError):
        return None
    return (name, (size, changed)) if isinstance(name, str) else None
