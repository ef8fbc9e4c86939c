"""Batches of a split, as a pure function of (seed, step).

Shape letters: B batch, C channels, Y X rows and columns, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import mindspore.dataset as ds
import numpy as np

from src.data.random_numbers import Stream, generator
from src.data.sources import ImageList
from src.data.transforms import EvalTransform, TrainTransform, read_image
from src.device import num_cores
from src.errors import DataError


@dataclass(frozen=True)
class EvalBatch:
    """Images in file order; the last batch is filled up, and says which rows are filling."""

    image_BCYX: np.ndarray
    label_B: np.ndarray
    is_padding_B: np.ndarray


class TrainBatches:
    """Random access to training batches: ``batches[step]`` is (image_BCYX float32, label_B int32).

    An epoch is a new permutation without its last partial batch, as every zoo recipe has it.
    """

    def __init__(self, images: ImageList, transform: TrainTransform, batch_size: int, seed: int):
        if len(images) < batch_size:
            raise DataError("batch_size", f"must be at most the {len(images)} training images", batch_size)
        self.images, self.transform, self.batch_size, self.seed = images, transform, batch_size, seed
        self.steps_per_epoch = len(images) // batch_size
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        epoch, step_in_epoch = divmod(int(step), self.steps_per_epoch)
        order = self._epoch_order(epoch)
        first = step_in_epoch * self.batch_size
        size = self.transform.image_size
        image_BCYX = np.empty((self.batch_size, 3, size, size), np.float32)
        label_B = np.empty(self.batch_size, np.int32)
        for row in range(self.batch_size):
            index = int(order[first + row])
            random = generator(self.seed, Stream.TRANSFORM, epoch, first + row)
            image_BCYX[row] = self.transform(read_image(self.images.file(index)), random)
            label_B[row] = self.images.labels[index]
        return image_BCYX, label_B

    def _epoch_order(self, epoch: int) -> np.ndarray:
        # One attribute holds both, so that threads see a matching pair.
        cached_epoch, order = self._order
        if cached_epoch != epoch:
            order = generator(self.seed, Stream.ORDER, epoch).permutation(len(self.images))
            self._order = (epoch, order)
        return order


class EvalBatches:
    """Random access to evaluation batches: every image once, in order."""

    def __init__(self, images: ImageList, transform: EvalTransform, batch_size: int):
        self.images, self.transform, self.batch_size = images, transform, batch_size

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        first = int(step) * self.batch_size
        size = self.transform.image_size
        image_BCYX = np.zeros((self.batch_size, 3, size, size), np.float32)
        label_B = np.zeros(self.batch_size, np.int32)
        rows = min(self.batch_size, len(self.images) - first)
        for row in range(rows):
            image_BCYX[row] = self.transform(read_image(self.images.file(first + row)))
            label_B[row] = self.images.labels[first + row]
        return image_BCYX, label_B, np.arange(self.batch_size) >= rows


def train_iterator(batches: TrainBatches, first_step: int, last_step: int, workers: int) -> Iterator[tuple]:
    """(image_BCYX, label_B) of the steps in [first_step, last_step), read ahead by threads."""
    return _read_ahead(batches, range(first_step, last_step), ["image", "label"], workers)


def eval_iterator(batches: EvalBatches, workers: int) -> Iterator[EvalBatch]:
    """All evaluation batches, read ahead by threads."""
    for arrays in _read_ahead(batches, range(len(batches)), ["image", "label", "is_padding"], workers):
        yield EvalBatch(*arrays)


class _KeepError:
    """Random access that remembers what went wrong: MindSpore re-raises a worker's error as text."""

    def __init__(self, batches: TrainBatches | EvalBatches, steps: range):
        self.batches, self.steps, self.error = batches, steps, None

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> tuple:
        try:
            return self.batches[self.steps[int(index)]]
        except Exception as error:
            self.error = self.error or error
            raise


def _read_ahead(batches: TrainBatches | EvalBatches, steps: range, columns: list[str], workers: int) -> Iterator[tuple]:
    if not steps:
        return
    source = _KeepError(batches, steps)
    workers = min(workers, num_cores())  # MindSpore refuses more than there are
    # One row is one whole batch: a row per sample costs a third of the speed.
    dataset = ds.GeneratorDataset(
        source, columns, shuffle=False, num_parallel_workers=workers, python_multiprocessing=False
    )
    try:
        yield from dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)
    except RuntimeError:
        if source.error is not None:
            raise source.error from None
        raise
