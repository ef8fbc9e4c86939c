"""Images to the float32 files that the C++ runner reads."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field
from tqdm import tqdm

from src import schema
from src.data.cifar import CifarImages
from src.data.image_source import Source
from src.data.sources import list_class_folders, open_source
from src.data.transforms import EvalTransform
from src.deploy.input_record import InputRecord, stamp_of
from src.deploy.model_info import read_model_info
from src.deploy.results import CLASS_FILE, input_names, read_labels
from src.device import num_cores
from src.errors import DataError
from src.files import locked, replacing, sweep_temporaries, write_json, write_text

LABEL_FILE, IMAGE_FOLDER, LABEL_FOLDER, RECORD_FILE = "imagenet_label.json", "img_data", "label", "preprocess.jsonl"
# What the zoo's ImageNet models with ImageNet's mean share, used when no model is named.
IMAGENET = EvalTransform(224, 0.9, "bicubic", "shorter", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_NAMED, _BLOCK = 5, 1024


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
    """Images to write, their names in the label file, their labels, and the names of the labels."""

    source: Source
    names: Sequence[str]
    labels: Sequence[int]
    class_names: Sequence[str]


def preprocess(config: PreprocessConfig) -> Path:
    """Write ``img_data/<class>/<name>.bin`` (C, Y, X) float32 and ``imagenet_label.json``; returns their folder.

    Called again, it leaves alone what is done: files of the same images and the same transform. Files of an earlier
    call that belong to no image any more are removed. The label file comes last and marks a whole folder.

    Raises:
        DataError: no images, classes other than the model's, an unreadable image with ``strict``.
        ModelFileError: the model's description cannot be read.
        ConfigError: another process writes to the folder.
    """
    folder = Path(config.data_path)
    if not folder.is_dir():
        raise DataError("data_path", "no such folder", folder)
    is_cifar = config.dataset_name == "cifar10"
    images = _open_cifar(folder) if is_cifar else _open_class_folders(folder)
    transform, exif_orientation = IMAGENET, False
    if config.model_info is None:
        print("warning: no --model_info: 224 pixels, crop 0.9 and ImageNet's mean and std are assumed", file=sys.stderr)
    else:
        info = read_model_info(Path(config.model_info))
        transform, exif_orientation = info.transform.transform(), info.transform.exif_orientation
        images = _with_labels_of(images, info.class_names, info.num_classes)
    if not is_cifar:
        images = replace(images, source=replace(images.source, exif_orientation=exif_orientation))
    output = Path(config.output_path)
    with locked(output, "output_path"):
        unreadable = _write_inputs(images, transform, output, config.strict)
        pairs = zip(images.names, images.labels, strict=True)
        labels = {image: label for image, label in pairs if image not in unreadable}
        if not labels:
            raise DataError(images.source.root, "no image can be read", next(iter(unreadable.values())))
        write_json(output / CLASS_FILE, list(images.class_names))
        # As the zoo: in ASCII, which holds names in any encoding.
        write_text(output / LABEL_FILE, json.dumps(labels, indent=0) + "\n")
    for line in unreadable.values():
        print(f"warning: left out: {line}", file=sys.stderr)
    if is_cifar:
        print("=" * 20, "export bin files finished", "=" * 20)
    print(f"[INFO] Completed! Total {len(labels)} data.")
    return output


def _open_class_folders(folder: Path) -> _Inputs:
    images = list_class_folders(folder)
    if set(images.class_names) <= {"train", "val", "test"}:
        raise DataError("data_path", f"must hold class folders: choose {folder / 'val'}", ", ".join(images.class_names))
    return _Inputs(images, image_names(images), images.labels, images.class_names)


def _open_cifar(folder: Path) -> _Inputs:
    """CIFAR-10's test images."""
    try:
        images = open_source("CIFAR10", str(folder), "val", 10)
    except DataError as error:
        # This command's flag has another name than the config's key.
        raise DataError("data_path", error.lines[0].removeprefix("data_url: ")) from None
    return _Inputs(images, image_names(images), images.labels, images.class_names)


