"""Weights from anywhere into a network: everything is checked first, then everything is assigned."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from mindspore import Tensor, nn

from src.errors import ConfigError
from src.schema import ModelConfig
from src.weights.fit import fitted_weights
from src.weights.report import WeightReport
from src.weights.source import open_source


def load_weights(
    net: nn.Cell,
    source: str | Path | Mapping[str, np.ndarray],
    *,
    reset_head: bool = False,
    resample_patches: bool = False,
    ema: bool = False,
) -> WeightReport:
    """Load a complete set of weights.

    Position embeddings of another image size are resampled by the source's own rule, and the report says so.

    Args:
        net: the network; unchanged when an error is raised.
        source: a weight file, or arrays by name, in any naming of `src.weights.names.namings`.
        reset_head: keep the network's own head where the source's has another class count, or there is none.
        resample_patches: resample the patch embedding where the source's patches have another size.
        ema: load the moving average of the weights in their place.

    Raises:
        ModelFileError: unreadable or damaged file, names that are missing or left over, shapes that differ, values that
            are not finite.
    """
    opened = open_source(source, ema=ema)
    arrays, report = fitted_weights(net, opened, reset_head=reset_head, resample_patches=resample_patches)
    parameters = dict(net.parameters_and_names())
    for name, array in arrays.items():
        parameters[name].set_data(Tensor(array))
    return report


def given_weights(model: ModelConfig) -> Path:
    """The file that the key ``pretrained`` names.

    Raises:
        ConfigError: the key is empty.
    """
    if model.pretrained is None:
        raise ConfigError("pretrained", "must name a weight file, such as --pretrained ckpt_0/best.ckpt")
    return Path(model.pretrained)


def load_given_weights(net: nn.Cell, model: ModelConfig, *, reset_head: bool = False) -> WeightReport:
    """Load the file that the key ``pretrained`` names into the network of this config.

    Its key ``reset_head`` is training's alone, which hands it over: nothing else may go on with a head that was drawn.

    Raises:
        ConfigError: the key is empty.
        ModelFileError: as `load_weights`.
    """
    weights = given_weights(model)
    options = dict(reset_head=reset_head, resample_patches=model.resample_patches, ema=model.use_ema)
    report = load_weights(net, weights, **options)
    if report.naming.startswith("zoo") and model.compat != "zoo":
        print(f"warning: {weights} has the model zoo's names: compat zoo gives its own logits", file=sys.stderr)
    return report
