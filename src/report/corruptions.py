"""ImageNet-C: the error under every corruption, mean over its five severities.

https://arxiv.org/abs/1903.12261 divides each by AlexNet's and calls the mean mCE. The paper does not print AlexNet's
errors themselves, so what is given here is the plain mean, and is called so.

Shape letters: N images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np


def corruption_errors(
    index_N: np.ndarray, is_right_N: np.ndarray, corruptions: Mapping[str, range]
) -> dict[str, float]:
    """Corruption -> share of wrong answers. Severities have as many images each, so that their mean is the whole's.

    Args:
        index_N: places of the images that were read, ascending.
        is_right_N: whether the first answer is right.
        corruptions: name and places of the images of each corruption.
    """
    errors = {}
    for name, places in corruptions.items():
        first, last = np.searchsorted(index_N, [places.start, places.stop])
        errors[name] = 1.0 - float(is_right_N[first:last].mean()) if first < last else math.nan
    return errors


def error_lines(errors: Mapping[str, float]) -> list[str]:
    """A table for a terminal."""
    width = max(len("corruption"), *map(len, errors)) + 2
    lines = [f"{'corruption':<{width}}{'error':>8}"]
    lines += [f"{name:<{width}}{error:>8.2%}" for name, error in errors.items()]
    mean = sum(errors.values()) / len(errors)
    note = f"plain mean of {len(errors)}, not divided by AlexNet's errors: no mCE"
    return [*lines, f"{'mean':<{width}}{mean:>8.2%}  ({note})"]
