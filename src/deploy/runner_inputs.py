"""Images to the float32 files that the C++ runner reads."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import Field
from tqdm import tqdm

from src import schema
from src.data.cifar import CifarImages
from src.data.image_source import Source
from src.data.sources import list_class_folders, open_source
from src.data.transforms import EvalTransform
from src.deploy.model_info import read_model_info
from src.deploy.results import input_names
from src.device import num_cores
from src.errors import DataError
from src.files import replacing, write_text

LABEL_FILE, IMAGE_FOLDER = "imagenet_label.json", "img_data"
# What the zoo's ImageNet models with ImageNet's mean share, used when no model is named.
IMAGENET = EvalTransform(224, 0.9, "bicubic", "shorter", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_NAMED = 5


class PreprocessConfig(schema.Section):
    """Images to the C++ runner's float32 files; or --check DATA [--set KIND]; or --preview FILE.png --config YAML."""

    dataset_name: Literal["imagenet2012", "folder", "cifar10"] = Field("imagenet2012", description="kind of data set")
    data_path: str = Field(description="folder of class folders; cifar10: the authors' folder or its parent")
    model_info: schema.Path = Field(
        None, description="the .json beside the exported model: its resize, crop, mean and std"
    )
    output_path: str = Field("./preprocess_Result", description="folder to write")
    strict: bool = Field(False, description="an unreadable image ends the run")


@dataclass(frozen=True)
class _Inputs:
    """Images to write, their names ``<class>/<name>`` in the label file, and their labels."""

    source: Source
    names: Sequence[str]
    labels: Sequence[int]


def preprocess(config: PreprocessConfig) -> Path:
    """Write ``img_data/<class>/<name>.bin`` (C, Y, X) float32 and ``imagenet_label.json``; returns their folder.

    Files of an earlier call that belong to no image any more are removed, as far as its label file lists them.

    Raises:
        DataError: no images, classes other than the model's, an unreadable image with ``strict``.
        ModelFileError: the model's description cannot be read.
    """
    folder = Path(config.data_path)
    if not folder.is_dir():
        raise DataError("data_path", "no such folder", folder)
    images = _open_cifar(folder) if config.dataset_name == "cifar10" else _open_class_folders(folder)
    transform = IMAGENET
    if config.model_info is None:
        print("warning: no --model_info: 224 pixels, crop 0.9 and ImageNet's mean and std are assumed", file=sys.stderr)
    else:
        info = read_model_info(Path(config.model_info))
        transform = info.transform.transform()
        images = _with_labels_of(images, info.class_names, info.num_classes)
    output = Path(config.output_path)
    names = input_names(list(images.names))
    _remove_stale(output, set(names.values()))
    unreadable = _write_inputs(images, names, transform, output / IMAGE_FOLDER, config.strict)
    labels = {image: label for image, label in zip(images.names, images.labels, strict=True) if image not in unreadable}
    if not labels:
        raise DataError(images.source.root, "no image can be read", next(iter(unreadable.values())))
    write_text(output / LABEL_FILE, json.dumps(labels, ensure_ascii=False, indent=0) + "\n")
    for line in unreadable.values():
        print(f"warning: left out: {line}", file=sys.stderr)
    print(f"[INFO] Completed! Total {len(labels)} data.")
    return output


def _open_class_folders(folder: Path) -> _Inputs:
    images = list_class_folders(folder)
    if set(images.class_names) <= {"train", "val", "test"}:
        raise DataError("data_path", f"must hold class folders: choose {folder / 'val'}", ", ".join(images.class_names))
    return _Inputs(images, image_names(images), images.labels)


def _open_cifar(folder: Path) -> _Inputs:
    """CIFAR-10's test images."""
    try:
        images = open_source("CIFAR10", str(folder), "val", 10)
    except DataError as error:
        # This command's flag has another name than the config's key.
        raise DataError("data_path", error.lines[0].removeprefix("data_url: ")) from None
    return _Inputs(images, image_names(images), images.labels)


def image_names(images: Source) -> Sequence[str]:
    """What the label file calls these images: the paths of files; of CIFAR's the same names in both of its versions."""
    if not isinstance(images, CifarImages):
        return images.paths
    names = []
    for path, label in zip(images.paths, images.labels, strict=True):
        file, _, row = path.partition("#")
        # Class names are from a file of the data set: they must not lead out of the folder.
        class_folder = re.sub(r"[^\w -]", "_", images.class_names[label])
        names.append(f"{class_folder}/{Path(file).stem}_{row}")
    return names


def _with_labels_of(images: _Inputs, class_names: list[str] | None, num_classes: int) -> _Inputs:
    """The labels that the model gives to these classes, which may be some of its own."""
    source = images.source
    if class_names is None:
        if len(source.class_names) != num_classes:
            rule = f"holds {len(source.class_names)} class folders, the model has {num_classes} classes without names"
            raise DataError(source.root, rule)
        return images
    unknown = [name for name in source.class_names if name not in class_names]
    if unknown:
        raise DataError(source.root, "holds classes that the model lacks", ", ".join(unknown[:_NAMED]))
    place = [class_names.index(name) for name in source.class_names]
    return replace(images, labels=[place[label] for label in images.labels])


def _remove_stale(output: Path, wanted: set[str]) -> None:
    try:
        earlier = json.loads((output / LABEL_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    for name in set(input_names(list(earlier)).values()) - wanted:
        (output / IMAGE_FOLDER / f"{name}.bin").unlink(missing_ok=True)


def _write_inputs(
    images: _Inputs, names: dict[str, str], transform: EvalTransform, folder: Path, strict: bool
) -> dict[str, str]:
    """Write one file per image; returns a line about each image that cannot be read."""

    def write(index: int) -> tuple[str, str] | None:
        image = images.names[index]
        target = folder / f"{names[image]}.bin"
        try:
            array_CYX = transform(images.source.read(index))
        except DataError as error:
            if strict:
                raise
            target.unlink(missing_ok=True)
            return image, str(error)
        with replacing(target) as temporary:
            array_CYX.tofile(temporary)
        return None

    count = len(images.names)
    with ThreadPoolExecutor(num_cores()) as pool:
        results = pool.map(write, range(count))
        bar = tqdm(results, "preprocess", count, file=sys.stderr, disable=not sys.stderr.isatty(), leave=False)
        return dict(item for item in bar if item is not None)
