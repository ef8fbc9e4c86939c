"""The models that a config can name, and the one way to build them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mindspore import nn

from src.errors import ConfigError
from src.models import cct, deit, tnt, twins, vit
from src.schema import Config, ModelConfig

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR_100_MEAN, CIFAR_100_STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
FLOWERS_MEAN, FLOWERS_STD = (0.4353, 0.3773, 0.2872), (0.2966, 0.2455, 0.2698)
HALF = (0.5, 0.5, 0.5)

COMPAT = ("official", "zoo")
# Other codebases' words for the same size.
SIZE_ALIASES = {
    "dim": "embed_dim",
    "embedding_dim": "embed_dim",
    "num_layers": "depth",
    "heads": "num_heads",
    "n_conv_layers": "num_conv_layers",
    # A config has one key for a number and another for a list.
    "stage_heads": "num_heads",
    "wss": "window_sizes",
    "num_heads_outer": "num_heads",
    "num_heads_inner": "inner_num_heads",
    "outer_dim": "embed_dim",
    "outer_num_heads": "num_heads",
}


@dataclass(frozen=True)
class DefaultConfig:
    """How a model's published weights expect their images (timm's ``default_cfg``)."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop_pct: float
    interpolation: str = "bicubic"


@dataclass(frozen=True)
class ModelEntry:
    """One arch: its family's class, its row of sizes, and what its published weights were made for."""

    family: str
    constructor: Callable[..., nn.Cell]
    sizes: dict[str, Any]
    image_size: int
    num_classes: int
    default_cfg: DefaultConfig = field(repr=False)


def _vit_entry(arch: str) -> ModelEntry:
    image_size = 384 if arch.endswith("_384") else 224
    # timm 1.0.31: the augreg weights of every size use 0.5 / 0.5; 384-pixel rows crop the whole image.
    default_cfg = DefaultConfig(HALF, HALF, crop_pct=1.0 if image_size == 384 else 0.9)
    num_classes = 10 if arch == "vit_testing" else 1000
    return ModelEntry("vit", vit.VisionTransformer, vit.SIZES[arch], image_size, num_classes, default_cfg)


def _cct_entry(arch: str) -> ModelEntry:
    # The authors' configs/datasets/*.yml, by the data of each name's published weights.
    image_size = next(size for size in (224, 384, 32) if f"_{size}" in arch)
    if arch.endswith("_c100"):
        num_classes, default_cfg = 100, DefaultConfig(CIFAR_100_MEAN, CIFAR_100_STD, crop_pct=1.0)
    elif image_size == 32:
        num_classes, default_cfg = 10, DefaultConfig(CIFAR_MEAN, CIFAR_STD, crop_pct=1.0)
    elif arch.startswith("cct_7_") or arch.endswith("_fl"):
        num_classes, default_cfg = 102, DefaultConfig(FLOWERS_MEAN, FLOWERS_STD, crop_pct=1.0)
    else:
        num_classes, default_cfg = 1000, DefaultConfig(IMAGENET_MEAN, IMAGENET_STD, crop_pct=0.9)
    constructor = cct.CompactConvolutionalTransformer
    return ModelEntry("cct", constructor, cct.SIZES[arch], image_size, num_classes, default_cfg)


def _deit_entry(arch: str) -> ModelEntry:
    image_size = 384 if arch.endswith("_384") else 224
    default_cfg = DefaultConfig(IMAGENET_MEAN, IMAGENET_STD, crop_pct=1.0 if image_size == 384 else 0.9)
    constructor = vit.VisionTransformer
    if arch.startswith("deit3_"):
        constructor = deit.DeiT3
    elif "_distilled_" in arch:
        constructor = deit.DistilledVisionTransformer
    return ModelEntry("deit", constructor, deit.SIZES[arch], image_size, 1000, default_cfg)


def _twins_entry(arch: str) -> ModelEntry:
    default_cfg = DefaultConfig(IMAGENET_MEAN, IMAGENET_STD, crop_pct=0.9)
    return ModelEntry("twins", twins.Twins, twins.SIZES[arch], 224, 1000, default_cfg)


def _tnt_entry(arch: str) -> ModelEntry:
    return ModelEntry("tnt", tnt.TNT, tnt.SIZES[arch], 224, 1000, DefaultConfig(HALF, HALF, crop_pct=0.9))


