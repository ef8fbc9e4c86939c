"""From an image file to the array that a network sees, for training and for evaluation.

Geometry and rounding follow timm 1.0.31, operation by operation on PIL images; the arrays differ from torchvision's by
float32 rounding at most.

Shape letters: C channels, Y X rows and columns.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from src.data.auto_augment import Policy, parse_policy
from src.data.color_jitter import ColorJitter
from src.data.random_erasing import RandomErasing
from src.data.random_numbers import SampleRandom, Stream
from src.errors import DataError
from src.schema import AugmentConfig, DataConfig

RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "hamming": Image.Resampling.HAMMING,
}
# A picture of more pixels is taken for a decompression bomb.
MAX_PIXELS = 178_956_970


def read_image(path: Path, exif_orientation: bool = False) -> Image.Image:
    """Decode a file to RGB, turned as its camera says on request; the zoo and timm do not turn.

    Raises:
        DataError: not an image, damaged, or too large.
    """
    if path.is_fifo():
        raise DataError(path, "not an image but a pipe")
    return decode_image(path, path, exif_orientation)


def decode_image(
    file: Path | BinaryIO, name: object, exif_orientation: bool = False, formats: Sequence[str] | None = None
) -> Image.Image:
    """As `read_image`, but of an open file too; errors call it ``name``.

    Args:
        file: a path, or a file that was opened.
        name: of the image, for errors.
        exif_orientation: turn it as its camera says.
        formats: PIL's names of those that count as images; all that PIL knows if None.

    Raises:
        DataError: not an image, damaged, or too large.
    """
    try:
        with Image.open(file, formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(name, f"image has more than {MAX_PIXELS} pixels", f"{image.width}x{image.height}")
            if exif_orientation:
                ImageOps.exif_transpose(image, in_place=True)
            image.load()
            # A conversion to the same mode would copy.
            return image if image.mode == "RGB" else image.convert("RGB")
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(name, "not an image") from None
    except Image.DecompressionBombError as error:
        raise DataError(name, str(error)) from None
    except Exception as error:  # whatever a decoder of PIL's thinks of: RuntimeError and TypeError were seen
        raise DataError(name, f"cannot be decoded: {error}") from None


@dataclass(frozen=True)
class EvalTransform:
    """Resize, centre crop, normalise: the one transform of eval, preprocess, predict and verify.

    Attributes:
        image_size: side of the result.
        crop_pct: image_size over the resized side.
        interpolation: a key of `RESAMPLING`.
        resize_mode: shorter keeps the aspect; squash resizes both sides, as the zoo does.
        mean: of the channels, in [0, 1].
        std: of the channels, in [0, 1].
    """

    image_size: int
    crop_pct: float
    interpolation: str
    resize_mode: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def from_config(cls, data: DataConfig, image_size: int) -> EvalTransform:
        """The transform of a resolved config; with interpolation ``random`` evaluation is bicubic."""
        interpolation = "bicubic" if data.interpolation == "random" else data.interpolation
        return cls(image_size, data.crop_pct, interpolation, data.resize_mode, data.mean, data.std)

    @property
    def resize_size(self) -> int:
        """Side that the image is resized to before the crop."""
        return math.floor(self.image_size / self.crop_pct)

    def __call__(self, image: Image.Image, out_CYX: np.ndarray | None = None) -> np.ndarray:
        """RGB image to (3, image_size, image_size) float32, into ``out_CYX`` where that is given."""
        return normalize(self.crop(image), self.mean, self.std, out_CYX)

    def crop(self, image: Image.Image) -> Image.Image:
        """The part of the image that is looked at, before it is normalised."""
        size, resampling = self.resize_size, RESAMPLING[self.interpolation]
        if self.resize_mode == "squash":
            image = image.resize((size, size), resampling)
        else:
            return _resize_and_crop(image, size, self.image_size, resampling)
        return _center_crop(image, self.image_size)

    def as_dict(self) -> dict:
        """Plain values for a sidecar file."""
        return asdict(self)


@dataclass(frozen=True)
class TrainTransform:
    """Random crop, flip, policy, colours, normalise, erase; every choice comes from the random numbers passed in.

    Attributes:
        image_size: side of the result.
        train_crop: random_resized, pad or none.
        crop_scale: area of a random_resized crop over the image's.
        crop_ratio: aspect of a random_resized crop.
        crop_padding: pixels of shift for train_crop pad.
        hflip: probability of a horizontal flip.
        interpolation: a key of `RESAMPLING`, or random.
        mean: of the channels, in [0, 1].
        std: of the channels, in [0, 1].
        policy: of auto_augment.
        jitter: of colours.
        erasing: of boxes.
    """

    image_size: int
    train_crop: str
    crop_scale: tuple[float, float]
    crop_ratio: tuple[float, float]
    crop_padding: int
    hflip: float
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    policy: Policy | None = None
    jitter: ColorJitter | None = None
    erasing: RandomErasing | None = None

    @classmethod
    def from_config(cls, data: DataConfig, augment: AugmentConfig, image_size: int) -> TrainTransform:
        """The transform of a resolved config.

        Raises:
            ConfigError: a policy that is none.
        """
        policy = None
        if augment.auto_augment is not None:
            policy = parse_policy(
                augment.auto_augment, image_size=image_size, mean=data.mean, interpolation=data.interpolation
            )
        crop = (augment.train_crop, augment.crop_scale, augment.crop_ratio, augment.crop_padding)
        return cls(
            image_size,
            *crop,
            augment.hflip,
            data.interpolation,
            data.mean,
            data.std,
            policy,
            ColorJitter(*[augment.color_jitter] * 3) if augment.color_jitter else None,
            RandomErasing(augment.re_prob, augment.re_mode, augment.re_count) if augment.re_prob else None,
        )

    def __call__(self, image: Image.Image, random: SampleRandom, out_CYX: np.ndarray | None = None) -> np.ndarray:
        """RGB image to (3, image_size, image_size) float32, into ``out_CYX`` where that is given."""
        image = self.crop_and_flip(image, random.stream(Stream.TRANSFORM))
        if self.policy is not None:
            image = self.policy(image, random.stream(Stream.POLICY))
        if self.jitter is not None:
            image = self.jitter(image, random.stream(Stream.JITTER))
        return self._erase(normalize(image, self.mean, self.std, out_CYX), random)

    def takes_pixels(self, height: int, width: int) -> bool:
        """Whether `of_pixels` can do all the work on images of this size."""
        fits = (height, width) == (self.image_size, self.image_size)
        return fits and self.train_crop != "random_resized" and self.policy is None and self.jitter is None

    def of_pixels(self, pixel_CYX: np.ndarray, random: SampleRandom, out_CYX: np.ndarray) -> np.ndarray:
        """As a call with an image of the same uint8 pixels: small images take longer to go through PIL than to move."""
        draws = random.stream(Stream.TRANSFORM)
        _, flip = draws.random(2)
        if self.train_crop == "pad":
            pixel_CYX = _shifted(pixel_CYX, *self._shift(draws))
        if flip < self.hflip:
            pixel_CYX = pixel_CYX[:, :, ::-1]
        return self._erase(_normalize_pixels(pixel_CYX, self.mean, self.std, out_CYX), random)

    def _erase(self, image_CYX: np.ndarray, random: SampleRandom) -> np.ndarray:
        if self.erasing is not None:
            generator = random.stream(Stream.ERASE)
            self.erasing.fill(image_CYX, self.erasing.boxes(image_CYX.shape[1:], generator), generator)
        return image_CYX

    def crop_and_flip(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """The part of the image that is looked at."""
        # Always the same number of draws in front: switching one choice off shifts no other.
        pick, flip = random.random(2)
        resampling = RESAMPLING[self._interpolation(pick)]
        side = (self.image_size, self.image_size)
        if self.train_crop == "random_resized":
            left, top, width, height = random_resized_box(image.size, self.crop_scale, self.crop_ratio, random)
            image = image.crop((left, top, left + width, top + height)).resize(side, resampling)
        else:
            image = image if image.size == side else image.resize(side, resampling)
        if self.train_crop == "pad":
            left, top = self._shift(random)
            image = image.crop((left, top, left + self.image_size, top + self.image_size))
        return ImageOps.mirror(image) if flip < self.hflip else image

    def _shift(self, random: np.random.Generator) -> tuple[int, int]:
        most = self.crop_padding
        return int(random.integers(-most, most + 1)), int(random.integers(-most, most + 1))

    def _interpolation(self, pick: float) -> str:
        if self.interpolation == "random":
            return "bilinear" if pick < 0.5 else "bicubic"
        return self.interpolation


def random_resized_box(
    size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float], random: np.random.Generator
) -> tuple[int, int, int, int]:
    """Left, top, width, height of a crop of random area and aspect; the centre when ten tries do not fit."""
    width, height = size
    log_ratio = (math.log(ratio[0]), math.log(ratio[1]))
    for _ in range(10):
        area = random.uniform(*scale) * width * height
        aspect = math.exp(random.uniform(*log_ratio))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int(random.integers(0, width - crop_width + 1))
            top = int(random.integers(0, height - crop_height + 1))
            return left, top, crop_width, crop_height
    crop_width, crop_height = width, height
    if width / height < ratio[0]:
        crop_height = round(width / ratio[0])
    elif width / height > ratio[1]:
        crop_width = round(height * ratio[1])
    return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height


def normalize(
    image: Image.Image, mean: tuple[float, ...], std: tuple[float, ...], out_CYX: np.ndarray | None = None
) -> np.ndarray:
    """RGB image to float32 (C, Y, X): ``(pixel / 255 - mean) / std``, into ``out_CYX`` where that is given."""
    pixel_CYX = np.asarray(image).transpose(2, 0, 1)
    return _normalize_pixels(
        pixel_CYX, mean, std, np.empty(pixel_CYX.shape, np.float32) if out_CYX is None else out_CYX
    )


def _normalize_pixels(
    pixel_CYX: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...], out_CYX: np.ndarray
) -> np.ndarray:
    mean_C11, std_C11 = _per_channel(mean), _per_channel(std)
    np.divide(pixel_CYX, np.float32(255), out=out_CYX)
    np.subtract(out_CYX, mean_C11, out=out_CYX)
    return np.divide(out_CYX, std_C11, out=out_CYX)


def _shifted(pixel_CYX: np.ndarray, left: int, top: int) -> np.ndarray:
    """The window of the image's own size at a place that may be partly outside, where it is black."""
    _, height, width = pixel_CYX.shape
    shifted_CYX = np.zeros_like(pixel_CYX)
    inside_CYX = pixel_CYX[:, max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
    first_row, first_column = min(max(-top, 0), height), min(max(-left, 0), width)
    rows, columns = slice(first_row, first_row + inside_CYX.shape[1]), slice(first_column, None)
    shifted_CYX[:, rows, columns][:, :, : inside_CYX.shape[2]] = inside_CYX
    return shifted_CYX


@functools.cache
def _per_channel(values: tuple[float, ...]) -> np.ndarray:
    return np.array(values, np.float32)[:, None, None]


def _resize_shorter(image: Image.Image, size: int, resampling: Image.Resampling) -> Image.Image:
    result = _shorter_size(image.size, size)
    return image if result == image.size else image.resize(result, resampling)


def _shorter_size(of: tuple[int, int], size: int) -> tuple[int, int]:
    width, height = of
    if min(width, height) == size:
        return of
    return (size, int(size * height / width)) if width <= height else (int(size * width / height), size)


def _resize_and_crop(image: Image.Image, size: int, crop: int, resampling: Image.Resampling) -> Image.Image:
    """`_center_crop` of `_resize_shorter`, pixel for pixel.

    PIL resizes rows, rounds, then resizes columns: between the two, columns that the crop leaves out can go.
    """
    width, height = _shorter_size(image.size, size)
    if width <= crop or height == image.height:
        return _center_crop(_resize_shorter(image, size, resampling), crop)
    left = round((width - crop) / 2.0)
    image = image.resize((width, image.height), resampling).crop((left, 0, left + crop, image.height))
    return _center_crop(image.resize((crop, height), resampling), crop)


def _center_crop(image: Image.Image, size: int) -> Image.Image:
    """Centre square; PIL fills with black where the image is smaller."""
    left, top = round((image.width - size) / 2.0), round((image.height - size) / 2.0)
    return image.crop((left, top, left + size, top + size))
