"""What the C++ runner reads and leaves: names of its files, labels, logits, accuracy. Needs numpy alone.

Shape letters: N images, K classes.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from pydantic import Field

from src import schema
from src.errors import DataError
from src.metrics import TopCounts, top_counts

_NAMED = 5


class PostprocessConfig(schema.Section):
    """postprocess.py: top-1 and top-5 from the C++ runner's results."""

    dataset_name: Literal["imagenet2012", "folder", "cifar10"] = Field("imagenet2012", description="kind of data set")
    result_dir: str = Field("./result_Files", description="the runner's results")
    label_file: str = Field("./preprocess_Result/imagenet_label.json", description="labels that preprocess.py wrote")


def input_names(images: list[str]) -> dict[str, str]:
    """Image (relative path with suffix) -> its name for the runner, without suffix.

    ``cat/1.jpg`` is ``cat/1``; where a folder holds ``1.png`` too, both keep their suffix.
    """
    stems = {image: str(PurePosixPath(image).with_suffix("")) for image in images}
    taken = Counter([*stems.values(), *stems])
    return {image: stem if taken[stem] == 1 else image for image, stem in stems.items()}


def read_labels(label_file: Path) -> dict[str, int]:
    """Image (relative path) -> class index, as preprocess.py wrote it.

    Raises:
        DataError: missing, empty or not such a file.
    """
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
    """Accuracy of the runner's results, in the zoo's two lines.

    Raises:
        DataError: labels or results that are missing, left over or damaged.
    """
    labels = read_labels(Path(config.label_file))
    images = list(labels)
    logits_NK = read_logits(Path(config.result_dir), images)
    label_N = np.array([labels[image] for image in images])
    if label_N.max() >= logits_NK.shape[1]:
        raise DataError(config.label_file, f"labels must be below the {logits_NK.shape[1]} classes", label_N.max())
    counts = top_counts(logits_NK, label_N)
    # Two blanks, as the zoo prints them and log readers expect.
    print(f"Top1 acc:  {counts.top1_accuracy}")
    print(f"Top5 acc:  {counts.top5_accuracy}")
    return counts


def _refuse(folder: Path, rule: str, names: list[str], total: int) -> None:
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise DataError(folder, f"{rule}: {len(names)} of {total}", ", ".join(names[:_NAMED]) + more)
