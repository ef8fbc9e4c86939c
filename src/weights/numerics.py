"""Which numerics a set of weights was trained with: the authors', or the model zoo's."""

from __future__ import annotations

from pathlib import Path

from mindspore.nn.utils import no_init_parameters

from src.models import build_configured_model
from src.schema import ModelConfig
from src.weights.manifest import read_manifest
from src.weights.names import detect_naming
from src.weights.source import Source, open_source


def with_numerics(model: ModelConfig, weights: Path | None) -> ModelConfig:
    """The model with ``compat`` as its weights were trained, where the user left it empty.

    A checkpoint of ours says it in its manifest, one of the model zoo's is known by its names. Whatever is not the
    authors' is printed.

    Raises:
        ModelFileError: unreadable weights.
    """
    if model.compat is not None:
        return model
    compat = "official"
    if weights is not None:
        manifest = read_manifest(weights)
        compat = numerics_of(open_source(weights), model) if manifest is None else manifest.config["compat"]
    if compat != "official":
        print(f"=> compat {compat}: the numerics that '{weights}' was trained with")
    return model.model_copy(update={"compat": compat})


def numerics_of(source: Source, model: ModelConfig) -> str:
    """A value of ``compat``, by the names of the weights."""
    with no_init_parameters():
        net = build_configured_model(model)
    return "zoo" if detect_naming(source.weights, net).name.startswith("zoo") else "official"
