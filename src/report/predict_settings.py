"""What a user can ask of predict.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from src import schema
from src.config import load_request
from src.deploy.model_info import info_path, read_model_info
from src.errors import ConfigError, ModelFileError, fault
from src.schema import Config, ModelConfig
from src.weights.manifest import read_manifest

# An image needs no more; the default of training is for its many.
_BATCH_SIZE = 16
# What a network's record says of it and of its images; the rest of the record is about its training.
_RECORDED = {
    *ModelConfig.model_fields,
    *("exif_orientation", "crop_pct", "interpolation", "resize_mode", "mean", "std"),
} - {"pretrained", "reset_head", "use_ema", "resample_patches"}


class PredictConfig(schema.Section):
    """predict.py PATH ...: images, folders that are searched through, patterns such as 'photos/*.jpg'; or --serve."""

    mindir: schema.Path = Field(None, description="MINDIR to predict with, its .json beside it")
    onnx: schema.Path = Field(None, description="ONNX file to predict with, its .json beside it")
    top_k: schema.Count = Field(5, description="classes that are named for each image")
    tta: Literal["none", "flip"] = Field(
        "none", description="flip: mean of the probabilities of an image and of its mirror image"
    )
    csv_file: schema.Path = Field(None, description="table to write, .csv")
    json_file: schema.Path = Field(None, description="the same as .json")
    attention: schema.Path = Field(None, description="folder for pictures of where the network looks")
    attention_inner: bool = Field(False, description="TNT: the inner stream's picture too")
    strict: bool = Field(False, description="images that cannot be read end the command with exit code 3")
    serve: bool = Field(
        False, description="serve a page, for this machine alone, that predicts the image dropped on it"
    )
    port: schema.or_none(Annotated[int, Field(ge=0, lt=65536)]) = Field(
        None, description="of the page; empty for 8000, 0 for any that is free"
    )


@dataclass(frozen=True)
class Request:
    """A command line: the network and its transform, the command's own keys, and the images' names."""

    config: Config
    settings: PredictConfig
    words: tuple[str, ...]


def read_command_line(argv: list[str]) -> Request:
    """Flags and names. Without ``--config`` the network is the one that lies recorded beside its weights.

    Raises:
        ConfigError: every fault of the command line.
        ModelFileError: weights or an exported file that are missing or damaged.
    """
    config, settings, words = load_request("predict", argv, PredictConfig, recorded_values)
    faults = [*_faults_of_source(config, settings), *_faults_of_results(settings)]
    if settings.serve:
        results = {"--csv": settings.csv_file, "--json": settings.json_file, "--attention": settings.attention}
        others = [*(flag for flag, file in results.items() if file is not None), *["--strict"] * settings.strict]
        if words or others:
            faults.append(fault("--serve", "takes no images, and writes nothing", ", ".join([*words, *others])))
    elif not words:
        faults.append(fault("command line", "must name images, folders or patterns, or say --serve"))
    if settings.port is not None and not settings.serve:
        faults.append(fault("--port", "is for --serve", settings.port))
    if faults:
        raise ConfigError.from_lines(faults)
    return Request(config, settings, tuple(words))


def _faults_of_source(config: Config, settings: PredictConfig) -> Iterator[str]:
    files = {"--pretrained": config.model.pretrained, "--mindir": settings.mindir, "--onnx": settings.onnx}
    given = {flag: file for flag, file in files.items() if file is not None}
    if len(given) != 1:
        received = ", ".join(f"{flag} {file}" for flag, file in given.items()) or None
        yield fault("command line", "must name what to predict with, once", received, files)
    elif "--pretrained" not in given:
        pictures = {"--attention": settings.attention, "--attention_inner": settings.attention_inner or None}
        for flag in (flag for flag, value in pictures.items() if value is not None):
            yield fault(flag, "needs --pretrained: an exported file does not tell where it looks")


def _faults_of_results(settings: PredictConfig) -> Iterator[str]:
    for flag, file in (("--csv", settings.csv_file), ("--json", settings.json_file)):
        # A forgotten name must not let an image be overwritten.
        if file is not None and Path(file).suffix.lower() != f".{flag[2:]}":
            yield fault(flag, f"must name a .{flag[2:]} file", file)
    if settings.attention is not None and Path(settings.attention).is_file():
        yield fault("--attention", "must name a folder", settings.attention)
    if settings.attention_inner and settings.attention is None and not settings.serve:
        yield fault("--attention_inner", "needs --attention")


def recorded_values(settings: PredictConfig, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the configuration's keys as they lie beside the weights or the exported file.

    Raises:
        ConfigError: nothing lies there, and no flag names the network.
        ModelFileError: a file that is missing.
    """
    exported = settings.mindir or settings.onnx
    recorded: Mapping[str, Any] = {}
    if exported is not None:
        recorded = read_model_info(info_path(Path(exported))).config
    elif "pretrained" in flags:
        weights = Path(flags["pretrained"])
        manifest = read_manifest(weights)
        if not weights.is_file():
            raise ModelFileError(weights, "no such file")
        if manifest is not None:
            recorded = manifest.config
        elif "arch" not in flags:
            rule = f"must be given, as --arch NAME or --config YAML: no .json beside {weights.name} says it"
            raise ConfigError("arch", rule)
    return {"batch_size": _BATCH_SIZE} | {key: recorded[key] for key in _RECORDED & recorded.keys()}
