"""From a file to the network's input: evaluation equals timm, training is random in the stated ways alone."""

import io
import json
import math
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from src.data.auto_augment import parse_policy
from src.data.color_jitter import ColorJitter
from src.data.random_numbers import SampleRandom, Stream
from src.data.sources import open_split
from src.data.transforms import EvalTransform, TrainTransform, normalize, random_resized_box, read_image
from src.errors import DataError
from src.schema import AugmentConfig, DataConfig
from tests.data.images import picture
from tests.oracles import PROJECT, read_arrays, requires_oracles

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
CROPS = json.loads((PROJECT / "tests/goldens/crops.json").read_text())


def evaluation(image_size: int, crop_pct: float, **changed) -> EvalTransform:
    keys = dict(interpolation="bicubic", resize_mode="shorter", mean=MEAN, std=STD)
    return EvalTransform(image_size, crop_pct, **{**keys, **changed})


def training(**changed) -> TrainTransform:
    keys = dict(train_crop="random_resized", crop_scale=(0.08, 1.0), crop_ratio=(3 / 4, 4 / 3), crop_padding=4)
    keys |= dict(hflip=0.5, interpolation="bicubic", mean=HALF, std=HALF, image_size=16)
    return TrainTransform(**{**keys, **changed})


def random(position: int = 0) -> SampleRandom:
    return SampleRandom(0, 0, position)


def crop_numbers(position: int = 0) -> np.random.Generator:
    return random(position).stream(Stream.TRANSFORM)


# ---------------------------------------------------------------------------------------------------------------------
# Evaluation


@requires_oracles
@pytest.mark.parametrize("name", ["timm_224_0.875", "timm_224_0.9", "timm_32_1"])
def test_evaluation_equals_timm(name):
    stored = read_arrays("aug/eval_transform.npz")
    _, side, crop_pct = name.split("_")
    ours = evaluation(int(side), float(crop_pct))(Image.fromarray(stored["source"]))
    assert ours.dtype == np.float32
    # Torchvision divides by 255 in another order: the last bit of float32.
    np.testing.assert_allclose(ours, stored[name], rtol=0, atol=5e-7)


@pytest.mark.parametrize(("crop_pct", "side"), [(0.875, 256), (0.9, 248), (1.0, 224)])
def test_resized_side(crop_pct, side):
    assert evaluation(224, crop_pct).resize_size == side


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (24, 24), (10, 90), (500, 24)])
@pytest.mark.parametrize("mode", ["shorter", "squash"])
def test_any_image_gives_a_square(size, mode):
    cropped = evaluation(24, 0.9, resize_mode=mode).crop(picture(0, *size))
    assert cropped.size == (24, 24)


def test_shorter_keeps_the_aspect_and_squash_shows_everything():
    # A white bar at the right end of a wide image: the crop of its middle does not see it.
    wide = Image.new("RGB", (64, 16))
    wide.paste((255, 255, 255), (56, 0, 64, 16))
    assert np.asarray(evaluation(16, 1.0).crop(wide)).max() == 0
    assert np.asarray(evaluation(16, 1.0, resize_mode="squash").crop(wide))[:, -1].max() == 255


def test_normalisation_of_known_pixels():
    image = Image.new("RGB", (2, 1), (255, 0, 51))
    np.testing.assert_allclose(normalize(image, MEAN, STD)[:, 0, 0], [2.2489083, -2.0357142, -0.9155555], rtol=1e-6)


def test_transforms_of_a_config():
    data = DataConfig(crop_pct=0.9, interpolation="random", mean=MEAN, std=STD, resize_mode="squash")
    assert EvalTransform.from_config(data, 32) == evaluation(32, 0.9, resize_mode="squash")
    augment = AugmentConfig(train_crop="pad", crop_padding=3, hflip=0.25)
    wanted = training(image_size=32, train_crop="pad", crop_padding=3, hflip=0.25, interpolation="random")
    ours = TrainTransform.from_config(data.model_copy(update={"mean": HALF, "std": HALF}), augment, 32)
    assert ours == wanted
    assert evaluation(32, 0.9).as_dict()["std"] == STD


# ---------------------------------------------------------------------------------------------------------------------
# Training


@pytest.mark.parametrize("crop", ["random_resized", "pad", "none"])
@pytest.mark.parametrize("interpolation", ["bicubic", "random"])
def test_training_is_a_function_of_its_generator(crop, interpolation):
    transform = training(train_crop=crop, interpolation=interpolation)
    image = picture(1, 30, 20)
    first = transform(image, random(3))
    assert first.shape == (3, 16, 16)
    assert first.dtype == np.float32
    assert np.array_equal(transform(image, random(3)), first)
    assert any(not np.array_equal(transform(image, random(position)), first) for position in range(4, 12))


