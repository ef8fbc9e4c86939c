"""The input pipelines that are measured: what both sides read, and what they do to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from src.errors import ConfigError


@dataclass(frozen=True)
class DataCase:
    """One input pipeline of the benchmark.

    Args:
        name: what the user types and the table prints.
        training: shuffled and augmented without a last partial batch, or every image once in order.
        is_jpeg: whether images are decoded from files; else they are arrays of the network's size.
        num_images: images of an epoch, before a partial batch is dropped.
        batch_size: images per batch unless the user says otherwise.
        image_size: side of the square images that come out.
        num_classes: of the targets.
        crop_pct: evaluation: image_size over the resized side.
        mean: of the channels, in [0, 1].
        std: of the channels, in [0, 1].
        augment: entries of ``src.schema.AugmentConfig``.
    """

    name: str
    training: bool
    is_jpeg: bool
    num_images: int
    batch_size: int
    image_size: int
    num_classes: int
    crop_pct: float = 1.0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    augment: dict[str, Any] = field(default_factory=dict)


_RAND_AUGMENT = dict(
    auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25, re_mode="pixel", mix_up=0.8, cutmix=1.0, label_smoothing=0.1
)

DATA_CASES = {
    case.name: case
    for case in (
        DataCase("imagenet_train", True, True, 600, 64, 224, 1000, augment=_RAND_AUGMENT),
        # 224 / 0.9 is cut to 248 pixels.
        DataCase("imagenet_eval", False, True, 600, 64, 224, 1000, crop_pct=0.9),
        DataCase("cifar_train", True, False, 10_000, 128, 32, 10, augment=dict(train_crop="pad", label_smoothing=0.1)),
    )
}


def chosen_data_cases(names: str, peer: str) -> list[DataCase]:
    """The cases of a comma-separated list, or ``all`` that the peer has: arrays have nothing to decode.

    Raises:
        ConfigError: a name that is no case of this peer.
    """
    known = [name for name, case in DATA_CASES.items() if peer != "decode" or case.is_jpeg]
    wanted = known if names == "all" else [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known:
            raise ConfigError("--arch", f"no such case for data --peer {peer}", name, ["all", *known])
    return [DATA_CASES[name] for name in wanted]
