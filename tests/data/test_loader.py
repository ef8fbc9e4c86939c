"""Batches are a pure function of (seed, step): whatever the number of workers, wherever a run starts."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from src.data.color_jitter import ColorJitter
from src.data.image_source import ImageList
from src.data.loader import EvalBatches, TrainBatches, open_reader, read_eval
from src.data.mixup import Mixup
from src.data.random_erasing import RandomErasing
from src.data.random_numbers import SampleRandom
from src.data.sources import list_class_folders
from src.data.transforms import EvalTransform, TrainTransform, read_image
from src.data.workers import new_arrays
from src.errors import ConfigError, DataError
from tests.data.images import picture, write_folders

HALF = (0.5, 0.5, 0.5)
TRAIN = TrainTransform(8, "random_resized", (0.08, 1.0), (3 / 4, 4 / 3), 4, 0.5, "random", HALF, HALF)
PLAIN = TrainTransform(8, "none", (0.08, 1.0), (3 / 4, 4 / 3), 4, 0.0, "bicubic", HALF, HALF)
EVAL = EvalTransform(8, 1.0, "bicubic", "shorter", HALF, HALF)
LABELS = Mixup(label_smoothing=0.0, num_classes=3)
MIXED = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, mode="elem", num_classes=3)


@pytest.fixture
def images() -> ImageList:
    return list_class_folders(write_folders(Path("data"), {"ant": 5, "bee": 8, "cat": 10}))


def train_batches(images: ImageList, batch_size: int = 4, seed: int = 0, **changed) -> TrainBatches:
    keys = dict(transform=TRAIN, mixup=LABELS) | changed
    return TrainBatches(images, keys.pop("transform"), keys.pop("mixup"), batch_size, seed, **keys)


def batch(batches: TrainBatches | EvalBatches, step: int) -> tuple[np.ndarray, ...]:
    arrays = new_arrays(batches.layout)
    batches.fill(step, arrays)
    return arrays


def collect(batches: TrainBatches, first: int, last: int, workers: int = 0) -> list[tuple[bytes, bytes]]:
    with open_reader(workers, batches) as reader:
        return [(image.tobytes(), target.tobytes()) for image, target in reader.read("train", range(first, last))]


def test_batches_have_the_promised_forms(images):
    image_BCYX, target_BK = batch(train_batches(images), 0)
    assert (image_BCYX.shape, image_BCYX.dtype) == ((4, 3, 8, 8), np.float32)
    assert (target_BK.shape, target_BK.dtype) == ((4, 3), np.float32)
    assert sorted(np.unique(target_BK)) == [0, 1]
    assert (target_BK.sum(1) == 1).all()


ALL_ON = dict(
    transform=TrainTransform(
        *(8, "random_resized", (0.08, 1.0), (3 / 4, 4 / 3), 4, 0.5, "random", HALF, HALF),
        jitter=ColorJitter(0.4, 0.4, 0.4),
        erasing=RandomErasing(0.5, "pixel"),
    ),
    mixup=MIXED,
    aug_repeats=2,
)


@pytest.mark.parametrize("workers", [1, 2, 100])
def test_workers_change_nothing(images, workers):
    batches = train_batches(images, **ALL_ON)
    assert collect(batches, 0, 12, workers) == collect(batches, 0, 12)


def test_a_run_that_starts_later_sees_the_same_batches(images):
    whole = collect(train_batches(images, **ALL_ON), 0, 12)
    assert collect(train_batches(images, **ALL_ON), 7, 12) == whole[7:]
    assert collect(train_batches(images, **ALL_ON), 12, 12) == []
    # In any order, too.
    batches = train_batches(images, **ALL_ON)
    for step in (11, 0, 6):
        assert batch(batches, step)[0].tobytes() == whole[step][0]


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_ranks_share_the_rows_of_a_step(images, num_ranks):
    plain = {**ALL_ON, "mixup": LABELS}
    whole = train_batches(images, 2 * num_ranks, **plain)
    ranks = [train_batches(images, 2, rank=rank, num_ranks=num_ranks, **plain) for rank in range(num_ranks)]
    assert {one.steps_per_epoch for one in ranks} == {whole.steps_per_epoch}
    for step in range(2 * whole.steps_per_epoch):
        parts = [batch(one, step) for one in ranks]
        for array, shares in zip(batch(whole, step), zip(*parts, strict=True), strict=True):
            assert np.array_equal(array, np.stack(shares, 1).reshape(array.shape))


def test_each_rank_mixes_in_its_own_way(images):
    ranks = [train_batches(images, 4, mixup=MIXED, rank=rank, num_ranks=2) for rank in (0, 1)]
    plain = [train_batches(images, 4, mixup=Mixup(num_classes=3), rank=rank, num_ranks=2) for rank in (0, 1)]
    mixed, targets = ([batch(one, 0) for one in group] for group in (ranks, plain))
    shares = [mix[1].max(1) / plain[1].max(1) for mix, plain in zip(mixed, targets, strict=True)]
    assert not np.allclose(*shares)


@pytest.mark.parametrize("num_ranks", [2, 5])
def test_ranks_evaluate_every_image_once(images, num_ranks):
    found = []
    for rank in range(num_ranks):
        batches = EvalBatches(images, EVAL, 3, rank=rank, num_ranks=num_ranks)
        assert len(batches) == -(-23 // (3 * num_ranks))
        for step in range(len(batches)):
            image_BCYX, _, is_padding_B = batch(batches, step)
            found += [image_CYX.tobytes() for image_CYX in image_BCYX[~is_padding_B]]
    assert sorted(found) == sorted(EVAL(images.read(i)).tobytes() for i in range(len(images)))


def test_seed_and_epoch_make_other_batches(images):
    whole = collect(train_batches(images), 0, 10)
    assert collect(train_batches(images, seed=1), 0, 10) != whole
    assert len({content for content, _ in whole}) == 10


def test_every_row_of_every_epoch_is_augmented_anew():
    folder = write_folders(Path("equal"), {"ant": 4, "bee": 4})
    for path in folder.rglob("*.png"):
        picture(0, 40, 40).save(path)
    batches = train_batches(list_class_folders(folder), mixup=Mixup(num_classes=2))
    crops = {image_CYX.tobytes() for step in range(6) for image_CYX in batch(batches, step)[0]}
    assert len(crops) == 6 * 4


def rows(images: ImageList, batches: TrainBatches, first: int, last: int) -> list[int]:
    """Indices of the images, told by their content under the transform `PLAIN`."""
    known = {PLAIN(read_image(images.file(i)), SampleRandom(0, 0, 0)).tobytes(): i for i in range(len(images))}
    found = []
    for step in range(first, last):
        for image_CYX, target_K in zip(*batch(batches, step), strict=True):
            found.append(known[image_CYX.tobytes()])
            assert target_K.argmax() == images.labels[found[-1]]
    return found


def test_an_epoch_holds_each_image_at_most_once_and_drops_the_rest(images):
    batches = train_batches(images, transform=PLAIN)
    assert batches.steps_per_epoch == 5
    epochs = [rows(images, batches, first, first + 5) for first in (0, 5)]
    assert all(len(set(epoch)) == 20 for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_repeats_come_in_a_row_and_the_epoch_stays_as_long(images):
    batches = train_batches(images, transform=PLAIN, aug_repeats=3)
    assert batches.steps_per_epoch == 5
    epoch = rows(images, batches, 0, 5)
    assert epoch[:18:3] == epoch[1:18:3] == epoch[2:18:3]
    assert set(Counter(epoch[:18]).values()) == {3}
    cropped = batch(train_batches(images, aug_repeats=3), 0)[0]
    assert len({image_CYX.tobytes() for image_CYX in cropped}) == 4


def test_mixing_ends_with_its_epoch(images):
    batches = train_batches(images, mixup=MIXED, mixup_off_epoch=1)
    plain = train_batches(images, mixup=Mixup(num_classes=3))
    assert collect(batches, 0, 5) != collect(plain, 0, 5)
    assert collect(batches, 5, 15) == collect(plain, 5, 15)


def test_odd_batches_cannot_be_mixed(images):
    with pytest.raises(ConfigError, match=r"^batch_size: must be even with mix_up or cutmix\. Received: 5$"):
        train_batches(images, batch_size=5, mixup=MIXED)


def test_a_batch_larger_than_the_set_is_refused(images):
    with pytest.raises(DataError, match=r"^batch_size: must be at most the 23 training images. Received: 24"):
        train_batches(images, batch_size=24)
    assert train_batches(images, batch_size=23).steps_per_epoch == 1


@pytest.mark.parametrize("batch_size", [1, 4, 23, 50])
@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_counts_every_image_once_in_order(images, batch_size, workers):
    contents, labels = [], []
    with open_reader(workers, val=EvalBatches(images, EVAL, batch_size)) as reader:
        for one in read_eval(reader):
            assert one.image_BCYX.shape == (batch_size, 3, 8, 8)
            real = ~one.is_padding_B
            contents += [image_CYX.tobytes() for image_CYX in one.image_BCYX[real]]
            labels += one.label_B[real].tolist()
            assert not one.image_BCYX[~real].any()
    assert labels == list(images.labels)
    assert contents == [EVAL(read_image(images.file(i))).tobytes() for i in range(len(images))]


# ---------------------------------------------------------------------------------------------------------------------
# Images that cannot be read


@pytest.fixture
def broken(images) -> Path:
    path = images.file(7)
    path.write_bytes(path.read_bytes()[:40])
    return path


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_a_data_error_with_its_path(images, broken, workers):
    with open_reader(workers, train_batches(images), EvalBatches(images, EVAL, 4)) as reader:
        with pytest.raises(DataError, match=rf"^{broken}: ") as caught:
            list(read_eval(reader))
        assert caught.value.exit_code == 3
        with pytest.raises(DataError, match=rf"^{broken}: "):
            list(reader.read("train", range(30)))
    assert not list(Path().glob("*abnormal*"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_left_out_on_request(images, broken, workers):
    with open_reader(workers, val=EvalBatches(images, EVAL, 4, on_bad_image="skip")) as reader:
        found = [label for one in read_eval(reader) for label in one.label_B[~one.is_padding_B]]
        assert found == [label for index, label in enumerate(images.labels) if index != 7]
        (line,) = reader.left_out
        assert line.startswith(f"{broken}: ")


def test_another_image_takes_the_place_of_a_damaged_one(images):
    before = rows(images, train_batches(images, transform=PLAIN), 0, 5)
    known = {PLAIN(images.read(i), SampleRandom(0, 0, 0)).tobytes(): i for i in range(len(images))}
    place = 6
    broken = images.file(before[place])
    broken.write_bytes(b"no image")
    batches = train_batches(images, transform=PLAIN, on_bad_image="skip")
    arrays, left_out, after = new_arrays(batches.layout), [], []
    for step in range(5):
        left_out += batches.fill(step, arrays)
        after += [known[image_CYX.tobytes()] for image_CYX in arrays[0]]
    assert after == [*before[:place], before[place + 1], *before[place + 1 :]]
    assert left_out == [f"{broken}: not an image"]


def test_nothing_but_damaged_images(images):
    for index in range(len(images)):
        images.file(index).write_bytes(b"")
    with pytest.raises(DataError, match=r"^on_bad_image: no image can be read, the first one says\. Received: data/"):
        batch(train_batches(images, on_bad_image="skip"), 0)


def test_an_image_that_vanishes_is_a_data_error(images):
    images.file(0).unlink()
    with pytest.raises(DataError, match=r"^data/ant/000.png: cannot be decoded: "):
        batch(EvalBatches(images, EVAL, 4), 0)