def test_without_choices_training_is_a_resize():
    image = picture(2, 30, 20)
    plain = training(train_crop="none", hflip=0.0)(image, random())
    resized = image.resize((16, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(plain, normalize(resized, HALF, HALF))
    flipped = training(train_crop="none", hflip=1.0)(image, random())
    assert np.array_equal(flipped, plain[:, :, ::-1])


def test_half_of_the_images_are_flipped():
    transform, image = training(train_crop="none", hflip=0.5), picture(3, 16, 16)
    plain = normalize(image, HALF, HALF)
    flipped = sum(not np.array_equal(transform(image, random(position)), plain) for position in range(400))
    assert 150 < flipped < 250


def test_random_interpolation_is_bilinear_or_bicubic():
    image = picture(4, 40, 40)
    transform = training(train_crop="none", hflip=0.0, interpolation="random")
    kinds = [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC]
    wanted = [normalize(image.resize((16, 16), kind), HALF, HALF) for kind in kinds]
    seen = [0, 0]
    for position in range(100):
        result = transform(image, random(position))
        (which,) = [i for i in (0, 1) if np.array_equal(result, wanted[i])]
        seen[which] += 1
    assert min(seen) > 30


def test_padding_shifts_by_whole_pixels_and_fills_with_black():
    image = picture(5, 16, 16)
    pixel_YXC = np.asarray(image).astype(int)
    transform = training(train_crop="pad", crop_padding=2, hflip=0.0)
    padded = np.pad(pixel_YXC, ((2, 2), (2, 2), (0, 0)))
    shifts = {(y, x): padded[y : y + 16, x : x + 16] for y in range(5) for x in range(5)}
    seen = set()
    for position in range(200):
        result_CYX = transform(image, random(position))
        result_YXC = np.rint((result_CYX.transpose(1, 2, 0) * 0.5 + 0.5) * 255).astype(int)
        (shift,) = [shift for shift, window in shifts.items() if np.array_equal(window, result_YXC)]
        seen.add(shift)
    assert seen == set(shifts)


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 10**6))
def test_a_crop_lies_inside_the_image(width, height, position):
    left, top, w, h = random_resized_box((width, height), (0.08, 1.0), (3 / 4, 4 / 3), crop_numbers(position))
    assert left >= 0
    assert top >= 0
    assert left + w <= width
    assert top + h <= height
    assert min(w, h) >= 1


def test_areas_and_aspects_of_crops_fill_their_ranges():
    boxes = [random_resized_box((400, 300), (0.2, 0.6), (0.5, 2.0), crop_numbers(position)) for position in range(500)]
    areas = [w * h / 120_000 for _, _, w, h in boxes]
    aspects = [math.log2(w / h) for _, _, w, h in boxes]
    assert 0.19 < min(areas) < 0.22
    assert 0.55 < max(areas) < 0.61
    assert -1.02 < min(aspects) < -0.9
    assert abs(np.mean(aspects)) < 0.15


@pytest.mark.parametrize("name", CROPS)
def test_crops_are_distributed_as_timms(name):
    """Area, aspect and place of 20,000 boxes against 100,000 of timm's: distribution functions at 32 places.

    By chance alone the largest difference stays below 0.013 in 999 of 1,000 runs.
    """
    width, height = map(int, name.split("x"))
    scale, ratio = CROPS[name]["scale"], CROPS[name]["ratio"]
    draws = np.random.default_rng(0)
    box_N4 = np.array([random_resized_box((width, height), scale, ratio, draws) for _ in range(20_000)])
    left_N, top_N, width_N, height_N = box_N4.T
    found = {
        "area": width_N * height_N / (width * height),
        "aspect": width_N / height_N,
        "left": left_N / width,
        "top": top_N / height,
    }
    for what, value_N in found.items():
        # The places are rounded to six digits, and many boxes may lie at one.
        share = [(value_N <= place).mean() for place in CROPS[name]["quantiles"][what]]
        np.testing.assert_allclose(share, CROPS[name]["cdf"][what], rtol=0, atol=0.013, err_msg=what)


def test_an_image_that_no_crop_fits_gives_its_middle():
    # Ten times as wide as high: every try is too high, the fallback is the widest allowed box.
    assert random_resized_box((1000, 100), (1.0, 1.0), (3 / 4, 4 / 3), crop_numbers()) == (
        433,
        0,
        133,
        100,
    )
    assert random_resized_box((100, 1000), (1.0, 1.0), (3 / 4, 4 / 3), crop_numbers()) == (
        0,
        433,
        100,
        133,
    )


