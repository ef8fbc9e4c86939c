"""Batches of a split, as a pure function of (seed, step).

Shape letters: B batch, C channels, Y X rows and columns, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image

from src.data.image_source import Source
from src.data.mixup import Mixup
from src.data.random_numbers import SampleRandom, Stream, generator
from src.data.transforms import EvalTransform, TrainTransform
from src.data.workers import BatchReader, Layout
from src.device import num_cores
from src.errors import DataError

OnBadImage = Literal["error", "skip"]
# What a reader calls the two kinds of batches.
TRAIN, VAL = "train", "val"


@dataclass(frozen=True)
class EvalBatch:
    """Images in the source's order; the last batch is filled up, and says which rows are filling or were left out."""

    image_BCYX: np.ndarray
    label_B: np.ndarray
    is_padding_B: np.ndarray


class TrainBatches:
    """Training batches by step: image_BCYX and target_BK, both float32; a target's row is a distribution.

    An epoch is a new permutation without its last partial batch, as every zoo recipe has it. With ``aug_repeats`` an
    image comes that often in a row, each time augmented anew, and the epoch ends as early as without
    (https://arxiv.org/abs/1901.09335, as DeiT uses it).

    Args:
        source: images and labels.
        transform: of one image.
        mixup: of a batch.
        batch_size: rows of a batch.
        seed: of every random choice.
        aug_repeats: how often in a row an image comes.
        mixup_off_epoch: no mixing from this epoch on; 0 for never.
        on_bad_image: ``skip`` takes the next readable image in an unreadable one's place.
        rank: of this process among ``num_ranks``, which share a step's rows in turns: what all of them see does not
            depend on their number, but for the mixing, which is each rank's own.

    Raises:
        DataError: fewer images than a batch has.
        ConfigError: a batch of an odd size is to be mixed.
    """

    def __init__(
        self,
        source: Source,
        transform: TrainTransform,
        mixup: Mixup,
        batch_size: int,
        seed: int,
        *,
        aug_repeats: int = 1,
        mixup_off_epoch: int = 0,
        on_bad_image: OnBadImage = "error",
        rank: int = 0,
        num_ranks: int = 1,
    ):
        if len(source) < batch_size * num_ranks:
            received = batch_size if num_ranks == 1 else f"{batch_size} on {num_ranks} devices"
            raise DataError("batch_size", f"must be at most the {len(source)} training images", received)
        self.source, self.transform, self.mixup, self.batch_size, self.seed = source, transform, mixup, batch_size, seed
        self.aug_repeats, self.mixup_off_epoch, self.on_bad_image = aug_repeats, mixup_off_epoch, on_bad_image
        self.rank, self.num_ranks = rank, num_ranks
        self.steps_per_epoch = len(source) // (batch_size * num_ranks)
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))
        # What cannot be mixed is said now, not by a worker.
        mixup.draw(batch_size, (transform.image_size, transform.image_size), generator(seed, Stream.MIX, 0))

    @property
    def layout(self) -> Layout:
        """Of image_BCYX and target_BK."""
        B, size = self.batch_size, self.transform.image_size
        return ((B, 3, size, size), np.float32), ((B, self.mixup.num_classes), np.float32)

    def fill(self, step: int, arrays: tuple[np.ndarray, ...]) -> list[str]:
        """Write the batch of a step.

        Raises:
            DataError: an image that cannot be read, where that is an error.
        """
        image_BCYX, target_BK = arrays
        epoch, step_in_epoch = divmod(int(step), self.steps_per_epoch)
        order = self._epoch_order(epoch)
        label_B = np.empty(self.batch_size, np.int64)
        left_out: list[str] = []
        for row in range(self.batch_size):
            position = (step_in_epoch * self.batch_size + row) * self.num_ranks + self.rank
            image, index = self._readable(order, position, left_out)
            random = SampleRandom(self.seed, epoch, position)
            self.transform(image, random, image_BCYX[row])
            label_B[row] = self.source.labels[index]
        mixup = self.mixup
        if self.mixup_off_epoch and epoch >= self.mixup_off_epoch:
            mixup = replace(mixup, mixup_alpha=0.0, cutmix_alpha=0.0, cutmix_minmax=None)
        random = generator(self.seed, Stream.MIX, epoch, step_in_epoch * self.num_ranks + self.rank)
        plan = mixup.draw(self.batch_size, image_BCYX.shape[2:], random)
        target_BK[:] = mixup.apply(plan, image_BCYX, label_B)[1]
        return left_out

    def _readable(self, order: np.ndarray, position: int, left_out: list[str]) -> tuple[Image.Image, int]:
        for offset in range(len(order)):
            index = int(order[(position + offset) % len(order)])
            image = _read(self.source, index, self.on_bad_image, left_out)
            if image is not None:
                return image, index
        raise DataError("on_bad_image", "no image can be read, the first one says", left_out[0])

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            order = generator(self.seed, Stream.ORDER, epoch).permutation(len(self.source))
            self._order = (epoch, np.repeat(order, self.aug_repeats)[: len(order)])
        return self._order[1]


class EvalBatches:
    """Evaluation batches by step: image_BCYX float32, label_B int32, is_padding_B bool. Every image once, in order.

    Ranks take the images in turns, and as many batches each.
    """

    def __init__(
        self,
        source: Source,
        transform: EvalTransform,
        batch_size: int,
        *,
        on_bad_image: OnBadImage = "error",
        rank: int = 0,
        num_ranks: int = 1,
    ):
        self.source, self.transform, self.batch_size, self.on_bad_image = source, transform, batch_size, on_bad_image
        self.rank, self.num_ranks = rank, num_ranks

    def __len__(self) -> int:
        return -(-len(self.source) // (self.batch_size * self.num_ranks))

    @property
    def layout(self) -> Layout:
        """Of image_BCYX, label_B and is_padding_B."""
        B, size = self.batch_size, self.transform.image_size
        return ((B, 3, size, size), np.float32), ((B,), np.int32), ((B,), np.bool_)

    def fill(self, step: int, arrays: tuple[np.ndarray, ...]) -> list[str]:
        """Write the batch of a step; an image that is left out leaves its row as padding.

        Raises:
            DataError: an image that cannot be read, where that is an error.
        """
        image_BCYX, label_B, is_padding_B = arrays
        left_out: list[str] = []
        for row in range(self.batch_size):
            index = (int(step) * self.batch_size + row) * self.num_ranks + self.rank
            is_real = index < len(self.source)
            image = _read(self.source, index, self.on_bad_image, left_out) if is_real else None
            is_padding_B[row] = image is None
            label_B[row] = 0 if image is None else self.source.labels[index]
            image_BCYX[row] = 0.0 if image is None else self.transform(image)
        return left_out


def _read(source: Source, index: int, on_bad_image: OnBadImage, left_out: list[str]) -> Image.Image | None:
    """An image; nothing, and a line in ``left_out``, where it cannot be read and may be left out."""
    try:
        return source.read(index)
    except DataError as error:
        if on_bad_image == "error":
            raise
        left_out.append(str(error))
        return None


def open_reader(workers: int, train: TrainBatches | None = None, val: EvalBatches | None = None) -> BatchReader:
    """A reader of the batches that are given; more processes than cores only take memory."""
    batches = {name: one for name, one in ((TRAIN, train), (VAL, val)) if one is not None}
    return BatchReader(batches, min(workers, num_cores()))


def read_eval(reader: BatchReader) -> Iterator[EvalBatch]:
    """All evaluation batches."""
    for arrays in reader.read(VAL, range(len(reader.batches[VAL]))):
        yield EvalBatch(*arrays)
