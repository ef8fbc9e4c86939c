"""Image files that a list names, one line for each: ``path,label``, or with a tab or a blank between them."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from src.data.fixed_split import fixed_split
from src.data.image_source import IMAGE_SUFFIXES, ImageList
from src.errors import DataError

LIST_SUFFIXES = (".csv", ".txt")
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_MANY_NAMES = re.compile(r"//|(^|/)\./|/$")
_SEPARATORS = ("\t", ",", " ")


class _Line(NamedTuple):
    number: int
    path: str
    label: str


def open_list(root: Path, split: str, num_classes: int, val_fraction: float) -> ImageList:
    """The images that a list names.

    Fields are as in CSV, with quotes where a path holds the separator; where that is a blank the last field is the
    label. A path starts from the list's folder or is absolute. A first line that is no image is a header. Labels are
    class indices if all of the training list's are whole numbers, else class names, which are sorted.

    Args:
        root: a list, or a folder of ``train.csv`` and ``val.csv`` (or .txt).
        split: train or val.
        num_classes: what class indices are checked against.
        val_fraction: share of every class that becomes val where there is no list val; see `fixed_split`.

    Raises:
        DataError: lists or images that are missing; a line, with its number, that is no path and label, repeats an
            image, or has a label that is out of range or not among those of train.
    """
    lists = _find_lists(root)
    path = lists.get(split)
    if path is None or (split == "train" and "val" not in lists and val_fraction):
        if split == "val" and not val_fraction:
            known = "val.csv, val.txt" if root.is_dir() else None
            raise DataError("data_url", "has no list val: add one, or set val_fraction", root, known)
        if "train" not in lists:
            raise DataError("data_url", "must hold a list train", root, "train.csv, train.txt")
        return fixed_split(_read_images(lists, "train", num_classes), split, val_fraction)
    return _read_images(lists, split, num_classes)


def _find_lists(root: Path) -> dict[str, Path]:
    if root.is_file():
        return {"train": root}
    lists = {}
    for split in ("train", "val"):
        found = [path for suffix in LIST_SUFFIXES if (path := root / f"{split}{suffix}").is_file()]
        if len(found) > 1:
            raise DataError(root, f"must hold one list {split}", ", ".join(path.name for path in found))
        if found:
            lists[split] = found[0]
    return lists


def _read_images(lists: dict[str, Path], split: str, num_classes: int) -> ImageList:
    lines = _read_lines(lists[split])
    # The classes are those of train, so that both splits have the same.
    deciding = lines if split == "train" or "train" not in lists else _read_lines(lists["train"])
    names = {line.label for line in deciding}
    if all(map(_WHOLE_NUMBER.fullmatch, names)):
        labels = [_index(lists[split], line, num_classes) for line in lines]
        class_names = tuple(map(str, range(num_classes)))
        empty = sorted(set(range(num_classes)) - set(labels)) if split == "train" else []
        if empty:
            rule = f"must name images of every class from 0 to {num_classes - 1}"
            raise DataError(lists[split], rule, f"none of {', '.join(map(str, empty[:5]))}")
    else:
        class_names = tuple(sorted(names))
        place = {name: label for label, name in enumerate(class_names)}
        unknown = next((line for line in lines if line.label not in place), None)
        if unknown is not None:
            where = f"{lists[split]}:{unknown.number}"
            raise DataError(where, "label must be a class of the list train", _shown(unknown.label))
        labels = [place[line.label] for line in lines]
    return ImageList(lists[split].parent, (line.path for line in lines), labels, class_names)


def _index(path: Path, line: _Line, num_classes: int) -> int:
    if not _WHOLE_NUMBER.fullmatch(line.label) or not 0 <= int(line.label) < num_classes:
        rule = f"label must be a whole number from 0 to {num_classes - 1}"
        raise DataError(f"{path}:{line.number}", rule, _shown(line.label))
    return int(line.label)


def _read_lines(path: Path) -> list[_Line]:
    """Lines without the header; every one names an image of its own that exists."""
    folder = str(path.parent)
    lines: list[_Line] = []
    first: dict[str, int] = {}
    missing = []
    for place, (number, fields) in enumerate(_read_fields(path)):
        if len(fields) != 2 or not all(fields):
            raise DataError(f"{path}:{number}", "must be a path and a label", _shown(str(fields)))
        # One name for one file.
        image = PurePosixPath(fields[0]).as_posix() if _MANY_NAMES.search(fields[0]) else fields[0]
        is_there = os.path.isfile(os.path.join(folder, image))
        if place == 0 and not is_there and not image.lower().endswith(IMAGE_SUFFIXES):
            continue
        if image in first:
            raise DataError(f"{path}:{number}", f"names the image of line {first[image]} again", _shown(image))
        first[image] = number
        if not is_there:
            missing.append(f"{_shown(image)} in line {number}")
        lines.append(_Line(number, image, fields[1]))
    if missing:
        raise DataError(path, f"names {len(missing)} images that are not there", ", ".join(missing[:3]))
    if not lines:
        raise DataError(path, "must name images")
    return lines


def _read_fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and fields of every line that is not blank."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(path, f"must be UTF-8 text: {error}") from None
    # Names may hold some other separator, so that the one of most lines is meant.
    rows = text.splitlines()
    separator = max(_SEPARATORS, key=lambda one: sum(one in row for row in rows))
    number = 1
    try:
        if separator == " ":
            for number, row in enumerate(map(str.strip, re.split("\r\n|\n|\r", text)), start=1):
                if row:
                    yield number, _blank_fields(row)
            return
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        for fields in reader:
            if any(map(str.strip, fields)):
                yield number, [fields[0], *map(str.strip, fields[1:])]
            # A quoted name may hold the end of a line.
            number = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}:{number}", f"cannot be read as CSV: {error}") from None


def _blank_fields(row: str) -> list[str]:
    """The last field is the label: without quotes a path may hold blanks, and a label may not."""
    if '"' not in (row[0], row[-1]):
        return row.rsplit(None, 1)
    *path, label = next(csv.reader([row], delimiter=" ", skipinitialspace=True))
    return [" ".join(path), label]


def _shown(text: str) -> str:
    """What a message can hold in one line."""
    return (text if text.isprintable() else repr(text))[:100]
