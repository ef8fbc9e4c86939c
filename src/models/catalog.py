"""Every model with its size and its cost, read off the network itself.

Shape letters: N tokens, M subsampled tokens, D width.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from mindspore import nn
from mindspore.nn.utils import no_init_parameters

from src.errors import ConfigError
from src.models import ALIASES, MODELS, DefaultConfig, build_model, num_parameters
from src.models.cct import CompactConvolutionalTransformer
from src.models.tnt import TNT
from src.models.twins import LocalAttention, Twins


@dataclass(frozen=True)
class CatalogRow:
    """One arch with its own head and image: parameters, multiply-accumulates of one image, the net without values."""

    arch: str
    family: str
    params: int
    macs: int
    image_size: int
    num_classes: int
    default_cfg: DefaultConfig
    aliases: tuple[str, ...]
    net: nn.Cell = field(repr=False)


def matching_archs(pattern: str) -> list[str]:
    """The archs of which a name or alias contains this word, or matches a pattern such as ``deit3_*``.

    Raises:
        ConfigError: none does.
    """
    wanted = pattern if set(pattern) & set("*?[") else f"*{pattern}*"
    archs = [arch for arch in MODELS if any(fnmatchcase(name, wanted) for name in (arch, *aliases(arch)))]
    if not archs:
        nearest = difflib.get_close_matches(pattern, [*MODELS, *ALIASES], n=3)
        raise ConfigError("arch", "no model has such a name", pattern, nearest or sorted(MODELS))
    return archs


def aliases(arch: str) -> tuple[str, ...]:
    """Other names of an arch."""
    return tuple(alias for alias, name in ALIASES.items() if name == arch)


def catalog(archs: list[str]) -> Iterator[CatalogRow]:
    """A row for each of these archs."""
    for arch in archs:
        entry = MODELS[arch]
        with no_init_parameters():
            net = build_model(arch)
        yield CatalogRow(
            arch=arch,
            family=entry.family,
            params=num_parameters(net),
            macs=multiply_accumulates(net),
            image_size=entry.image_size,
            num_classes=entry.num_classes,
            default_cfg=entry.default_cfg,
            aliases=aliases(arch),
            net=net,
        )


def multiply_accumulates(net: nn.Cell) -> int:
    """Of one image: convolutions, affine maps, and both matrix products of attention."""
    if isinstance(net, CompactConvolutionalTransformer):
        places, attention = _cct(net)
    elif isinstance(net, Twins):
        places, attention = _twins(net)
    elif isinstance(net, TNT):
        places, attention = _tnt(net)
    else:
        places, attention = _vit(net)
    weights = [(name, p.size) for name, p in net.parameters_and_names() if name.endswith(".weight") and p.ndim > 1]
    return attention + sum(size * _count(places, name) for name, size in weights)


def _count(places: dict[str, int], name: str) -> int:
    """How often a weight is applied: the number of the first pattern that its name starts with."""
    return next(count for pattern, count in places.items() if re.match(pattern, name))


def _products(num_queries: int, num_keys: int, dim: int) -> int:
    """Scores, and the sums of values that they weigh, of all heads."""
    return 2 * num_queries * num_keys * dim


def _vit(net: nn.Cell) -> tuple[dict[str, int], int]:
    D = net.cls_token.shape[-1]
    num_patches = net.patch_embed.num_patches
    N = num_patches + (2 if hasattr(net, "dist_token") else 1)
    return {"patch_embed": num_patches, "blocks": N, "head": 1}, len(net.blocks) * _products(N, N, D)


def _cct(net: CompactConvolutionalTransformer) -> tuple[dict[str, int], int]:
    tokenizer, classifier = net.tokenizer, net.classifier
    _, N, D = classifier.positional_emb.shape
    places = {"classifier.(blocks|attention_pool)": N, "classifier.fc": 1}
    side = net.image_size
    for index in range(len(tokenizer.conv_layers)):
        side = (side + 2 * tokenizer.padding - tokenizer.kernel_size) // tokenizer.stride + 1
        places[f"tokenizer.conv_layers.{index}"] = side * side
        side = (side + 1) // 2
    return places, len(classifier.blocks) * _products(N, N, D) + N * D


def _twins(net: Twins) -> tuple[dict[str, int], int]:
    places, attention = {"head": 1}, 0
    for stage, blocks in enumerate(net.blocks):
        D = net.patch_embeds[stage].norm.channels
        side = net.image_size // (4 * 2**stage)
        for index, block in enumerate(blocks):
            attn, here = block.attn, rf"blocks\.{stage}\.{index}\.attn"
            if isinstance(attn, LocalAttention):
                padded = (side + attn.border) ** 2
                places[here] = padded
                attention += _products(padded, attn.window_size**2, D)
            else:
                M = (side // attn.sr_ratio) ** 2
                places[rf"{here}\.(kv|sr)"] = M
                attention += _products(side * side, M, D)
        places[rf"(patch_embeds|blocks|pos_block)\.{stage}\."] = side * side
    return places, attention


def _tnt(net: TNT) -> tuple[dict[str, int], int]:
    num_patches, D = net.num_patches, net.cls_token.shape[-1]
    inner_dim, num_pixels = net.pixel_pos.shape[1], net.pixel_pos.shape[2] * net.pixel_pos.shape[3]
    pixels, tokens = num_patches * num_pixels, num_patches + 1
    places = {
        "pixel_embed": pixels,
        r"blocks\.\d+\.(attn_in|mlp_in)": pixels,
        r"(blocks\.\d+\.)?proj": num_patches,
        "blocks": tokens,
        "head": 1,
    }
    per_block = num_patches * _products(num_pixels, num_pixels, inner_dim) + _products(tokens, tokens, D)
    return places, len(net.blocks) * per_block
