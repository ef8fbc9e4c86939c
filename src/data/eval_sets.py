"""The images that eval.py evaluates on: the split val, or one of the sets that test an ImageNet network elsewhere.

    set               folders of data_url             which answers count
    imagenet_v2       0 to 999                        all classes (https://arxiv.org/abs/1902.10811)
    imagenet_real     val, as ImageNet                all; right is any of the image's labels in real.json, and images
                                                      without a label are left out (https://arxiv.org/abs/2006.07159)
    imagenet_a        200 class folders               these classes alone (https://arxiv.org/abs/1907.07174)
    imagenet_r        200 class folders               these classes alone (https://arxiv.org/abs/2006.16241)
    imagenet_sketch   1,000 class folders             these classes (https://arxiv.org/abs/1905.13549)
    imagenet_c        CORRUPTION/SEVERITY/class       all classes (https://arxiv.org/abs/1903.12261)

Numbers of classes mean places among the sorted names of the 1,000 classes. Where a network has them is never guessed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from src.data.image_source import ImageList, Source, readable
from src.data.sources import folder_names, list_class_folders, open_split
from src.errors import ConfigError, DataError
from src.schema import Config

# As their authors made them.
_NUM_CLASSES = {
    "imagenet_v2": 1000,
    "imagenet_real": 1000,
    "imagenet_a": 200,
    "imagenet_r": 200,
    "imagenet_sketch": 1000,
    "imagenet_c": 1000,
}
_SEVERITIES = ("1", "2", "3", "4", "5")
_VAL_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})\.")
_SHOWN = 5


@dataclass(frozen=True)
class EvalSet:
    """Images to evaluate on, and what counts as an answer.

    Attributes:
        name: a choice of the config key ``eval_set``.
        images: labelled with their classes.
        columns: the network's outputs for these classes; None for all of its outputs in their order.
        accepted: for each image the classes that are right, where several may be.
        corruptions: what was done to images, and places of the images that it was done to.
    """

    name: str
    images: Source
    columns: tuple[int, ...] | None = None
    accepted: tuple[frozenset[int], ...] | None = None
    corruptions: dict[str, range] | None = None


def open_eval_set(config: Config, known_names: Sequence[str] | None) -> EvalSet:
    """The set that the key ``eval_set`` names, for a network with these classes.

    Args:
        config: resolved.
        known_names: classes of the network's outputs, as its weights say; None where they do not.

    Raises:
        ConfigError: nobody says the classes of the outputs.
        DataError: images or labels that are missing, or classes that the network does not have.
    """
    data, name = config.data, config.evaluation.eval_set
    if name == "val":
        return EvalSet(name, _with_classes(open_split(data, "val", config.model.num_classes), known_names))
    class_names = _class_order(config, known_names)
    root = Path(data.data_url)
    if not root.is_dir():
        raise DataError("data_url", "no such folder", root)
    if name == "imagenet_real":
        found = _open_real(config, class_names)
    elif name == "imagenet_v2":
        found = EvalSet(name, _open_numbered(root, class_names))
    elif name == "imagenet_c":
        found = _open_corrupted(root, class_names)
    else:
        images = list_class_folders(root)
        found = EvalSet(name, images, _places(root, images.class_names, class_names))
    _warn_of_missing_classes(found)
    return replace(found, images=replace(found.images, exif_orientation=data.exif_orientation))


def _with_classes(images: Source, known_names: Sequence[str] | None) -> Source:
    if known_names is not None and list(known_names) != list(images.class_names):
        differing = sorted(set(known_names) ^ set(images.class_names)) or ["their order"]
        raise DataError(images.root, "has other classes than the weights were trained for", _few(differing))
    return images


def _class_order(config: Config, known_names: Sequence[str] | None) -> tuple[str, ...]:
    """The class of every output."""
    path, num_classes = config.evaluation.class_order, config.model.num_classes
    if path is None and known_names is None:
        rule = "must name ImageNet's train folder or a file of one name a line: the weights do not say their classes"
        raise ConfigError("class_order", rule)
    names = tuple(known_names or ()) if path is None else _read_names(Path(path))
    if len(names) != num_classes:
        raise DataError(path or "class_order", f"must hold the {num_classes} classes of the network", len(names))
    if len(set(names)) < len(names):
        raise DataError(path, "names a class twice", _few(sorted({name for name in names if names.count(name) > 1})))
    if known_names is not None and tuple(known_names) != names:
        raise DataError(path, "must hold the classes that the weights were trained for, in their order")
    return names


def _read_names(path: Path) -> tuple[str, ...]:
    with readable(path):
        if path.is_dir():
            return tuple(folder_names(path))
        try:
            return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        except UnicodeDecodeError as error:
            raise DataError(path, f"must be UTF-8 text: {error}") from None


def _open_numbered(root: Path, class_names: tuple[str, ...]) -> ImageList:
    """Folders that are named by the place of their class among the sorted names."""
    images = list_class_folders(root)
    wanted = {str(number) for number in range(len(class_names))}
    if set(images.class_names) != wanted:
        differing = sorted(wanted ^ set(images.class_names))
        raise DataError(root, f"must hold the folders 0 to {len(class_names) - 1}", f"differing {_few(differing)}")
    place_of_number = _places_of_sorted(class_names)
    labels = (place_of_number[int(images.class_names[label])] for label in images.labels)
    return ImageList(root, images.paths, labels, class_names)


def _open_corrupted(root: Path, class_names: tuple[str, ...]) -> EvalSet:
    paths: list[str] = []
    labels: list[int] = []
    corruptions: dict[str, range] = {}
    with readable(root):
        names = folder_names(root)
        for corruption in names:
            first = len(paths)
            severities = folder_names(root / corruption)
            if tuple(severities) != _SEVERITIES:
                rule = f"must hold the severities {_SEVERITIES[0]} to {_SEVERITIES[-1]}"
                raise DataError(root / corruption, rule, _few(severities) or "none")
            for severity in severities:
                part = list_class_folders(root / corruption / severity)
                places = _places(part.root, part.class_names, class_names)
                paths += (f"{corruption}/{severity}/{path}" for path in part.paths)
                labels += (places[label] for label in part.labels)
            corruptions[corruption] = range(first, len(paths))
    if not names:
        raise DataError(root, "must hold a folder for each corruption, such as gaussian_noise")
    return EvalSet("imagenet_c", ImageList(root, paths, labels, class_names), corruptions=corruptions)


def _open_real(config: Config, class_names: tuple[str, ...]) -> EvalSet:
    images = _with_classes(open_split(config.data, "val", config.model.num_classes), class_names)
    if not isinstance(images, ImageList):
        raise ConfigError("eval_set", "needs ImageNet's image files, set ImageNet", config.data.set)
    label_lists = _read_real(config.evaluation.real_labels, len(class_names))
    place_of_number = _places_of_sorted(class_names)
    kept, accepted = [], []
    for index, path in enumerate(images.paths):
        found = _VAL_NUMBER.search(path)
        number = int(found[1]) if found else 0
        if not 1 <= number <= len(label_lists):
            rule = f"must be named ILSVRC2012_val_00000001 to {len(label_lists):08d}"
            raise DataError(images.root, rule, path)
        if label_lists[number - 1]:
            kept.append(index)
            accepted.append(frozenset(place_of_number[label] for label in label_lists[number - 1]))
    if not kept:
        raise DataError(config.evaluation.real_labels, "leaves no image", images.root)
    chosen = ImageList(
        images.root, (images.paths[index] for index in kept), (images.labels[index] for index in kept), class_names
    )
    return EvalSet("imagenet_real", chosen, accepted=tuple(accepted))


def _read_real(name: str | None, num_classes: int) -> list[list[int]]:
    """For each image of val by its number, less one, the numbers of the classes that it shows."""
    if name is None:
        raise ConfigError("real_labels", "must name ImageNet-ReaL's real.json")
    path = Path(name)
    with readable(path):
        try:
            lists = json.loads(path.read_bytes())
        except ValueError as error:
            raise DataError(path, f"must be JSON: {error}") from None
    is_right = isinstance(lists, list) and all(
        isinstance(labels, list) and all(type(label) is int and 0 <= label < num_classes for label in labels)
        for labels in lists
    )
    if not is_right:
        raise DataError(path, f"must be a list of lists of whole numbers below {num_classes}")
    return lists


def _places(root: Path, found: Sequence[str], class_names: tuple[str, ...]) -> tuple[int, ...]:
    """Where the network has these classes."""
    place_of = {name: place for place, name in enumerate(class_names)}
    unknown = [name for name in found if name not in place_of]
    if unknown:
        raise DataError(root, "holds classes that the network does not have", _few(unknown), _few(class_names))
    return tuple(place_of[name] for name in found)


def _places_of_sorted(class_names: tuple[str, ...]) -> list[int]:
    """Where the network has the class of each number."""
    return sorted(range(len(class_names)), key=class_names.__getitem__)


def _warn_of_missing_classes(eval_set: EvalSet) -> None:
    found, wanted = len(set(eval_set.images.labels)), _NUM_CLASSES[eval_set.name]
    if found != wanted:
        name = eval_set.name
        print(f"warning: {name} has {wanted} classes, here are {found}: not the number of {name}", file=sys.stderr)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
