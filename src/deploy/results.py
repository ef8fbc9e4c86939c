"""What the C++ runner reads and leaves: names of its files, labels, classes, logits, accuracy. Needs numpy alone.

Shape letters: N images, K classes.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from pydantic import Field

from src import schema
from src.class_table import class_rows, table_lines, write_class_csv
from src.deploy.confusion import confusion_lines, write_confusion_csv
from src.errors import DataError
from src.metrics import TopCounts, counts_of, predictions

CLASS_FILE = "class_names.json"
_NAMED = 5


class PostprocessConfig(schema.Section):
    """Top-1 and top-5 of the C++ runner's results, of every class too, and which classes are taken for which."""

    dataset_name: Literal["imagenet2012", "folder", "cifar10"] = Field("imagenet2012", description="kind of data set")
    result_dir: str = Field("./result_Files", description="the runner's results")
    label_file: str = Field(
        "./preprocess_Result/imagenet_label.json",
        description="labels that preprocess.py wrote: the JSON, or the folder of int32 files",
    )
    output_dir: str = Field("./", description="folder for per_class.csv and confusion.csv")


def input_names(images: list[str]) -> dict[str, str]:
    """Image (relative path with suffix) -> its name for the runner, without suffix.

    ``cat/1.jpg`` is ``cat/1``; where a folder holds ``1.png`` too, both keep their suffix.
    """
    stems = {image: str(PurePosixPath(image).with_suffix("")) for image in images}
    taken = Counter([*stems.values(), *stems])
    return {image: stem if taken[stem] == 1 else image for image, stem in stems.items()}


def read_labels(label_file: Path) -> dict[str, int]:
    """Image (relative path) -> class index, as preprocess.py wrote it: a JSON, or a folder of one int32 file each.

    Raises:
        DataError: missing, empty or not such a file.
    """
    if label_file.is_dir():
        return _read_label_folder(label_file)
    try:
        labels = json.loads(label_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(label_file, "no such file, preprocess.py writes it") from None
    except (OSError, ValueError) as error:
        raise DataError(label_file, f"cannot be read: {error}") from None
    if not isinstance(labels, dict) or not labels:
        raise DataError(label_file, "must hold a class index for each image")
    wrong = [name for name, label in labels.items() if type(label) is not int or label < 0]
    if wrong:
        raise DataError(label_file, "a label must be a whole number from 0", f"{wrong[0]}: {labels[wrong[0]]!r}")
    return labels


def _read_label_folder(folder: Path) -> dict[str, int]:
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.bin"))}
    if not paths:
        raise DataError(folder, "holds no labels: .bin files of one int32 each")
    found = {name: np.fromfile(path, np.int32).tolist() for name, path in paths.items()}
    wrong = [name for name, path in paths.items() if path.stat().st_size != 4 or found[name][0] < 0]
    _refuse(folder, "labels must be one int32 from 0 each", wrong, len(paths))
    return {name: label for name, (label,) in found.items()}


def class_names(label_file: Path, labels: dict[str, int], num_classes: int) -> list[str]:
    """Names of the classes: beside the labels as preprocess.py writes them, else of the images' folders, else numbers.

    Args:
        label_file: whose folder holds the names.
        labels: what it says.
        num_classes: how many names are wanted.
    """
    with contextlib.suppress(OSError, ValueError):
        names = json.loads((label_file.parent / CLASS_FILE).read_text(encoding="utf-8"))
        if isinstance(names, list) and len(names) == num_classes and all(isinstance(name, str) for name in names):
            return names
    folders: dict[int, set[str]] = {}
    for image, label in labels.items():
        folders.setdefault(label, set()).add(image.rpartition("/")[0].partition("/")[0])
    only = {label: names.pop() for label, names in folders.items() if len(names) == 1}
    if len(set(only.values())) < len(only):
        only = {}
    return [only.get(label) or str(label) for label in range(num_classes)]


def read_logits(result_dir: Path, images: list[str]) -> np.ndarray:
    """The runner's logits (N, K) float32, in the order of ``images``.

    Raises:
        DataError: results that are missing, left over, of another length than the others, or not finite.
    """
    if not result_dir.is_dir():
        raise DataError("result_dir", "no such folder", result_dir)
    wanted = {image: f"{name}_0.bin" for image, name in input_names(images).items()}
    present = {path.relative_to(result_dir).as_posix() for path in result_dir.rglob("*_0.bin")}
    _refuse(result_dir, "results are missing", sorted(set(wanted.values()) - present), len(wanted))
    _refuse(result_dir, "holds results of other images", sorted(present - set(wanted.values())), len(present))
    rows = [np.fromfile(result_dir / wanted[image], np.float32) for image in images]
    sizes = [os.path.getsize(result_dir / wanted[image]) for image in images]
    usual = Counter(sizes).most_common(1)[0][0]
    bad = [wanted[image] for image, size in zip(images, sizes, strict=True) if size != usual or size % 4 or not size]
    _refuse(result_dir, f"results do not have the {usual} bytes of the others", bad, len(images))
    logits_NK = np.stack(rows)
    broken = [wanted[image] for image, row in zip(images, logits_NK, strict=True) if not np.isfinite(row).all()]
    _refuse(result_dir, "results are not finite", broken, len(images))
    return logits_NK


def postprocess(config: PostprocessConfig) -> TopCounts:
    """Accuracy of the runner's results, in the zoo's lines, then by class; the classes' tables go to two files, too.

    Raises:
        DataError: labels or results that are missing, left over or damaged.
    """
    label_file = Path(config.label_file)
    labels = read_labels(label_file)
    images = list(labels)
    logits_NK = read_logits(Path(config.result_dir), images)
    label_N = np.array([labels[image] for image in images])
    if label_N.max() >= logits_NK.shape[1]:
        raise DataError(config.label_file, f"labels must be below the {logits_NK.shape[1]} classes", label_N.max())
    prediction_N = predictions(logits_NK, label_N)
    counts = counts_of(prediction_N)
    # Two blanks, as the zoo prints them and log readers expect.
    print(f"Top1 acc:  {counts.top1_accuracy}")
    print(f"Top5 acc:  {counts.top5_accuracy}")
    if config.dataset_name == "cifar10" or label_file.is_dir():
        # The line of the zoo's ViT, whose labels are a folder.
        share = f"acc={100 * counts.top1_accuracy:.2f}%"
        print(f"after allreduce eval: top1_correct={counts.top1}, tot={counts.total}, {share}")
    names, output = class_names(label_file, labels, logits_NK.shape[1]), Path(config.output_dir)
    rows = class_rows(prediction_N, names)
    write_class_csv(output, rows)
    write_confusion_csv(output, prediction_N, names)
    print("\n".join(["", *table_lines(rows), "", *confusion_lines(prediction_N, names)]))
    return counts


def _refuse(folder: Path, rule: str, names: list[str], total: int) -> None:
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise DataError(folder, f"{rule}: {len(names)} of {total}", ", ".join(names[:_NAMED]) + more)
