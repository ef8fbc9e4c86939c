"""Which name a parameter of ours has in other codebases.

Ours are the authors' names in MindSpore spelling, so that their files differ in the two words of a norm alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from mindspore import nn

from src.models.kernels import LayerNorm

# Wrappers that training code puts around a network.
_WRAPPERS = re.compile(r"^(?:(?:module|network|backbone|model)\.)+")
# Optimizer state and counters in checkpoints of ours, of MindSpore and of the zoo.
_NOT_WEIGHTS = re.compile(
    r"^(?:adam_m|adam_v|moments|moment1|moment2|accum|ema|_ema_weights\w*)\."
    r"|^_ema_weights|^(?:global_step|learning_rate|scale_sense|current_iterator_step|last_overflow_iterator_step)$"
)


def strip_wrappers(name: str) -> str:
    """``module.model.blocks.0…`` -> ``blocks.0…``."""
    return _WRAPPERS.sub("", name)


def is_training_state(name: str) -> bool:
    """Whether a tensor is optimizer state or a counter rather than a weight."""
    return _NOT_WEIGHTS.match(name) is not None


def official_names(net: nn.Cell) -> dict[str, str]:
    """The authors' name (torch spelling) -> ours, for each parameter of a network."""
    norms = {name for name, cell in net.cells_and_names() if isinstance(cell, LayerNorm)}
    table = {}
    for ours, _ in net.parameters_and_names():
        cell, _, leaf = ours.rpartition(".")
        theirs = {"gamma": "weight", "beta": "bias"}[leaf] if cell in norms else leaf
        table[f"{cell}.{theirs}" if cell else theirs] = ours
    return table


def detect_naming(source: Iterable[str], net: nn.Cell) -> tuple[str, dict[str, str]]:
    """The naming that fits most names of a source: ("ours" or "official", source name -> our name)."""
    source = set(source)
    ours = {name: name for name, _ in net.parameters_and_names()}
    candidates = {"ours": ours, "official": official_names(net)}
    best = max(candidates, key=lambda naming: len(source & candidates[naming].keys()))
    return best, candidates[best]
