"""Weights to a file that other programs run: MINDIR, AIR or ONNX, with its description beside it."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.config import require_built
from src.data.transforms import EvalTransform
from src.deploy.mindir_v1 import rewrite_file
from src.deploy.model_info import InputInfo, ModelInfo, TransformInfo, info_path, write_model_info
from src.deploy.onnx_file import leave_batch_open
from src.device import open_device, versions
from src.errors import ConfigError
from src.files import replacing, sha256
from src.models import build_configured_model, resolved
from src.models.kernels import kernel_form
from src.schema import BUILT_FOR_EXPORT, Config, ExportConfig, RunConfig
from src.weights.load import given_weights, load_given_weights
from src.weights.manifest import flat_config, verified_manifest
from src.weights.numerics import with_numerics

SUFFIXES = {"MINDIR": ".mindir", "AIR": ".air", "ONNX": ".onnx"}


def export_model(config: Config) -> Path:
    """Export the weights ``pretrained`` as ``OUTPUT_DIR/FILE_NAME.mindir``, ``.air`` or ``.onnx``; returns that path.

    Its description (`ModelInfo`) lies beside it. The graph is float32, for a fixed number of images or for any. MINDIR
    and ONNX hold operators that MindSpore Lite 2.0 and ONNX Runtime compute right, AIR those of an Ascend device.

    Raises:
        ConfigError: keys that do not fit the format, AIR without an Ascend device, or no weights given.
        ModelFileError: weights that do not fit; what was exported before stays.
    """
    require_built(config, BUILT_FOR_EXPORT)
    config = resolved(config)
    model, export, run = config.model, config.export, config.run
    check_format(export, run)
    weights = given_weights(model)
    manifest = verified_manifest(weights)
    open_device(run)
    config = config.model_copy(update={"model": with_numerics(model, weights)})
    model = config.model
    with kernel_form("native" if export.file_format == "AIR" else "export"):
        net = build_configured_model(model)
    print(load_given_weights(net, model))
    net.set_train(False)
    shape = (export.export_batch_size, model.in_channels, model.image_size, model.image_size)
    target = Path(config.checkpoint.output_dir) / ((export.file_name or model.arch) + SUFFIXES[export.file_format])
    write_graph(net, shape, target, export.file_format, export.ir_version)
    info = ModelInfo(
        arch=model.arch,
        file=target.name,
        bytes=target.stat().st_size,
        sha256=sha256(target),
        file_format=export.file_format,
        ir_version=export.ir_version if export.file_format == "MINDIR" else None,
        num_classes=model.num_classes,
        class_names=manifest.class_names if manifest else None,
        input=InputInfo(name="image_BCYX", shape=shape, dtype="float32"),
        transform=TransformInfo.of(EvalTransform.from_config(config.data, model.image_size)),
        source=str(weights),
        source_sha256=sha256(weights),
        versions=versions(),
        config=flat_config(config),
    )
    write_model_info(target, info)
    sides = " x ".join(str(size or "any") for size in shape)
    size = f"{info.bytes / 2**20:.1f} MiB, input {sides}"
    print(f"=> exported {target} ({size}) and {info_path(target).name}")
    return target


def check_format(export: ExportConfig, run: RunConfig) -> None:
    """The keys fit the format of the file, and this machine can write it.

    Raises:
        ConfigError: they do not.
    """
    if export.file_format != "MINDIR" and export.ir_version != 3:
        rule = f"is of MINDIR files alone, leave it out with {export.file_format}"
        raise ConfigError("ir_version", rule, export.ir_version)
    if export.file_format == "AIR":
        if run.device_target != "Ascend":
            rule = "AIR is written by the compiler of an Ascend device, which needs --device_target Ascend"
            raise ConfigError("file_format", rule, "AIR", ["MINDIR", "ONNX"])
        if export.export_batch_size is None:
            raise ConfigError("batch_size", "AIR holds a fixed number of images", "dynamic", "a whole number from 1")


def write_graph(net: nn.Cell, shape: tuple[int | None, ...], target: Path, file_format: str, ir_version: int) -> None:
    """Compile a network for images of this shape and write it, as a whole or not at all.

    A first axis of None takes any number of images.

    Raises:
        ModelFileError: IR version 1 cannot express the network, or it has to know the number of images.
    """
    is_dynamic = shape[0] is None
    if is_dynamic and file_format == "MINDIR":
        image = Tensor(shape=shape, dtype=ms.float32)
        net.set_inputs(image)
    else:
        image = Tensor(np.zeros((shape[0] or 1, *shape[1:]), np.float32))
    # MindSpore takes no path with blanks or letters beyond ASCII, and prints a page about every ONNX export.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        exported = Path(folder) / f"graph{target.suffix}"
        ms.export(net, image, file_name=str(exported), file_format=file_format)
        if file_format == "MINDIR" and ir_version == 1:
            exported.chmod(0o644)
            rewrite_file(exported, exported)
        if file_format == "ONNX" and is_dynamic:
            exported.chmod(0o644)
            leave_batch_open(exported)
        with replacing(target) as temporary:
            shutil.copyfile(exported, temporary)
