"""preprocess.py --preview: a picture of training batches as the network would see them.

Shape letters: B batch, C channels, Y X rows and columns, K classes.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from src.data.build import train_batches_of
from src.data.loader import TRAIN, TrainBatches, open_reader
from src.errors import ConfigError
from src.files import replacing
from src.schema import Config

SUFFIXES = (".png", ".jpg")
COLUMNS, MAX_IMAGES = 8, 32
# Batches that are looked at where they are large enough: one for each line of the grid.
_STEPS = 4
# Images of fewer pixels are enlarged.
_LEAST_SIDE = 128
_GAP = 14
_PAPER, _INK, _FAINT = (244, 244, 242), (34, 34, 34), (120, 120, 118)
# A label with less than this is rounding.
_LEAST_SHARE = 5e-3


@dataclass(frozen=True)
class Sample:
    """One image of a batch.

    Attributes:
        image: the pixels that the network sees, in colours.
        labels: class name and share, the largest share first; shares sum to 1.
    """

    image: Image.Image
    labels: list[tuple[str, float]]


def preview(config: Config, target: Path) -> None:
    """Draw the first batches of epoch 0 with their labels. The file is whole or not there.

    Args:
        config: a resolved config.
        target: file to write, .png or .jpg.

    Raises:
        ConfigError: another suffix, or an augmentation that cannot be.
        DataError: images that are missing or do not fit.
    """
    if target.suffix.lower() not in SUFFIXES:
        raise ConfigError("--preview", "unknown kind of picture", target, SUFFIXES)
    batches = train_batches_of(config)
    # Small batches: as many as fill the grid.
    steps = min(batches.steps_per_epoch, max(_STEPS, MAX_IMAGES // batches.batch_size))
    samples: list[Sample] = []
    # The whole batch is read: which images are mixed with each other depends on its size.
    with open_reader(min(config.data.num_parallel_workers, steps), batches) as reader:
        for image_BCYX, target_BK in reader.read(TRAIN, range(steps)):
            samples += samples_of(batches, image_BCYX, target_BK, MAX_IMAGES // steps)
    for line in reader.left_out:
        print(f"warning: left out: {line}", file=sys.stderr)
    size = config.model.image_size
    title = f"{config.model.arch}, {size} x {size} pixels, batch_size {batches.batch_size}, seed {config.run.seed}"
    part = (
        f"epoch 0, first {len(samples) // steps} images of {'each of ' * (steps > 1)}{steps} batch{'es' * (steps > 1)}"
    )
    with replacing(target) as temporary:
        draw_grid(samples, f"{title}: {part}").save(temporary, quality=95)
    print(f"=> {len(samples)} training images in {target}")


def samples_of(batches: TrainBatches, image_BCYX: np.ndarray, target_BK: np.ndarray, most: int) -> list[Sample]:
    """The first images of a batch, with mean, std and label smoothing undone.

    Args:
        batches: where the batch is from.
        image_BCYX: float32, normalised.
        target_BK: float32, a row is a distribution.
        most: how many images.
    """
    mean_C, std_C = (np.array(values, np.float32) for values in (batches.transform.mean, batches.transform.std))
    smoothing = batches.mixup.label_smoothing
    samples = []
    for image_CYX, target_K in zip(image_BCYX[:most], target_BK[:most], strict=True):
        pixel_YXC = (image_CYX.transpose(1, 2, 0) * std_C + mean_C).clip(0, 1)
        share_K = (target_K - smoothing / len(target_K)) / (1 - smoothing)
        labels = [(batches.source.class_names[k], float(share_K[k])) for k in np.argsort(-share_K, kind="stable")[:2]]
        kept = [(name, share) for name, share in labels if share >= _LEAST_SHARE]
        samples.append(Sample(Image.fromarray(np.rint(pixel_YXC * 255).astype(np.uint8)), kept))
    return samples


def draw_grid(samples: list[Sample], title: str) -> Image.Image:
    """Images in lines of eight, each with its labels below; small ones are enlarged by a whole number."""
    side = samples[0].image.width
    cell = side * max(1, math.ceil(_LEAST_SIDE / side))
    font = ImageFont.load_default(max(14, cell // 14))
    ascent, descent = font.getmetrics()
    text_height = ascent + descent + 2
    label_lines = max(len(sample.labels) for sample in samples)
    columns = min(COLUMNS, len(samples))
    lines = math.ceil(len(samples) / columns)
    step_x, step_y = cell + _GAP, cell + label_lines * text_height + _GAP + 4
    head = text_height + _GAP
    size = (columns * step_x + _GAP, head + lines * step_y + _GAP // 2)
    page = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((_GAP, _GAP // 2 + 2), shortened(title, font, size[0] - 2 * _GAP), _FAINT, font)
    for index, sample in enumerate(samples):
        left, top = _GAP + index % columns * step_x, head + index // columns * step_y
        page.paste(sample.image.resize((cell, cell), Image.Resampling.NEAREST), (left, top))
        for line, (name, share) in enumerate(sample.labels):
            share_text = "" if len(sample.labels) == 1 else f" {share:.0%}".replace("%", " %")
            name = shortened(name, font, cell - font.getlength(share_text))
            draw.text(
                (left, top + cell + 4 + line * text_height), name + share_text, _INK if line == 0 else _FAINT, font
            )
    return page


def shortened(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The text with its end cut off where it is wider than ``width`` pixels."""
    # Names of folders may hold bytes that are no letters.
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
