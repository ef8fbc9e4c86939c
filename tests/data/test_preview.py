"""preprocess.py --preview: the pixels and labels of training's own batches, in a picture that is whole or not there."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from src.data.build import mixup_of, train_batches_of
from src.data.loader import TRAIN, open_reader
from src.data.mixup import Mixup
from src.data.preview import Sample, draw_grid, preview, samples_of, shortened
from src.errors import ConfigError
from src.models import resolved
from src.schema import AugmentConfig
from tests import small_run
from tests.command import command
from tests.data.images import picture

HARD = {"auto_augment": "rand-m9-mstd0.5-inc1", "mix_up": 0.8, "cutmix": 1.0, "re_prob": 0.5, "aug_repeats": 2}
PAPER = (244, 244, 242)


@pytest.fixture
def data(tmp_path):
    return small_run.write_images(tmp_path / "data")


def config(data: Path, **flags: object):
    return resolved(small_run.config(data, Path("out"), **flags))


def run(target: str, data: Path, **flags: object) -> tuple[int, list[str], list[str]]:
    """The script as a user calls it."""
    return command("preprocess", "--preview", target, *small_run.arguments(data, Path("out"), **flags))


def cells(page: Image.Image, side: int, count: int) -> list[np.ndarray]:
    """The images of a page, found by their place: uint8 (side, side, 3)."""
    pixels = np.asarray(page)
    left = 14
    # Below the title, whose letters leave paper between them.
    is_filled_Y = (pixels[:, left : left + side] != PAPER).any(-1).mean(1) > 0.9
    top = int(is_filled_Y.argmax())
    step = side + 14
    return [pixels[top : top + side, left + n * step : left + n * step + side] for n in range(count)]


# ---------------------------------------------------------------------------------------------------------------------
# What is drawn


def test_pixels_are_those_of_the_first_batches(data):
    one = config(data, **HARD)
    preview(one, Path("x.png"))
    batches = train_batches_of(one)
    with open_reader(0, batches) as reader:
        image_BCYX, _ = next(reader.read(TRAIN, range(1)))
    drawn = cells(Image.open("x.png"), 128, 4)
    mean_C, std_C = np.array(one.data.mean), np.array(one.data.std)
    for image_CYX, pixel_YXC in zip(image_BCYX, drawn, strict=True):
        wanted_YXC = ((image_CYX.transpose(1, 2, 0) * std_C + mean_C) * 255).clip(0, 255)
        # 16 pixels become 128, each of them a block.
        blocks = pixel_YXC.reshape(16, 8, 16, 8, 3)
        assert (blocks == blocks[:, :1, :, :1]).all()
        np.testing.assert_allclose(blocks[:, 0, :, 0], wanted_YXC, atol=0.51)


def test_batches_of_a_config_are_those_of_its_keys(data):
    batches = train_batches_of(config(data, seed=5, on_bad_image="skip", mixup_off_epoch=7, **HARD))
    assert (len(batches.source), batches.batch_size, batches.seed) == (12, 4, 5)
    assert (batches.aug_repeats, batches.mixup_off_epoch, batches.on_bad_image) == (2, 7, "skip")
    assert (batches.mixup.mixup_alpha, batches.mixup.cutmix_alpha, batches.mixup.num_classes) == (0.8, 1.0, 3)
    assert batches.transform.policy is not None
    assert batches.transform.erasing is not None


def test_every_key_of_mixing_is_taken():
    keys = dict(mix_up=0.1, cutmix=0.2, cutmix_minmax=(0.3, 0.4), mixup_prob=0.5, switch_prob=0.6, mixup_mode="elem")
    wanted = Mixup(0.1, 0.2, (0.3, 0.4), 0.5, 0.6, "elem", 0.7, 9)
    assert mixup_of(AugmentConfig(label_smoothing=0.7, **keys), 9) == wanted


@pytest.mark.parametrize(("smoothing", "mix_up"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.8), (0.3, 0.8)])
def test_labels_are_without_smoothing(smoothing, mix_up, data):
    batches = train_batches_of(config(data, label_smoothing=smoothing, mix_up=mix_up, mixup_mode="elem", batch_size=12))
    plain = train_batches_of(config(data, label_smoothing=0.0, mix_up=mix_up, mixup_mode="elem", batch_size=12))
    rows = []
    for one in (batches, plain):
        with open_reader(0, one) as reader:
            rows.append(next(reader.read(TRAIN, range(1))))
    samples = samples_of(batches, *rows[0], 12)
    assert len(samples) == 12
    num_mixed = 0
    for sample, target_K in zip(samples, rows[1][1], strict=True):
        num_mixed += len(sample.labels) > 1
        assert [share for _, share in sample.labels] == sorted((share for _, share in sample.labels), reverse=True)
        assert sum(share for _, share in sample.labels) == pytest.approx(1, abs=6e-3)
        for name, share in sample.labels:
            assert share == pytest.approx(target_K[small_run.CLASS_NAMES.index(name)], abs=1e-5)
    assert (num_mixed > 0) == (mix_up > 0)


@pytest.mark.parametrize(("batch_size", "count"), [(4, 12), (5, 10), (12, 12)])
def test_small_data_sets(batch_size, count, data, capsys):
    preview(config(data, batch_size=batch_size), Path("x.png"))
    assert capsys.readouterr().out.endswith(f"\n=> {count} training images in x.png\n")


def test_at_most_32_images(capsys):
    keys = {"set": "synthetic", "batch_size": 24, "num_classes": 10}
    preview(config(Path("none"), **keys), Path("x.png"))
    assert capsys.readouterr().out.endswith("\n=> 32 training images in x.png\n")
    # Four lines of eight.
    assert Image.open("x.png").width == 8 * (128 + 14) + 14


@pytest.mark.parametrize(("side", "cell"), [(8, 128), (100, 200), (128, 128), (200, 200)])
def test_small_images_are_enlarged(side, cell):
    samples = [Sample(picture(n, side, side), [("cat", 1.0)]) for n in range(3)]
    page = draw_grid(samples, "title")
    assert page.width == 3 * (cell + 14) + 14
    for pixel_YXC, sample in zip(cells(page, cell, 3), samples, strict=True):
        np.testing.assert_array_equal(pixel_YXC[:: cell // side, :: cell // side], np.asarray(sample.image))


def ink(page: Image.Image, side: int) -> np.ndarray:
    """Columns with text below the images."""
    return (np.asarray(page.crop((0, 60 + side, page.width, page.height))).max(-1) < 200).any(0)


def test_labels_stay_below_their_image():
    names = [("an uncommonly long name of a class", 0.63), ("another one that has no end at all", 0.37)]
    page = draw_grid([Sample(picture(n, 128, 128), names) for n in range(2)], "t" * 500)
    columns = ink(page, 128)
    assert columns[14 : 14 + 128].any()
    assert columns[28 + 128 : 28 + 256].any()
    assert not columns[14 + 128 : 28 + 128].any()
    assert not columns[28 + 256 :].any()


def test_a_second_label_takes_a_second_line():
    one, two = ([("cat", 1.0)], [("cat", 0.63), ("dog", 0.37)])
    heights = [draw_grid([Sample(picture(1, 128, 128), labels)], "").height for labels in (one, two)]
    assert 10 < heights[1] - heights[0] < 30


def test_names_are_cut_to_a_width():
    font = ImageFont.load_default(14)
    assert shortened("cat", font, 100) == "cat"
    cut = shortened("Norwegian forest cat", font, 100)
    assert cut.endswith("…")
    assert "Norwegian forest cat".startswith(cut[:-1])
    assert 60 < font.getlength(cut) <= 100
    assert shortened("a\nb\udce9", font, 100) == "a?b?"


# ---------------------------------------------------------------------------------------------------------------------
# The command


@pytest.mark.parametrize("name", ["x.png", "pictures/x.jpg", "X.PNG"])
def test_command_writes_one_file(name, data):
    Path("recipe.yaml").write_text("mix_up: 0.8\nlabel_smoothing: 0.1\n")
    code, out, err = run(name, data, config="recipe.yaml", cutmix=1)
    assert (code, err) == (0, [])
    assert out[0] == "=> Reading YAML config from recipe.yaml"
    assert out[-1] == f"=> 12 training images in {name}"
    with Image.open(name) as page:
        assert page.format == ("JPEG" if name.endswith("jpg") else "PNG")
    assert {path.as_posix() for path in Path().rglob("*") if path.is_file()} == {name, "recipe.yaml"}


def test_the_same_picture_with_any_number_of_processes(data):
    for count in (0, 2):
        assert run(f"{count}.png", data, num_parallel_workers=count, **HARD)[0] == 0
    assert Path("0.png").read_bytes() == Path("2.png").read_bytes()


def test_what_is_refused(data):
    code, _, err = run("x.gif", data)
    assert (code, err) == (2, ["error: --preview: unknown kind of picture. Received: x.gif. Known: .png, .jpg"])
    assert run("x.png", data, data_url="absent")[0] == 3
    code, _, err = run("x.png", data, auto_augment="strong")
    assert code == 2
    assert "auto_augment" in err[0]
    code, _, err = run("x.png", data, batch_size=3, mix_up=1)
    assert (code, err) == (2, ["error: batch_size: must be even with mix_up or cutmix. Received: 3"])
    assert not list(Path().iterdir())


def test_a_failed_picture_leaves_the_old_one(data, monkeypatch):
    preview(config(data), Path("x.png"))
    before = Path("x.png").read_bytes()

    def fails(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fails)
    with pytest.raises(OSError, match="No space"):
        preview(config(data, seed=1), Path("x.png"))
    assert Path("x.png").read_bytes() == before
    assert [path.name for path in Path().iterdir()] == ["x.png"]


def test_images_that_are_left_out_are_named(data, capsys):
    path = next((data / "train" / "circle").iterdir())
    path.write_bytes(b"")
    preview(config(data, on_bad_image="skip"), Path("x.png"))
    assert f"warning: left out: {path}: not an image" in capsys.readouterr().err


def test_a_suffix_is_refused_before_anything_is_read(data):
    with pytest.raises(ConfigError, match=r"Known: \.png, \.jpg"):
        preview(config(data, data_url="absent"), Path("x.webp"))
