"""Several sets of weights on the same images, in one table.

Shape letters: N images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.errors import DataError
from src.metrics import mcnemar_p, wilson_interval
from src.schema import Config, DataConfig, ModelConfig
from src.trainers.evaluator import Evaluation
from src.weights.manifest import Manifest, verified_manifest

# How a network sees its images: keys of the data that belong to the weights.
_SEEN = ("crop_pct", "interpolation", "resize_mode", "mean", "std")
_GIVEN = {"pretrained", "reset_head", "use_ema", "resample_patches"}


def config_for(config: Config, weights: str) -> Config:
    """The configuration with another set of weights.

    A checkpoint of ours says which network it belongs to and how that sees images; of other files it is taken to be
    what the configuration says.

    Raises:
        ModelFileError: no such file, or a damaged checkpoint.
    """
    manifest = verified_manifest(Path(weights))
    model, data = {"pretrained": weights}, {}
    if manifest is not None:
        model |= _values(manifest, set(ModelConfig.model_fields) - _GIVEN)
        data |= _values(manifest, _SEEN)
    return config.model_copy(
        update={
            "model": ModelConfig.model_validate(config.model.model_dump() | model),
            "data": DataConfig.model_validate(config.data.model_dump() | data),
        }
    )


def _values(manifest: Manifest, keys: Sequence[str] | set[str]) -> dict[str, object]:
    return {key: manifest.config[key] for key in keys if key in manifest.config}


def comparison_lines(evaluations: Sequence[Evaluation]) -> list[str]:
    """A table for a terminal: accuracies with their intervals, and each against the first image by image.

    Raises:
        DataError: they have not read the same images.
    """
    first = evaluations[0]
    names = [str(one.weights) for one in evaluations]
    width, arch_width = (max(map(len, words)) + 2 for words in (names, [one.config.model.arch for one in evaluations]))
    head = f"{'weights':<{width}}{'arch':<{arch_width}}{'images':>8}{'top-1':>9}{'95 % interval':>19}"
    lines = [f"{head}{'top-5':>9}{'loss':>9}{'gained':>8}{'lost':>7}{'p':>9}"]
    for name, one in zip(names, evaluations, strict=True):
        counts, is_right_N = one.result.counts, one.is_right
        low, high = wilson_interval(int(is_right_N.sum()), counts.total)
        line = f"{name:<{width}}{one.config.model.arch:<{arch_width}}{counts.total:>8}{is_right_N.mean():>9.2%}"
        line += f"{f'{low:.2%} - {high:.2%}':>19}"
        line += (
            f"{counts.top5_accuracy:>9.2%}{one.result.loss:>9.4f}" if one.eval_set.accepted is None else f"{'-':>9}" * 2
        )
        if one is not first:
            gained, lost = _against(first, one)
            line += f"{gained:>8}{lost:>7}{mcnemar_p(gained, lost):>9.2g}"
        lines.append(line)
    lines.append("(gained, lost: images that it has right and the first has wrong, and the other way round;")
    lines.append(
        " p: how likely at least such a difference is between two that are equally good, McNemar's exact test)"
    )
    return lines


def _against(first: Evaluation, other: Evaluation) -> tuple[int, int]:
    if not np.array_equal(first.result.prediction_N["index"], other.result.prediction_N["index"]):
        raise DataError("compare", "images were left out for one of the weights and read for another")
    return int((other.is_right & ~first.is_right).sum()), int((first.is_right & ~other.is_right).sum())
