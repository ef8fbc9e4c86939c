"""This project's batches of a case, as train.py and eval.py read them, and batches that are only decoded.

Shape letters: B batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from src.benchmark.data_images import ArrayImages, jpeg_labels, jpeg_paths
from src.data.image_source import ImageList, Source
from src.data.loader import EvalBatches, TrainBatches
from src.data.mixup import Mixup
from src.data.transforms import EvalTransform, TrainTransform
from src.data.workers import WHOLE, BatchReader, Layout, Part
from src.schema import AugmentConfig, DataConfig

# What a reader calls its one kind of batches here.
KIND = "measured"


class DecodedBatches:
    """As many images as a batch of the case has, decoded and thrown away.

    Args:
        source: of the images, read in its order.
        batch_size: rows of a batch.
        drops_partial: whether the last partial batch is left out.
    """

    def __init__(self, source: Source, batch_size: int, drops_partial: bool):
        self.source, self.batch_size = source, batch_size
        self.num_images = len(source) - (len(source) % batch_size if drops_partial else 0)

    def __len__(self) -> int:
        return -(-self.num_images // self.batch_size)

    @property
    def layout(self) -> Layout:
        """Whether there was an image, for each row."""
        return (((self.batch_size,), np.bool_),)

    def fill(self, step: int, arrays: tuple[np.ndarray, ...], part: Part = WHOLE) -> list[str]:
        """Decode the images of a step, or a part of them."""
        (is_image_B,) = arrays
        which, of = part
        for row in range(self.batch_size * which // of, self.batch_size * (which + 1) // of):
            index = step * self.batch_size + row
            is_image_B[row] = index < self.num_images
            if is_image_B[row]:
                self.source.read(index)
        return []


def build_own(request: dict[str, Any]) -> TrainBatches | EvalBatches | DecodedBatches:
    """The batches of a request of `src.benchmark.data_runner`."""
    source, batch_size, image_size = _open_source(request), request["batch_size"], request["image_size"]
    if request["formulation"] == "decode":
        return DecodedBatches(source, batch_size, request["training"])
    given = {key: request[key] for key in ("crop_pct", "mean", "std")}
    data, augment = DataConfig(interpolation="bicubic", **given), AugmentConfig(**request["augment"])
    if not request["training"]:
        return EvalBatches(source, EvalTransform.from_config(data, image_size), batch_size)
    smoothing, num_classes = augment.label_smoothing, request["num_classes"]
    mixup = Mixup(augment.mix_up, augment.cutmix, label_smoothing=smoothing, num_classes=num_classes)
    return TrainBatches(source, TrainTransform.from_config(data, augment, image_size), mixup, batch_size, seed=0)


class OwnEpochs:
    """Iterate it for one epoch after the other; nothing is read ahead of an epoch.

    Args:
        reader: of batches named `KIND`.
    """

    def __init__(self, reader: BatchReader):
        self.reader, self.epochs = reader, itertools.count()

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        """Arrays whose first axis is the batch, and how many images are in them."""
        batches = self.reader.batches[KIND]
        if isinstance(batches, TrainBatches):
            epoch = next(self.epochs)
            steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
            for image_BCYX, _ in self.reader.read(KIND, steps):
                yield image_BCYX, len(image_BCYX)
        elif isinstance(batches, EvalBatches):
            for image_BCYX, _, is_padding_B in self.reader.read(KIND, range(len(batches))):
                yield image_BCYX, int((~is_padding_B).sum())
        else:
            for (is_image_B,) in self.reader.read(KIND, range(len(batches))):
                yield is_image_B, int(is_image_B.sum())


def _open_source(request: dict[str, Any]) -> Source:
    folder, num_images, num_classes = Path(request["folder"]), request["num_images"], request["num_classes"]
    if not request["is_jpeg"]:
        return ArrayImages(folder, num_classes)
    return ImageList(folder, jpeg_paths(num_images), jpeg_labels(num_images), tuple(map(str, range(num_classes))))
