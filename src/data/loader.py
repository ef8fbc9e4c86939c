"""Batches of a split, as a pure function of (seed, step).

Shape letters: B batch, C channels, Y X rows and columns, K classes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image

from src.data.image_source import PixelSource, Source
from src.data.mixup import Mixup, soft_targets
from src.data.random_numbers import SampleRandom, Stream, generator
from src.data.transforms import EvalTransform, TrainTransform
from src.data.workers import WHOLE, BatchReader, Layout, Part
from src.device import num_cores
from src.errors import DataError

# Images that cannot be read, of which more are only counted.
_SHOWN = 10

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

    An epoch is a new permutation without its last partial update, as every zoo recipe has it. With ``aug_repeats`` an
    image comes that often in a row, each time augmented anew, and the epoch ends as early as without
    (https://arxiv.org/abs/1901.09335, as DeiT uses it).

    An update of the weights may be made of several batches: of ``num_ranks`` processes and of ``accumulation`` steps of
    each. Together they hold exactly the rows, mixed in the same way, of one batch that many times larger.

    Args:
        source: images and labels.
        transform: of one image.
        mixup: of an update's batch.
        batch_size: rows of a batch.
        seed: of every random choice.
        aug_repeats: how often in a row an image comes.
        mixup_off_epoch: no mixing from this epoch on; 0 for never.
        on_bad_image: ``skip`` takes the next readable image in an unreadable one's place.
        rank: of this process among ``num_ranks``.
        num_ranks: processes that work on each update.
        accumulation: steps of one update.

    Raises:
        DataError: fewer images than an update has.
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
        accumulation: int = 1,
    ):
        self.source, self.transform, self.mixup, self.batch_size, self.seed = source, transform, mixup, batch_size, seed
        self.aug_repeats, self.mixup_off_epoch, self.on_bad_image = aug_repeats, mixup_off_epoch, on_bad_image
        self.rank, self.num_ranks, self.accumulation = rank, num_ranks, accumulation
        self.update_size = batch_size * num_ranks * accumulation
        if len(source) < self.update_size:
            parts = {"devices": num_ranks, "accumulation steps": accumulation}
            received = " x ".join([str(batch_size), *(f"{count} {name}" for name, count in parts.items() if count > 1)])
            raise DataError("batch_size", f"must be at most the {len(source)} training images", received)
        self.steps_per_epoch = len(source) // self.update_size * accumulation
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))
        self._pixels_suffice = isinstance(source, PixelSource) and transform.takes_pixels(*source.pixels(0).shape[1:])
        # What cannot be mixed is said now, not by a worker.
        mixup.draw(batch_size, (transform.image_size, transform.image_size), generator(seed, Stream.MIX, 0))

    @property
    def layout(self) -> Layout:
        """Of image_BCYX and target_BK."""
        B, size = self.batch_size, self.transform.image_size
        return ((B, 3, size, size), np.float32), ((B, self.mixup.num_classes), np.float32)

    def rows_of_update(self, step: int) -> np.ndarray:
        """Which row of its update's batch, in [0, update_size), each row of a step is.

        The rows i and B - 1 - i of every batch are mirrored in the update's batch, too: mixing never needs an image of
        another process or step.
        """
        shares = self.num_ranks * self.accumulation
        share = int(step) % self.accumulation * self.num_ranks + self.rank
        B = self.batch_size
        low = np.arange(-(-B // 2)) * shares + share
        return np.concatenate([low, self.update_size - 1 - low[: B // 2][::-1]])

    def fill(self, step: int, arrays: tuple[np.ndarray, ...], part: Part = WHOLE) -> list[str]:
        """Write the batch of a step, or a part of its rows: each together with its partner in mixing.

        Raises:
            DataError: an image that cannot be read, where that is an error.
        """
        image_BCYX, target_BK = arrays
        epoch, step_in_epoch = divmod(int(step), self.steps_per_epoch)
        update = step_in_epoch // self.accumulation
        order, rows_B = self._epoch_order(epoch), self.rows_of_update(step)
        label_B = np.empty(self.batch_size, np.int64)
        left_out: list[str] = []
        pairs, rows = _mirrored_rows(self.batch_size, part)
        for row in rows:
            position = update * self.update_size + int(rows_B[row])
            label_B[row] = self._fill_row(image_BCYX[row], SampleRandom(self.seed, epoch, position), order, left_out)
        mixup = self.mixup
        if self.mixup_off_epoch and epoch >= self.mixup_off_epoch:
            mixup = replace(mixup, mixup_alpha=0.0, cutmix_alpha=0.0, cutmix_minmax=None)
        random = generator(self.seed, Stream.MIX, epoch, update)
        plan = mixup.draw(self.update_size, image_BCYX.shape[2:], random).of_rows(rows_B)
        mixup.mix(plan, image_BCYX, pairs)
        target_BK[rows] = soft_targets(label_B[rows], mixup.num_classes, mixup.label_smoothing, plan.target_lam_B[rows])
        return left_out

    def _fill_row(self, out_CYX: np.ndarray, random: SampleRandom, order: np.ndarray, left_out: list[str]) -> int:
        """Write the image at a place of the epoch's order, or the next readable one; returns its label."""
        for offset in range(len(order)):
            index = int(order[(random.position + offset) % len(order)])
            if self._pixels_suffice:
                self.transform.of_pixels(self.source.pixels(index), random, out_CYX)
                return self.source.labels[index]
            image = _read(self.source, index, self.on_bad_image, left_out)
            if image is not None:
                self.transform(image, random, out_CYX)
                return self.source.labels[index]
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

    def fill(self, step: int, arrays: tuple[np.ndarray, ...], part: Part = WHOLE) -> list[str]:
        """Write the batch of a step, or a part of its rows; an image that is left out leaves its row as padding.

        Raises:
            DataError: an image that cannot be read, where that is an error.
        """
        image_BCYX, label_B, is_padding_B = arrays
        left_out: list[str] = []
        which, of = part
        for row in range(self.batch_size * which // of, self.batch_size * (which + 1) // of):
            index = (int(step) * self.batch_size + row) * self.num_ranks + self.rank
            is_real = index < len(self.source)
            image = _read(self.source, index, self.on_bad_image, left_out) if is_real else None
            is_padding_B[row] = image is None
            label_B[row] = 0 if image is None else self.source.labels[index]
            if image is None:
                image_BCYX[row] = 0.0
            else:
                self.transform(image, image_BCYX[row])
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


def _mirrored_rows(batch_size: int, part: Part) -> tuple[range, list[int]]:
    """A part's share of the pairs (i, B - 1 - i), and their rows in ascending order; the last part has the middle."""
    which, of = part
    half = batch_size // 2
    pairs = range(half * which // of, half * (which + 1) // of)
    middle = range(half, batch_size - half) if which == of - 1 else ()
    return pairs, [*pairs, *middle, *range(batch_size - pairs.stop, batch_size - pairs.start)]


def open_reader(workers: int, train: TrainBatches | None = None, val: EvalBatches | None = None) -> BatchReader:
    """A reader of the batches that are given; more processes than cores only take memory."""
    batches = {name: one for name, one in ((TRAIN, train), (VAL, val)) if one is not None}
    return BatchReader(batches, min(workers, num_cores()))


def read_eval(reader: BatchReader) -> Iterator[EvalBatch]:
    """All evaluation batches."""
    for arrays in reader.read(VAL, range(len(reader.batches[VAL]))):
        yield EvalBatch(*arrays)


def print_left_out(left_out: Iterable[str], told: int = 0) -> None:
    """How many images could not be read, and the first few of them; without those ``told`` that were told before."""
    new = list(left_out)[told:]
    if new:
        print(f"warning: left out, cannot be read: {len(new)}{' more' * (told > 0)} of the images", file=sys.stderr)
        for line in new[:_SHOWN]:
            print(f"warning: {line}", file=sys.stderr)
        if len(new) > _SHOWN:
            print(f"warning: and {len(new) - _SHOWN} more", file=sys.stderr)
