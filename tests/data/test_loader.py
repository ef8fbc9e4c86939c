"""Batches are a pure function of (seed, step): whatever the number of workers, wherever a run starts."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data.auto_augment import parse_policy
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


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize(("batch_size", "num_ranks", "accumulation"), [(4, 2, 1), (2, 3, 1), (4, 1, 2), (2, 2, 2)])
def test_ranks_and_accumulated_steps_are_parts_of_one_batch(images, batch_size, num_ranks, accumulation, mode):
    keys = {**ALL_ON, "mixup": replace(MIXED, mode=mode)}
    shares = dict(num_ranks=num_ranks, accumulation=accumulation)
    whole = train_batches(images, batch_size * num_ranks * accumulation, **keys)
    ranks = [train_batches(images, batch_size, rank=rank, **shares, **keys) for rank in range(num_ranks)]
    assert {one.steps_per_epoch for one in ranks} == {whole.steps_per_epoch * accumulation}
    for update in range(2 * whole.steps_per_epoch):
        expected = batch(whole, update)
        found = new_arrays(whole.layout)
        all_rows = []
        for one in ranks:
            for step in range(update * accumulation, (update + 1) * accumulation):
                rows_B = one.rows_of_update(step)
                all_rows += rows_B.tolist()
                for array, part in zip(found, batch(one, step), strict=True):
                    array[rows_B] = part
        assert sorted(all_rows) == list(range(whole.batch_size))
        assert all(np.array_equal(*arrays) for arrays in zip(expected, found, strict=True))


def test_rows_of_an_odd_batch(images):
    ranks = [train_batches(images, 5, rank=rank, num_ranks=2) for rank in (0, 1)]
    assert [one.rows_of_update(0).tolist() for one in ranks] == [[0, 2, 4, 7, 9], [1, 3, 5, 6, 8]]


@pytest.mark.parametrize("parts", [2, 3, 5])
@pytest.mark.parametrize("batch_size", [4, 6, 10])
def test_a_batch_may_be_filled_in_parts(images, batch_size, parts):
    for batches in (train_batches(images, batch_size, **ALL_ON), EvalBatches(images, EVAL, batch_size)):
        for step in (0, 1, 2):
            arrays = new_arrays(batches.layout)
            for which in reversed(range(parts)):
                batches.fill(step, arrays, (which, parts))
            for array, expected in zip(arrays, batch(batches, step), strict=True):
                assert np.array_equal(array, expected)


def test_two_hundred_batches_are_the_same_however_they_are_read():
    """Of 600 pictures through every augmentation: in worker processes, from the middle, on ranks, accumulated."""
    images = list_class_folders(write_folders(Path("many"), {"ant": 200, "bee": 200, "cat": 200}))
    transform = replace(
        TRAIN,
        policy=parse_policy("rand-m9-mstd0.5-inc1", image_size=8, mean=HALF, interpolation="bicubic"),
        erasing=RandomErasing(0.25, "pixel"),
    )
    keys = dict(transform=transform, mixup=replace(MIXED, mode="batch"), mixup_off_epoch=3)
    whole = train_batches(images, 8, **keys)
    digests = [hashlib.sha256(image + target).hexdigest() for image, target in collect(whole, 0, 200)]
    assert len(set(digests)) == 200
    for workers in (1, 2, 3):
        read = collect(train_batches(images, 8, **keys), 0, 200, workers)
        assert [hashlib.sha256(image + target).hexdigest() for image, target in read] == digests
    later = collect(train_batches(images, 8, **keys), 123, 200, 2)
    assert [hashlib.sha256(image + target).hexdigest() for image, target in later] == digests[123:]
    for shares in (dict(num_ranks=2), dict(num_ranks=4), dict(accumulation=2)):
        num_ranks, accumulation = shares.get("num_ranks", 1), shares.get("accumulation", 1)
        size = 8 // (num_ranks * accumulation)
        ranks = [train_batches(images, size, rank=rank, **shares, **keys) for rank in range(num_ranks)]
        for update in range(200):
            arrays = new_arrays(whole.layout)
            for one in ranks:
                for step in range(update * accumulation, (update + 1) * accumulation):
                    for array, part in zip(arrays, batch(one, step), strict=True):
                        array[one.rows_of_update(step)] = part
            assert hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest() == digests[update]


@pytest.mark.parametrize("train_crop", ["pad", "none"])
@pytest.mark.parametrize("padding", [0, 3, 11])
def test_small_pictures_need_no_pil(train_crop, padding, monkeypatch):
    source = SyntheticPixels()
    transform = replace(TRAIN, train_crop=train_crop, crop_padding=padding, erasing=RandomErasing(0.5, "rand"))
    assert transform.takes_pixels(8, 8)
    assert not transform.takes_pixels(8, 9)
    keys = dict(transform=transform, mixup=MIXED)
    quick = collect(train_batches(source, **keys), 0, 20)
    monkeypatch.setattr(TrainTransform, "takes_pixels", lambda *_: False)
    assert collect(train_batches(source, **keys), 0, 20) == quick


class SyntheticPixels:
    """Noise that lies in memory."""

    root, class_names, labels = Path("noise"), ("ant", "bee", "cat"), [0, 1, 2] * 8
    paths = tuple(map(str, range(24)))
    pixels_NCYX = np.random.default_rng(0).integers(0, 256, (24, 3, 8, 8), np.uint8)

    def __len__(self) -> int:
        return 24

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(np.ascontiguousarray(self.pixels(index).transpose(1, 2, 0)))

    def pixels(self, index: int) -> np.ndarray:
        return self.pixels_NCYX[index]


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
