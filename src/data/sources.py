"""Where samples are: every kind of data set, as one interface. See `Source`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from src.data.cifar import CIFAR_SETS, open_cifar
from src.data.digits import write_digits
from src.data.fixed_split import fixed_split
from src.data.flowers import open_flowers
from src.data.image_source import IMAGE_SUFFIXES, ImageList, Source, readable
from src.data.listed import open_list
from src.data.synthetic import SyntheticImages
from src.errors import DataError
from src.schema import DataConfig

# What operating systems and tools leave in folders; hidden names are left out as well.
# Names of parts, in lower case, that would pass for classes; and those of them that mean val.
_VAL_WORDS = {"valid", "validation"}
_SPLIT_WORDS = {"train", "training", "val", "test", "testing", *_VAL_WORDS}
_SYSTEM_FOLDERS = {"__MACOSX", "System Volume Information", "$RECYCLE.BIN", "lost+found"}


def open_source(kind: str, data_url: str, split: str, num_classes: int, *, val_fraction: float = 0.0) -> Source:
    """The images of one split. Nothing is written, but for digits.

    Args:
        kind: a choice of the config key ``set``.
        data_url: ImageNet and folder: folder that holds ``train`` and ``val``, or the class folders themselves where
            ``val_fraction`` is given. digits: the same, made when it is missing. CIFAR10, CIFAR100, Flowers102: the
            authors' folder or its parent. list: a list, or a folder with one for each split. synthetic: not looked at.
        split: train or val.
        num_classes: outputs of the model that will see the labels.
        val_fraction: ImageNet, folder, list: share of every class that becomes val where the data has no val of its
            own; see `fixed_split`.

    Raises:
        DataError: no such folder, no images, a single class, damaged or missing files, or another number of classes
            than the model has.
    """
    root = Path(data_url)
    if kind == "digits":
        write_digits(root)
    if kind == "synthetic":
        return SyntheticImages(split, num_classes)
    if not (root.is_dir() or (kind == "list" and root.is_file())):
        raise DataError("data_url", "no such file or folder" if kind == "list" else "no such folder", data_url)
    with readable("data_url"):
        if kind in CIFAR_SETS:
            images = open_cifar(kind, root, split)
        elif kind == "Flowers102":
            images = open_flowers(root, split)
        elif kind == "list":
            images = open_list(root, split, num_classes, val_fraction)
        else:
            images = _open_folder(root, split, val_fraction)
    found = len(images.class_names)
    if found != num_classes:
        rule = f"holds {found} classes, the model has num_classes {num_classes}: make them equal"
        raise DataError(images.root, rule)
    return images


def open_split(data: DataConfig, split: str, num_classes: int) -> Source:
    """The images of one split of a config's data set; see `open_source`."""
    source = open_source(data.set, data.data_url, split, num_classes, val_fraction=data.val_fraction)
    # Other sources hold bare pixels.
    return replace(source, exif_orientation=data.exif_orientation) if isinstance(source, ImageList) else source


def list_class_folders(folder: Path) -> ImageList:
    """Images of sorted class folders, at any depth inside them; hidden and system names are left out.

    Raises:
        DataError: fewer than two classes, a class without images, or a folder that cannot be read.
    """
    with readable(folder):
        class_names = folder_names(folder)
        if len(class_names) < 2:
            raise DataError(folder, "must hold at least two class folders", ", ".join(class_names) or "none")
        bad = [name for name in class_names if not is_text(name)]
        if bad:
            raise DataError(folder, "must hold class folders whose names are UTF-8: rename it", ascii(bad[0]))
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
    return ImageList(folder, paths, labels, tuple(class_names))


def class_folders(root: Path) -> list[str]:
    """The classes of a data set of class folders, in train, in val, or without either; none without such a folder.

    Raises:
        DataError: a folder that cannot be read.
    """
    if not root.is_dir():
        return []
    with readable(root):
        return folder_names(next((root / split for split in ("train", "val") if (root / split).is_dir()), root))


def _open_folder(root: Path, split: str, val_fraction: float) -> ImageList:
    has_train, has_val = (root / "train").is_dir(), (root / "val").is_dir()
    names = folder_names(root)
    words = {name.lower() for name in names}
    is_parts = bool(words) and words <= _SPLIT_WORDS
    if (is_parts and not (has_train or has_val)) or (has_train and not has_val and words & _VAL_WORDS):
        raise DataError(root, "must call its parts train and val, or hold class folders", ", ".join(names))
    if val_fraction and not has_val:
        return fixed_split(list_class_folders(root / "train" if has_train else root), split, val_fraction)
    folder = root / split
    if not folder.is_dir():
        hint = "" if has_val else ", or set val_fraction to hold out a share of every class"
        known = folder_names(root)[:5] or None
        raise DataError("data_url", f"must hold a folder {split} of class folders{hint}", root, known)
    images = list_class_folders(folder)
    if split == "val" and has_train and folder_names(root / "train") != list(images.class_names):
        extra = sorted(set(folder_names(root / "train")) ^ set(images.class_names))
        raise DataError(folder, "must have the same class folders as train", f"differing {', '.join(extra[:5])}")
    return images


def folder_names(folder: Path) -> list[str]:
    """The folders in a folder, sorted; hidden and system ones are left out."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not is_hidden(e.name))


def _images_below(folder: Path, name: str) -> list[str]:
    walked = walk_class(folder, name, _raise)
    return [f"{parent}/{file}" for parent, _, files in walked for file in files if is_image_name(file)]


def walk_class(
    folder: Path, name: str, on_error: Callable[[OSError], None]
) -> Iterator[tuple[str, list[str], list[str]]]:
    """What a class folder holds at any depth without what is hidden: a path from ``folder``, its folders, its files."""
    seen = set()
    start = len(os.path.join(folder, ""))
    for parent, folders, files in os.walk(os.path.join(folder, name), onerror=on_error, followlinks=True):
        # A link that leads back into the class would repeat its images until the path is too long.
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [f for f in folders if not is_hidden(f)]
        yield parent[start:], folders, [f for f in files if not is_hidden(f)]


def is_text(name: str) -> bool:
    """Whether a file's name is valid UTF-8, as names in a manifest have to be."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def is_image_name(name: str) -> bool:
    """Whether a file counts as an image, by its suffix."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def _raise(error: OSError) -> None:
    # A class must not shrink in silence because one of its folders cannot be read.
    raise error


def is_hidden(name: str) -> bool:
    """Whether a file or folder is the system's, and not the user's."""
    return name.startswith(".") or name in _SYSTEM_FOLDERS
