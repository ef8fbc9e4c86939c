"""Which parameters a run trains, which of them are decayed, and how fast each layer moves.

Every trainable parameter is one `Member`, in the network's order; frozen ones are none: an optimizer never sees them.
"""

from __future__ import annotations

import difflib
from fnmatch import fnmatchcase
from typing import NamedTuple

from mindspore import Parameter, nn

from src.errors import ConfigError
from src.schema import OptimConfig


class Member(NamedTuple):
    """A trainable parameter; ``scale`` multiplies its rate, a matrix has two dimensions and is not of the head."""

    name: str
    parameter: Parameter
    is_decayed: bool
    scale: float
    is_matrix: bool


def members_of(net: nn.Cell, optim: OptimConfig) -> list[Member]:
    """The trainable parameters with their place in the recipe."""
    decayed = set(split_by_decay(net, optim.decay_rule)[0])
    scales = layer_scales(net, optim.layer_decay) if optim.layer_decay is not None else {}
    members = []
    for name, parameter in _trainable(net).items():
        is_matrix = parameter.ndim == 2 and min(parameter.shape) > 1 and not name.startswith(net.head_prefixes())
        members.append(Member(name, parameter, name in decayed, scales.get(name, 1.0), is_matrix))
    return members


def split_by_decay(net: nn.Cell, rule: str = "standard") -> tuple[list[str], list[str]]:
    """Names of trainable parameters: (decayed, not decayed).

    Args:
        net: offers ``no_weight_decay() -> names`` and ``decayed_by_zoo(name) -> bool``.
        rule: ``standard`` leaves out vectors (biases, norms) and what the model names in ``no_weight_decay``, as timm's
            ``param_groups_weight_decay`` does; ``zoo`` is what the model zoo's code does for the family; ``all`` leaves
            out nothing.
    """
    skip = net.no_weight_decay()
    rules = {
        "standard": lambda name, parameter: parameter.ndim > 1 and name not in skip,
        "zoo": lambda name, _: net.decayed_by_zoo(name),
        "all": lambda *_: True,
    }
    decayed, kept = [], []
    for name, parameter in _trainable(net).items():
        (decayed if rules[rule](name, parameter) else kept).append(name)
    return decayed, kept


def layer_scales(net: nn.Cell, layer_decay: float) -> dict[str, float]:
    """Factor of the learning rate of every parameter: 1 for the head, times ``layer_decay`` for each layer before.

    https://arxiv.org/abs/2106.08254 appendix; the layers are timm's ``param_groups_layer_decay``.
    """
    groups = net.layer_groups()
    last = len(groups) - 1
    return {name: layer_decay ** (last - index) for index, names in enumerate(groups) for name in names}


def freeze(net: nn.Cell, patterns: tuple[str, ...]) -> list[str]:
    """Take what matches out of training; returns the names that it took out.

    Args:
        net: the network; ``requires_grad`` of the matching parameters becomes False.
        patterns: shell patterns of whole parameter names, ``blocks.[0-5].*``.

    Raises:
        ConfigError: a pattern that matches no parameter, or nothing left to train; nothing is frozen then.
    """
    names = [name for name, _ in net.parameters_and_names()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            modules = {f"{name.rpartition('.')[0]}.*" for name in names}
            near = difflib.get_close_matches(pattern, [*names, *sorted(modules)], n=3) or None
            raise ConfigError("freeze", "matches no parameter", pattern, near)
    trainable = _trainable(net)
    taken = [name for name in trainable if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if len(taken) == len(trainable):
        raise ConfigError("freeze", "leaves nothing to train", ",".join(patterns))
    for name in taken:
        trainable[name].requires_grad = False
    return taken


def plan_lines(net: nn.Cell, optim: OptimConfig) -> list[str]:
    """The zoo's line for every trainable parameter, then what they sum up to."""
    decayed, kept = split_by_decay(net, optim.decay_rule)
    frozen = sum(1 for _ in net.parameters_and_names()) - len(decayed) - len(kept)
    lines = [f"=> decay {name}" for name in decayed] + [f"=> no decay {name}" for name in kept]
    lines.append(f"=> {len(decayed)} tensors with decay, {len(kept)} without, {frozen} not trained")
    if optim.layer_decay is not None:
        scales = layer_scales(net, optim.layer_decay).values()
        lines.append(f"=> layer_decay {optim.layer_decay}: rates from {min(scales):.3g} of the head's to the head's")
    return lines


def _trainable(net: nn.Cell) -> dict[str, Parameter]:
    return {name: parameter for name, parameter in net.parameters_and_names() if parameter.requires_grad}