ALL_ON = AugmentConfig(auto_augment="rand-m9-mstd0.5-inc1", color_jitter=0.4, re_prob=1.0, re_mode="rand", re_count=2)


def test_every_step_of_the_training_transform_counts_and_none_shifts_another():
    data = DataConfig(interpolation="bicubic", mean=HALF, std=HALF)
    image = picture(9, 40, 30)
    whole = TrainTransform.from_config(data, ALL_ON, 16)
    results = {"all": whole(image, random(5))}
    for step in ("policy", "jitter", "erasing"):
        results[step] = replace(whole, **{step: None})(image, random(5))
    assert len({result.tobytes() for result in results.values()}) == 4
    # The boxes are where they were, whatever happened to the colours.
    without = {name: replace(whole, **{name: None}) for name in ("policy", "jitter")}
    erased = [one(image, random(5)) != replace(one, erasing=None)(image, random(5)) for one in without.values()]
    assert (erased[0] == erased[1]).mean() > 0.99


def test_the_policy_gets_what_the_config_says():
    data = DataConfig(interpolation="random", mean=MEAN, std=STD)
    transform = TrainTransform.from_config(data, ALL_ON, 32)
    assert transform.policy == parse_policy(ALL_ON.auto_augment, image_size=32, mean=MEAN, interpolation="random")
    assert (transform.erasing.prob, transform.erasing.mode, transform.erasing.count) == (1.0, "rand", 2)
    assert transform.jitter == ColorJitter(0.4, 0.4, 0.4)
    off = TrainTransform.from_config(data, AugmentConfig(), 32)
    assert (off.policy, off.jitter, off.erasing) == (None, None, None)


# ---------------------------------------------------------------------------------------------------------------------
# Reading


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK"])
def test_every_mode_becomes_rgb(mode):
    suffix = ".tiff" if mode == "CMYK" else ".png"
    picture(6).convert(mode).save(f"image{suffix}")
    image = read_image(Path(f"image{suffix}"))
    assert (image.mode, image.size) == ("RGB", (12, 10))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
def test_cut_files_are_errors_or_images_never_anything_else(suffix):
    stream = io.BytesIO()
    picture(7, 40, 30).save(stream, {".jpg": "JPEG"}.get(suffix, suffix[1:].upper()))
    content = stream.getvalue()
    cuts = sorted({*range(60), *range(60, len(content), max(1, len(content) // 60))})
    errors = [error for error in (error_of_cut(f"image{suffix}", content[:length]) for length in cuts) if error]
    assert len(errors) > 50
    assert all(str(error).startswith(f"image{suffix}: ") and error.exit_code == 3 for error in errors)


def error_of_cut(name: str, content: bytes) -> DataError | None:
    Path(name).write_bytes(content)
    try:
        assert read_image(Path(name)).size == (40, 30)
    except DataError as error:
        return error
    return None


def test_orientation_is_left_alone_unless_asked():
    image = picture(10, 12, 8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save("turned.png", exif=exif)
    assert np.array_equal(np.asarray(read_image(Path("turned.png"))), np.asarray(image))
    turned = read_image(Path("turned.png"), exif_orientation=True)
    assert np.array_equal(np.asarray(turned), np.rot90(np.asarray(image), -1))
    root = Path("set")
    for name in ("a", "b"):
        (root / "train" / name).mkdir(parents=True)
    image.save(root / "train" / "a" / "x.png")
    Path("turned.png").rename(root / "train" / "b" / "x.png")
    for asked, size in ((False, (12, 8)), (True, (8, 12))):
        source = open_split(DataConfig(data_url=str(root), exif_orientation=asked), "train", 2)
        assert [source.read(index).size for index in (0, 1)] == [(12, 8), size]


def test_what_is_no_image(monkeypatch):
    Path("x.png").write_text("hello")
    with pytest.raises(DataError, match=r"^x.png: not an image$"):
        read_image(Path("x.png"))
    with pytest.raises(DataError, match=r"^none.png: cannot be decoded: "):
        read_image(Path("none.png"))
    picture(8).save("large.png")
    monkeypatch.setattr("src.data.transforms.MAX_PIXELS", 100)
    with pytest.raises(DataError, match=r"^large.png: image has more than 100 pixels. Received: 12x10"):
        read_image(Path("large.png"))


def test_a_bomb_is_refused_before_it_is_unpacked():
    # 50,000 x 50,000 pixels in a file of some bytes.
    stream = io.BytesIO()
    picture(9).save(stream, "PNG")
    content = bytearray(stream.getvalue())
    content[16:24] = (50_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    Path("bomb.png").write_bytes(content)
    with pytest.raises(DataError, match=r"^bomb.png: "):
        read_image(Path("bomb.png"))
