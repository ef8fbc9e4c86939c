"""Where samples are: lists of image files with labels and class names."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from src.data.digits import write_digits
from src.errors import DataError

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp", ".bmp")
# What operating systems and tools leave in folders; hidden names are left out as well.
_SYSTEM_FOLDERS = {"__MACOSX", "System Volume Information", "$RECYCLE.BIN", "lost+found"}


@dataclass(frozen=True)
class ImageList:
    """Image files with their labels; a label is an index into ``class_names``."""

    root: Path
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def file(self, index: int) -> Path:
        """Path of one image."""
        return self.root / self.paths[index]


def open_source(kind: str, data_url: str, split: str, num_classes: int) -> ImageList:
    """The images of one split.

    Args:
        kind: a choice of the config key ``set``.
        data_url: folder that holds ``train`` and ``val``; for digits it is made when it is missing.
        split: train or val.
        num_classes: outputs of the model that will see the labels.

    Raises:
        DataError: no such folder, no images, a single class, or another number of classes than the model has.
    """
    root = Path(data_url)
    if kind == "digits":
        write_digits(root)
    if not root.is_dir():
        raise DataError("data_url", "no such folder", data_url)
    folder = root / split
    if not folder.is_dir():
        known = _folder_names(root) or None
        raise DataError("data_url", f"must hold a folder {split} of class folders", data_url, known)
    images = list_class_folders(folder)
    if len(images.class_names) != num_classes:
        raise DataError(
            folder, f"holds {len(images.class_names)} classes, the model has num_classes {num_classes}: make them equal"
        )
    if split == "val" and (root / "train").is_dir() and _folder_names(root / "train") != list(images.class_names):
        extra = sorted(set(_folder_names(root / "train")) ^ set(images.class_names))
        raise DataError(folder, "must have the same class folders as train", f"differing {', '.join(extra[:5])}")
    return images


def list_class_folders(folder: Path) -> ImageList:
    """Images of sorted class folders, at any depth inside them; hidden and system names are left out.

    Raises:
        DataError: fewer than two classes, or a class without images.
    """
    class_names = _folder_names(folder)
    if len(class_names) < 2:
        raise DataError(folder, "must hold at least two class folders", ", ".join(class_names) or "none")
    paths: list[str] = []
    labels: list[int] = []
    empty = []
    for label, name in enumerate(class_names):
        found = sorted(_images_below(folder, name))
        if not found:
            empty.append(name)
        paths += found
        labels += [label] * len(found)
    if empty:
        suffixes = " ".join(IMAGE_SUFFIXES)
        raise DataError(folder, f"class folders without images ({suffixes})", ", ".join(empty[:5]))
    return ImageList(folder, tuple(paths), tuple(labels), tuple(class_names))


def _folder_names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not _is_hidden(e.name))


def _images_below(folder: Path, name: str) -> list[str]:
    found = []
    seen = set()
    for parent, folders, files in os.walk(folder / name, followlinks=True):
        # A link that leads back into the class would repeat its images until the path is too long.
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [f for f in folders if not _is_hidden(f)]
        relative = Path(parent).relative_to(folder)
        found += [(relative / f).as_posix() for f in files if not _is_hidden(f) and f.lower().endswith(IMAGE_SUFFIXES)]
    return found


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _SYSTEM_FOLDERS
