"""The tensors of a file or of a dictionary, sorted into weights and what is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from src.errors import ModelFileError
from src.weights.jax_names import unstacked
from src.weights.manifest import verified_manifest
from src.weights.names import is_training_state, is_unused, strip_wrappers
from src.weights.read import read_tensors

_SHOWN = 4
_EMA = "ema."


@dataclass(frozen=True)
class Source:
    """Tensors under names without wrappers.

    Args:
        label: what errors and reports call it.
        weights: what a network may want.
        left_over: names of the training state.
        unused: names of weights that no network of ours has.
    """

    label: str
    weights: dict[str, np.ndarray]
    left_over: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


def open_source(source: str | Path | Mapping[str, np.ndarray], *, ema: bool = False) -> Source:
    """Read a file or take arrays, and set aside what is no weight.

    Args:
        source: the file, or arrays by name.
        ema: take a weight's moving average in its place.

    Raises:
        ModelFileError: unreadable or damaged file, one weight under two names, or no moving average that is wanted.
    """
    if isinstance(source, (str, Path)):
        verified_manifest(Path(source))
        label, tensors = str(source), read_tensors(Path(source))
    else:
        label, tensors = "arrays", source
    if ema:
        tensors = _averaged(label, tensors)
    left_over = {name for name in tensors if is_training_state(strip_wrappers(name))}
    count = Counter(strip_wrappers(name) for name in tensors if name not in left_over)
    twice = sorted(name for name, times in count.items() if times > 1)
    if twice:
        raise ModelFileError(label, f"holds weights twice, with and without a wrapper's prefix: {some(twice)}")
    named = unstacked({strip_wrappers(name): array for name, array in tensors.items() if name not in left_over})
    weights = {name: array for name, array in named.items() if not is_unused(name)}
    return Source(label, weights, sorted(left_over), sorted(named.keys() - weights.keys()))


def _averaged(label: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    averages = {name.removeprefix(_EMA): array for name, array in tensors.items() if name.startswith(_EMA)}
    if not averages:
        raise ModelFileError(label, "holds no moving average of the weights: leave use_ema out")
    # What is frozen has none.
    return {name: array for name, array in tensors.items() if not name.startswith(_EMA)} | averages


def some(names: list[str]) -> str:
    """The first few of many names, and how many more there are."""
    more = f", … {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
