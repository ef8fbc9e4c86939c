"""Every model with its size and its cost, read off the network itself."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from mindspore import Parameter, nn
from mindspore.nn.utils import no_init_parameters

from src.errors import ConfigError
from src.models import ALIASES, MODELS, DefaultConfig, build_model, num_parameters


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
    places, attention = net.applications()
    return attention + sum(weight.size * _count(places, name) for name, weight in _weights(net))


def layer_outputs(net: nn.Cell) -> int:
    """Numbers that convolutions and affine maps give for one image."""
    places, _ = net.applications()
    return sum(weight.shape[0] * _count(places, name) for name, weight in _weights(net))


def _weights(net: nn.Cell) -> list[tuple[str, Parameter]]:
    """Of convolutions and affine maps; outputs are their first dimension."""
    return [(name, one) for name, one in net.parameters_and_names() if name.endswith(".weight") and one.ndim > 1]


def _count(places: dict[str, int], name: str) -> int:
    """How often a weight is applied: the number of the first pattern that its name starts with."""
    return next(count for pattern, count in places.items() if re.match(pattern, name))