def image_names(images: Source) -> Sequence[str]:
    """What the label file calls these images: the paths of files, or for CIFAR's the names that the zoo's ViT gives."""
    if isinstance(images, CifarImages):
        return [f"vit_base_cifar10_1_{index}.bin" for index in range(len(images))]
    return images.paths


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
    return replace(images, labels=[place[label] for label in images.labels], class_names=class_names)


def _write_inputs(images: _Inputs, transform: EvalTransform, output: Path, strict: bool) -> dict[str, str]:
    """Write a file for each image, as far as it is not there; returns a line about each image that cannot be read."""
    names = input_names(list(images.names))
    known = _names_of_earlier_labels(output)
    (output / LABEL_FILE).unlink(missing_ok=True)
    exif_orientation = getattr(images.source, "exif_orientation", False)
    with InputRecord(output / RECORD_FILE, transform, exif_orientation) as record:
        _remove_left_over(output, (known | record.names) - set(names.values()))
        writer = _Writer(images, names, transform, output, strict, record)
        unreadable = writer.write_all()
        there = len(names) - len(unreadable) - record.added
    if there:
        print(f"=> {there} of {len(names)} files were there")
    return unreadable


def _names_of_earlier_labels(output: Path) -> set[str]:
    try:
        return set(input_names(list(read_labels(output / LABEL_FILE))).values())
    except DataError:
        return set()


def _remove_left_over(output: Path, names: set[str]) -> None:
    """Remove files of images that are gone, and what killed calls left half-written: the runner would take it."""
    for name in names:
        for folder in (IMAGE_FOLDER, LABEL_FOLDER):
            (output / folder / f"{name}.bin").unlink(missing_ok=True)
    for folder in (IMAGE_FOLDER, LABEL_FOLDER):
        for parent, _, _ in os.walk(output / folder):
            sweep_temporaries(Path(parent))


@dataclass(frozen=True)
class _Writer:
    """Writes the files of images, in threads: PIL and numpy let go of Python's lock while they work."""

    images: _Inputs
    names: dict[str, str]
    transform: EvalTransform
    output: Path
    strict: bool
    record: InputRecord

    def write_all(self) -> dict[str, str]:
        """Image -> line about it, of each that cannot be read."""
        count = len(self.images.names)
        unreadable = {}
        hidden = not sys.stderr.isatty()
        with (
            ThreadPoolExecutor(num_cores()) as pool,
            tqdm(desc="preprocess", total=count, file=sys.stderr, disable=hidden, leave=False) as bar,
        ):
            # Tasks of all images at once would take more memory than the images at work.
            for start in range(0, count, _BLOCK):
                block = range(start, min(start + _BLOCK, count))
                for index, line in zip(block, pool.map(self._write, block), strict=True):
                    if line is not None:
                        unreadable[self.images.names[index]] = line
                    bar.update()
        return unreadable

    def _write(self, index: int) -> str | None:
        """Write the file of an image, unless it is there; returns why the image cannot be read, if so."""
        name = self.names[self.images.names[index]]
        target = self.output / IMAGE_FOLDER / f"{name}.bin"
        if isinstance(self.images.source, CifarImages):
            self._write_label(self.output / LABEL_FOLDER / f"{name}.bin", self.images.labels[index])
        try:
            # Before the image is read: if it changes meanwhile, the next call reads it again.
            stamp = stamp_of(_file_of(self.images.source, index))
            if self.record.is_done(name, stamp) and _holds(target, 4 * 3 * self.transform.image_size**2):
                return None
            array_CYX = self.transform(self.images.source.read(index))
        except DataError as error:
            if self.strict:
                raise
            target.unlink(missing_ok=True)
            return str(error)
        with replacing(target) as temporary:
            array_CYX.tofile(temporary)
        self.record.add(name, stamp)
        return None

    def _write_label(self, target: Path, label: int) -> None:
        """The label as the zoo's ViT stores it, for programs that read its folder."""
        content = np.int32(label).tobytes()
        if not (_holds(target, len(content)) and target.read_bytes() == content):
            with replacing(target) as temporary:
                temporary.write_bytes(content)


def _holds(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _file_of(images: Source, index: int) -> Path:
    path = images.paths[index]
    return images.root / (path.partition("#")[0] if isinstance(images, CifarImages) else path)