MODELS: dict[str, ModelEntry] = {
    **{arch: _vit_entry(arch) for arch in vit.SIZES},
    **{arch: _deit_entry(arch) for arch in deit.SIZES},
    **{arch: _cct_entry(arch) for arch in cct.SIZES},
    **{arch: _twins_entry(arch) for arch in twins.SIZES},
    **{arch: _tnt_entry(arch) for arch in tnt.SIZES},
}
ALIASES = {**vit.ALIASES, **cct.ALIASES, **twins.ALIASES}


def model_entry(arch: str) -> ModelEntry:
    """The entry of an arch or of one of its aliases.

    Raises:
        ConfigError: no such arch.
    """
    arch = canonical_arch(arch)
    if arch in MODELS:
        return MODELS[arch]
    nearest = difflib.get_close_matches(arch, [*MODELS, *ALIASES], n=3)
    raise ConfigError("arch", "no such model", arch, nearest or sorted(MODELS))


def canonical_arch(arch: str) -> str:
    """The name under which files are written: an alias is replaced, anything else comes back as it is."""
    return ALIASES.get(arch, arch)


def build_model(
    arch: str,
    *,
    num_classes: int | None = None,
    image_size: int | None = None,
    in_channels: int = 3,
    drop_path_rate: float | None = None,
    compat: str = "official",
    **sizes: Any,
) -> nn.Cell:
    """Build a network: ``image (B, in_channels, image_size, image_size) float32 -> logits (B, num_classes)``.

    Args:
        arch: a key of `MODELS` or an alias.
        num_classes: outputs of the head; None for the arch's own.
        image_size: side of the square input; None for the arch's own.
        in_channels: image channels.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0; None for the arch's own.
        compat: ``official`` for the authors' numerics, ``zoo`` for those that zoo checkpoints were trained with.
        **sizes: any entry of the arch's row of sizes, by its name or one of `SIZE_ALIASES`.

    Raises:
        ConfigError: unknown arch, compat or size, or sizes that do not fit together.
    """
    entry = model_entry(arch)
    if compat not in COMPAT:
        raise ConfigError("compat", "unknown numerics", compat, COMPAT)
    known = {"drop_rate", "attn_drop_rate", *entry.sizes}
    arguments = dict(entry.sizes)
    for name, value in sizes.items():
        canonical = SIZE_ALIASES.get(name, name)
        if canonical not in known:
            raise ConfigError(name, f"{entry.family} has no such size", value, sorted(known))
        arguments[canonical] = value
    if drop_path_rate is not None:
        arguments["drop_path_rate"] = drop_path_rate
    try:
        return entry.constructor(
            num_classes=entry.num_classes if num_classes is None else num_classes,
            image_size=entry.image_size if image_size is None else image_size,
            in_channels=in_channels,
            compat=compat,
            **arguments,
        )
    except ValueError as error:
        raise ConfigError("model", str(error)) from None


def build_configured_model(model: ModelConfig) -> nn.Cell:
    """The network that a config describes, with the authors' numerics unless it names others.

    Raises:
        ConfigError: as `build_model`.
    """
    return build_model(
        model.arch,
        num_classes=model.num_classes,
        image_size=model.image_size,
        in_channels=model.in_channels,
        compat=model.compat or "official",
        **model.sizes(),
    )


def resolved(config: Config) -> Config:
    """The same configuration with the arch's own values where the user gave none.

    Raises:
        ConfigError: unknown arch.
    """
    arch = canonical_arch(config.model.arch)
    entry = model_entry(arch)
    own, data = entry.default_cfg, config.data
    model = config.model.model_copy(
        update={
            "arch": arch,
            "num_classes": config.model.num_classes or entry.num_classes,
            "image_size": config.model.image_size or entry.image_size,
        }
    )
    images = {
        "crop_pct": data.crop_pct or own.crop_pct,
        "interpolation": data.interpolation or own.interpolation,
        "mean": data.mean or own.mean,
        "std": data.std or own.std,
    }
    return config.model_copy(update={"model": model, "data": data.model_copy(update=images)})


def num_parameters(net: nn.Cell, trainable_only: bool = False) -> int:
    """Number of parameter elements of a network."""
    return sum(p.size for p in net.get_parameters() if p.requires_grad or not trainable_only)
