"""The mean of several checkpoints, often better than the last one: https://arxiv.org/abs/2203.05482."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from src.errors import ModelFileError
from src.weights.source import Source, open_source, some


def open_mean(paths: Sequence[Path]) -> Source:
    """The weights of one file, or the mean of several, one file in memory at a time.

    Sums are taken in float64, so the mean of equal files is each of them to the bit.

    Raises:
        ModelFileError: unreadable or damaged file, or files of other names or shapes than the first.
    """
    first = open_source(paths[0])
    if len(paths) == 1:
        return first
    total = {name: array.astype(np.float64) for name, array in first.weights.items()}
    left_over, unused = set(first.left_over), set(first.unused)
    for path in paths[1:]:
        source = open_source(path)
        _require_same(path, source.weights, paths[0], total)
        for name, array in source.weights.items():
            total[name] += array
        left_over.update(source.left_over)
        unused.update(source.unused)
    mean = {name: (array / len(paths)).astype(np.float32) for name, array in total.items()}
    label = f"the mean of {len(paths)} files ({', '.join(map(str, paths))})"
    return Source(label, mean, sorted(left_over), sorted(unused))


def _require_same(path: Path, weights: Mapping[str, np.ndarray], first: Path, total: Mapping[str, np.ndarray]) -> None:
    missing, more = sorted(total.keys() - weights.keys()), sorted(weights.keys() - total.keys())
    shapes = [
        f"{name} {weights[name].shape} for {total[name].shape}"
        for name in sorted(total.keys() & weights.keys())
        if weights[name].shape != total[name].shape
    ]
    kinds = {"missing": missing, "more": more, "of another shape": shapes}
    faults = [f"{len(names)} {kind}: {some(names)}" for kind, names in kinds.items() if names]
    if faults:
        raise ModelFileError(path, f"cannot be averaged with {first}: {'; '.join(faults)}")
