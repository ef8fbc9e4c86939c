"""Weights from anywhere into a network: everything is checked first, then everything is assigned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mindspore import Tensor, nn

from src.errors import ConfigError, ModelFileError
from src.schema import ModelConfig
from src.weights.manifest import verified_manifest
from src.weights.names import detect_naming, is_training_state, strip_wrappers
from src.weights.read import read_tensors

_SHOWN = 4


@dataclass(frozen=True)
class WeightReport:
    """What became of the tensors of a source; names are the network's, of ``left_over`` the source's."""

    source: str
    naming: str
    loaded: list[str]
    renamed: list[str] = field(default_factory=list)
    reset: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"loaded {len(self.loaded)}"]
        for word in ("renamed", "reset"):
            if getattr(self, word):
                parts.append(f"{word} {len(getattr(self, word))}")
        if self.left_over:
            parts.append(f"left over {len(self.left_over)} of the training state")
        return f"weights of {self.source} (naming: {self.naming}): {', '.join(parts)}"


def load_weights(
    net: nn.Cell, source: str | Path | Mapping[str, np.ndarray], *, reset_head: bool = False
) -> WeightReport:
    """Load a complete set of weights.

    Args:
        net: the network; unchanged when an error is raised.
        source: a .ckpt, .safetensors or .pth file, or arrays by name, in our names or the authors' (timm's for ViT).
        reset_head: keep the network's own head where the source's has another shape.

    Raises:
        ModelFileError: unreadable or damaged file, names that are missing or left over, shapes that differ, values that
            are not finite.
    """
    label, tensors = _open(source)
    state = sorted(name for name in tensors if is_training_state(strip_wrappers(name)))
    weights = {strip_wrappers(name): array for name, array in tensors.items() if name not in set(state)}
    if len(weights) + len(state) < len(tensors):
        stripped = [strip_wrappers(name) for name in tensors.keys() - set(state)]
        twice = sorted({name for name in stripped if stripped.count(name) > 1})
        raise ModelFileError(label, f"holds weights twice, with and without a wrapper's prefix: {_some(twice)}")
    naming, table = detect_naming(weights, net)
    parameters = dict(net.parameters_and_names())
    found = {table[name]: array for name, array in weights.items() if name in table}
    renamed = sorted(ours for theirs, ours in table.items() if theirs != ours and ours in found)
    reset = []
    if reset_head:
        heads = [name for name in parameters if name.startswith(net.head_prefixes())]
        differ = any(name not in found or found[name].shape != parameters[name].shape for name in heads)
        reset = heads if differ else []
    _require_match(label, parameters, found, sorted(weights.keys() - table.keys()), set(reset))
    for name, parameter in parameters.items():
        if name not in reset:
            parameter.set_data(Tensor(np.ascontiguousarray(found[name], np.float32)))
    loaded = [name for name in parameters if name not in reset]
    return WeightReport(label, naming, loaded, renamed, reset, state)


def given_weights(model: ModelConfig) -> Path:
    """The file that the key ``pretrained`` names.

    Raises:
        ConfigError: the key is empty.
    """
    if model.pretrained is None:
        raise ConfigError("pretrained", "must name a weight file, such as --pretrained ckpt_0/best.ckpt")
    return Path(model.pretrained)


def _open(source: str | Path | Mapping[str, np.ndarray]) -> tuple[str, Mapping[str, np.ndarray]]:
    if isinstance(source, (str, Path)):
        verified_manifest(Path(source))
        return str(source), read_tensors(Path(source))
    return "arrays", source


def _require_match(
    label: str, parameters: dict, found: dict[str, np.ndarray], unexpected: list[str], reset: set[str]
) -> None:
    wanted = parameters.keys() - reset
    missing = sorted(wanted - found.keys())
    shapes = [
        f"{name} {tuple(found[name].shape)} for {tuple(parameters[name].shape)}"
        for name in sorted(wanted & found.keys())
        if tuple(found[name].shape) != tuple(parameters[name].shape)
    ]
    infinite = [name for name in sorted(wanted & found.keys()) if not np.isfinite(found[name]).all()]
    kinds = {"missing": missing, "unexpected": unexpected, "wrong shape": shapes, "not finite": infinite}
    faults = [f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds.items() if names]
    if faults:
        raise ModelFileError(label, f"does not fit the model: {'; '.join(faults)}")


def _some(names: list[str]) -> str:
    more = f", … {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
