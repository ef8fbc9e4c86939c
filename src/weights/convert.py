"""Weight files under other names, in another format, for another image size, or the mean of several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mindspore import nn
from mindspore.nn.utils import no_init_parameters

from src.errors import ConfigError, UserError
from src.models import MODELS, build_configured_model, canonical_arch, model_entry
from src.models.catalog import CatalogRow, catalog, matching_archs
from src.schema import ModelConfig
from src.weights.average import open_mean
from src.weights.convert_settings import ConvertConfig
from src.weights.fit import POSITIONS, assemble, fitted_weights
from src.weights.manifest import Manifest, read_manifest, verified_manifest
from src.weights.names import detect_naming, namings
from src.weights.naming import Naming
from src.weights.numerics import numerics_of
from src.weights.resample import prefix_tokens
from src.weights.source import Source, some
from src.weights.write import write_ckpt, write_safetensors

_WRITERS = {".ckpt": (write_ckpt, "ours"), ".safetensors": (write_safetensors, "timm")}
_FIRST_CONVOLUTIONS = (
    "patch_embed.proj.weight",
    "pixel_embed.proj.weight",
    "patch_embeds.0.proj.weight",
    "tokenizer.conv_layers.0.0.weight",
)


def convert(sources: Sequence[Path], config: ConvertConfig) -> None:
    """Write the weights of a file, or the mean of several, as ``config`` wants them.

    Raises:
        ConfigError: a target that may not be written, or a model that nothing names.
        ModelFileError: weights that are damaged or do not fit; what stood at the target stays.
    """
    target = Path(config.to)
    _require_free(target, sources)
    source = open_mean(sources)
    model = _chosen_model(sources, source, config)
    net = _without_values(model)
    arrays, report = fitted_weights(net, source)
    write, usual = _WRITERS[target.suffix]
    names = config.names or usual
    naming = _naming_to_write(net, model.arch, names)
    without_place = [name for name in arrays if not naming.origins[name].names]
    if without_place:
        rule = f"the model zoo's {model.arch} has no place for {some(without_place)}"
        raise ConfigError("names", rule, names, ["ours", "timm"])
    tensors = naming.write(arrays)
    write(target, tensors)
    print(report.listing() if config.details else report)
    form = f"{model.arch}, compat {model.compat}, {model.num_classes} classes, {model.image_size} x {model.image_size}"
    size = f"{len(tensors)} tensors, {target.stat().st_size / 2**20:.1f} MiB"
    print(f"=> wrote {target} (names: {names}, {size}; {form})")


def list_models(pattern: str) -> None:
    """Print a line for each model that matches: what it costs, how it wants its images, whose weights it takes.

    Raises:
        ConfigError: none does.
    """
    archs = matching_archs(pattern)
    width = max(map(len, archs))
    columns = f"{'params':>11}  {'MACs':>15}  {'image':>5}  {'classes':>7}  {'mean':<20}  {'std':<20}  crop"
    print(f"{'arch':<{width}}  {columns}   weights; aliases")
    for row in catalog(archs):
        print(_line(row, width), flush=True)


def _line(row: CatalogRow, width: int) -> str:
    cfg = row.default_cfg
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (cfg.mean, cfg.std))
    known = ", ".join(naming.name for naming in namings(row.net))
    aliases = f"; {', '.join(row.aliases)}" if row.aliases else ""
    numbers = f"{row.params:>11}  {row.macs:>15}  {row.image_size:>5}  {row.num_classes:>7}"
    return f"{row.arch:<{width}}  {numbers}  {mean:<20}  {std:<20}  {cfg.crop_pct:<5}  {known}{aliases}"


def _require_free(target: Path, sources: Sequence[Path]) -> None:
    for source in sources:
        if source.resolve() == target.resolve() or (target.exists() and source.exists() and source.samefile(target)):
            raise ConfigError("--to", "is one of the files to read, choose another name", target)
    if read_manifest(target) is not None:
        rule = "is a checkpoint of a run, and the .json beside it would no longer be true: choose another name"
        raise ConfigError("--to", rule, target)


def _naming_to_write(net: nn.Cell, arch: str, names: str) -> Naming:
    wanted = {"ours": "ours", "timm": "official", "zoo": "zoo ViT" if MODELS[arch].family == "vit" else "zoo"}[names]
    found = next((naming for naming in namings(net) if naming.name == wanted), None)
    if found is None:
        raise ConfigError("names", f"the model zoo has no model like {arch}", names, ["ours", "timm"])
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Which model


def _without_values(model: ModelConfig) -> nn.Cell:
    """The network, of which only names and shapes are wanted."""
    with no_init_parameters():
        return build_configured_model(model)


def _chosen_model(sources: Sequence[Path], source: Source, config: ConvertConfig) -> ModelConfig:
    """The model that a flag or the manifests beside our checkpoints name, else the only one that the weights fit."""
    manifests = [verified_manifest(path) for path in sources]
    archs = {manifest.arch if manifest else None for manifest in manifests}
    own = manifests[0] if len(archs) == 1 else None
    arch = canonical_arch(config.arch) if config.arch else own and own.arch
    if arch is None:
        return _only_fitting_model(source, config)
    model_entry(arch)
    if own is not None and own.arch == arch:
        return _sized(_of_manifest(own), source, config)
    return _sized(ModelConfig(arch=arch), source, config)


def _of_manifest(manifest: Manifest) -> ModelConfig:
    return ModelConfig(**{key: value for key, value in manifest.config.items() if key in ModelConfig.model_fields})


def _only_fitting_model(source: Source, config: ConvertConfig) -> ModelConfig:
    """The model that the weights fit.

    Raises:
        ConfigError: none of them, or several, such as a ViT and a DeiT of the same size.
    """
    # Every model has norms, and those are vectors of its widths.
    widths = {len(array) for array in source.weights.values() if array.ndim == 1}
    fitting = []
    for arch, entry in MODELS.items():
        dims = entry.sizes["embed_dims"] if "embed_dims" in entry.sizes else (entry.sizes["embed_dim"],)
        model = ModelConfig(arch=arch)
        if not widths.issuperset(dims) or not _explains_all(_without_values(model), source):
            continue
        try:
            model = _sized(model, source, config)
            fitted_weights(_without_values(model), source)
        except UserError:
            continue
        fitting.append(model)
    # The same weights fit every image size, and the arch of their own is meant.
    own_size = [model for model in fitting if MODELS[model.arch].image_size == model.image_size] or fitting
    own_head = [model for model in own_size if MODELS[model.arch].num_classes == model.num_classes] or own_size
    if len(own_head) == 1:
        return own_head[0]
    if not own_head:
        raise ConfigError("--arch", f"must be given, no model fits the weights of {source.label} as it is")
    known = [model.arch for model in own_head]
    raise ConfigError("--arch", f"must be given, the weights of {source.label} fit several models", None, known)


def _explains_all(net: nn.Cell, source: Source) -> bool:
    return source.weights.keys() <= detect_naming(source.weights, net).known_names()


def _sized(model: ModelConfig, source: Source, config: ConvertConfig) -> ModelConfig:
    """The model with the numerics, class count, image size and channels that flags or else the weights say.

    Raises:
        ModelFileError: the weights are of another network.
    """
    compat = config.compat or model.compat or numerics_of(source, model)
    model = model.model_copy(update={"compat": compat})
    net = _without_values(model)
    arrays = assemble(source, detect_naming(source.weights, net)).arrays
    entry = model_entry(model.arch)
    sizes = {
        "num_classes": config.num_classes or _num_classes(net, arrays) or model.num_classes or entry.num_classes,
        "image_size": config.image_size or _image_size(net, arrays, model.image_size or entry.image_size),
        "in_channels": _in_channels(arrays) or model.in_channels,
    }
    return model.model_copy(update=sizes)


def _num_classes(net: nn.Cell, arrays: dict[str, np.ndarray]) -> int | None:
    """Rows of the head."""
    return next(
        (len(array) for name, array in arrays.items() if name.startswith(net.head_prefixes()) and array.ndim == 2), None
    )


def _in_channels(arrays: dict[str, np.ndarray]) -> int | None:
    """Input channels of the first convolution."""
    return next((arrays[name].shape[1] for name in _FIRST_CONVOLUTIONS if name in arrays), None)


def _image_size(net: nn.Cell, arrays: dict[str, np.ndarray], own_size: int) -> int:
    """The side of the image that the grid of position embeddings belongs to."""
    parameters = dict(net.parameters_and_names())
    for name in POSITIONS:
        if name in parameters and name in arrays and arrays[name].ndim == 3:
            num_tokens = parameters[name].shape[1]
            prefix = prefix_tokens(num_tokens)
            own, grid = math.isqrt(num_tokens), math.isqrt(max(arrays[name].shape[1] - prefix, 0))
            if grid > 0 and grid * grid == arrays[name].shape[1] - prefix and own_size * grid % own == 0:
                return own_size * grid // own
    return own_size
