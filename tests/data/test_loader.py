"""Batches are a pure function of (seed, step): whatever the number of threads, wherever a run starts."""

from pathlib import Path

import numpy as np
import pytest

from src.data.loader import EvalBatches, TrainBatches, eval_iterator, train_iterator
from src.data.sources import ImageList, list_class_folders
from src.data.transforms import EvalTransform, TrainTransform, read_image
from src.errors import DataError
from tests.data.images import picture, write_folders

HALF = (0.5, 0.5, 0.5)
TRAIN = TrainTransform(8, "random_resized", (0.08, 1.0), (3 / 4, 4 / 3), 4, 0.5, "random", HALF, HALF)
EVAL = EvalTransform(8, 1.0, "bicubic", "shorter", HALF, HALF)


@pytest.fixture
def images() -> ImageList:
    return list_class_folders(write_folders(Path("data"), {"ant": 5, "bee": 8, "cat": 10}))


def collect(batches: TrainBatches, first: int, last: int, workers: int = 1) -> list[tuple[bytes, list[int]]]:
    return [(image.tobytes(), label.tolist()) for image, label in train_iterator(batches, first, last, workers)]


def test_batches_have_the_promised_forms(images):
    image_BCYX, label_B = TrainBatches(images, TRAIN, 4, 0)[0]
    assert (image_BCYX.shape, image_BCYX.dtype) == ((4, 3, 8, 8), np.float32)
    assert (label_B.shape, label_B.dtype) == ((4,), np.int32)


@pytest.mark.parametrize("workers", [2, 4, 100])
def test_threads_change_nothing(images, workers):
    batches = TrainBatches(images, TRAIN, 4, 0)
    assert collect(batches, 0, 12, workers) == collect(batches, 0, 12)


def test_a_run_that_starts_later_sees_the_same_batches(images):
    whole = collect(TrainBatches(images, TRAIN, 4, 0), 0, 12)
    assert collect(TrainBatches(images, TRAIN, 4, 0), 7, 12) == whole[7:]
    assert collect(TrainBatches(images, TRAIN, 4, 0), 12, 12) == []
    # In any order, too.
    batches = TrainBatches(images, TRAIN, 4, 0)
    for step in (11, 0, 6):
        assert batches[step][0].tobytes() == whole[step][0]


def test_seed_and_epoch_make_other_batches(images):
    whole = collect(TrainBatches(images, TRAIN, 4, 0), 0, 10)
    assert collect(TrainBatches(images, TRAIN, 4, 1), 0, 10) != whole
    assert len({content for content, _ in whole}) == 10


def test_every_row_of_every_epoch_is_augmented_anew():
    folder = write_folders(Path("equal"), {"ant": 4, "bee": 4})
    for path in folder.rglob("*.png"):
        picture(0, 40, 40).save(path)
    batches = TrainBatches(list_class_folders(folder), TRAIN, 4, 0)
    crops = {image_CYX.tobytes() for image_BCYX, _ in train_iterator(batches, 0, 6, 1) for image_CYX in image_BCYX}
    assert len(crops) == 6 * 4


def test_an_epoch_holds_each_image_at_most_once_and_drops_the_rest(images):
    plain = TrainTransform(8, "none", (0.08, 1.0), (3 / 4, 4 / 3), 4, 0.0, "bicubic", HALF, HALF)
    batches = TrainBatches(images, plain, 4, 0)
    assert batches.steps_per_epoch == 5
    epochs = []
    for first in (0, 5):
        rows = [row for step in range(first, first + 5) for row in zip(*batches[step], strict=True)]
        contents = [image_CYX.tobytes() for image_CYX, _ in rows]
        assert len(set(contents)) == 20
        known = {plain(read_image(images.file(i)), np.random.default_rng()).tobytes(): i for i in range(len(images))}
        assert [images.labels[known[content]] for content in contents] == [int(label) for _, label in rows]
        epochs.append([known[content] for content in contents])
    assert epochs[0] != epochs[1]


def test_a_batch_larger_than_the_set_is_refused(images):
    with pytest.raises(DataError, match=r"^batch_size: must be at most the 23 training images. Received: 24"):
        TrainBatches(images, TRAIN, 24, 0)
    assert TrainBatches(images, TRAIN, 23, 0).steps_per_epoch == 1


@pytest.mark.parametrize("batch_size", [1, 4, 23, 50])
@pytest.mark.parametrize("workers", [1, 3])
def test_evaluation_counts_every_image_once_in_order(images, batch_size, workers):
    contents, labels = [], []
    batches = EvalBatches(images, EVAL, batch_size)
    for batch in eval_iterator(batches, workers):
        assert batch.image_BCYX.shape == (batch_size, 3, 8, 8)
        real = ~batch.is_padding_B
        contents += [image_CYX.tobytes() for image_CYX in batch.image_BCYX[real]]
        labels += batch.label_B[real].tolist()
        assert not batch.image_BCYX[~real].any()
    assert labels == list(images.labels)
    assert contents == [EVAL(read_image(images.file(i))).tobytes() for i in range(len(images))]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_image_is_a_data_error_with_its_path(images, workers):
    broken = images.file(7)
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(DataError, match=rf"^{broken}: ") as caught:
        list(eval_iterator(EvalBatches(images, EVAL, 4), workers))
    assert caught.value.exit_code == 3
    with pytest.raises(DataError, match=rf"^{broken}: "):
        collect(TrainBatches(images, TRAIN, 4, 0), 0, 30, workers)
    assert not list(Path().glob("*abnormal*"))


def test_an_image_that_vanishes_is_a_data_error(images):
    images.file(0).unlink()
    with pytest.raises(DataError, match=r"^data/ant/000.png: cannot be decoded: "):
        list(eval_iterator(EvalBatches(images, EVAL, 4), 2))
