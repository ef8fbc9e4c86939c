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
from src.deploy.folding import fold
from src.deploy.mindir_v1 import rewrite_file
from src.deploy.model_info import InputInfo, ModelInfo, TransformInfo, info_path, write_model_info
from src.deploy.onnx_file import leave_batch_open
from src.deploy.quantization import calibration_images, quantize_onnx, write_converter_config
from src.device import open_device, versions
from src.errors import ConfigError
from src.files import replacing, sha256
from src.models import build_configured_model, resolved
from src.models.kernels import kernel_form
from src.schema import BUILT_FOR_EXPORT, Config, ExportConfig, RunConfig
from src.weights.class_count import with_class_count
from src.weights.load import given_weights, load_given_weights
from src.weights.manifest import Manifest, flat_config, verified_manifest
from src.weights.numerics import with_numerics

SUFFIXES = {"MINDIR": ".mindir", "AIR": ".air", "ONNX": ".onnx"}


def export_model(config: Config) -> Path:
    """Export the weights ``pretrained`` as ``OUTPUT_DIR/FILE_NAME.mindir``, ``.air`` or ``.onnx``; returns that path.

    Its description (`ModelInfo`) lies beside it. The graph is float32, for a fixed number of images or for any. MINDIR
    and ONNX hold operators that MindSpore Lite 2.0 and ONNX Runtime compute right, AIR those of an Ascend device.

    Raises:
        ConfigError: keys that do not fit the format, AIR without an Ascend device, or no weights given.
        DataError: no images to calibrate with.
        ModelFileError: weights that do not fit; what was exported before stays.
    """
    require_built(config, BUILT_FOR_EXPORT)
    config = resolved(with_class_count(config))
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
    write_graph(net, shape, target, export)
    info = describe(config, target, shape, weights, manifest)
    write_model_info(target, info)
    sides = " x ".join(str(size or "any") for size in shape)
    size = f"{info.bytes / 2**20:.1f} MiB, input {sides}"
    print(f"=> exported {target} ({size}) and {info_path(target).name}")
    if export.file_format == "MINDIR" and export.quantization == "int8":
        command = write_converter_config(target, info, Path(export.calibrate_path))
        print(f"=> MindSpore Lite's converter quantises it: {command}")
    return target


def describe(
    config: Config, target: Path, shape: tuple[int | None, ...], weights: Path, manifest: Manifest | None
) -> ModelInfo:
    """What lies beside an exported file: ``target``, of images of this shape, from these weights."""
    model, export = config.model, config.export
    transform = EvalTransform.from_config(config.data, model.image_size)
    return ModelInfo(
        arch=model.arch,
        file=target.name,
        bytes=target.stat().st_size,
        sha256=sha256(target),
        file_format=export.file_format,
        ir_version=export.ir_version if export.file_format == "MINDIR" else None,
        quantization=export.quantization if export.file_format == "ONNX" else "none",
        num_classes=model.num_classes,
        class_names=manifest.class_names if manifest else None,
        input=InputInfo(name="image_BCYX", shape=shape, dtype="float32"),
        transform=TransformInfo.of(transform, config.data.exif_orientation),
        source=str(weights),
        source_sha256=sha256(weights),
        versions=versions(),
        config=flat_config(config),
    )


def check_format(export: ExportConfig, run: RunConfig) -> None:
    """The keys fit the format of the file, and this machine can write it.

    Raises:
        ConfigError: they do not.
        DataError: no images to calibrate with.
    """
    file_format, quantizes = export.file_format, export.quantization != "none"
    if file_format != "MINDIR" and export.ir_version != 3:
        rule = f"is of MINDIR files alone, leave it out with {file_format}"
        raise ConfigError("ir_version", rule, export.ir_version)
    if file_format == "AIR":
        if run.device_target != "Ascend":
            rule = "AIR is written by the compiler of an Ascend device, which needs --device_target Ascend"
            raise ConfigError("file_format", rule, "AIR", ["MINDIR", "ONNX"])
        if export.export_batch_size is None:
            raise ConfigError("batch_size", "AIR holds a fixed number of images", "dynamic", "a whole number from 1")
        if quantizes:
            raise ConfigError("quantization", "is of ONNX and MINDIR, leave it out with AIR", export.quantization)
    if file_format == "MINDIR" and quantizes:
        if export.calibrate_path is None:
            rule = "must name a folder of 100 to 500 images, which MindSpore Lite's converter needs"
            raise ConfigError("calibrate_path", rule)
        calibration_images(Path(export.calibrate_path))


def write_graph(net: nn.Cell, shape: tuple[int | None, ...], target: Path, export: ExportConfig) -> None:
    """Compile a network for images of this shape and write it, as a whole or not at all.

    Args:
        net: network of the export form; folding changes its weights.
        shape: of the input; a first axis of None takes any number of images.
        target: file to write.
        export: its format, and what is done to make it smaller and faster.

    Raises:
        ModelFileError: IR version 1 cannot express the network, or it has to know the number of images.
        UserError: a package is missing.
    """
    if export.fold:
        fold(net)
    is_dynamic, is_onnx = shape[0] is None, export.file_format == "ONNX"
    if is_dynamic and not is_onnx:
        image = Tensor(shape=shape, dtype=ms.float32)
        net.set_inputs(image)
    else:
        image = Tensor(np.zeros((shape[0] or 1, *shape[1:]), np.float32))
    # MindSpore takes no path with blanks or letters beyond ASCII, and prints a page about every ONNX export.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        exported = Path(folder) / f"graph{target.suffix}"
        ms.export(net, image, file_name=str(exported), file_format=export.file_format)
        exported.chmod(0o644)
        if export.ir_version == 1:
            rewrite_file(exported, exported)
        if is_onnx and is_dynamic:
            leave_batch_open(exported)
        if is_onnx and export.quantization == "int8":
            quantize_onnx(exported)
        with replacing(target) as temporary:
            shutil.copyfile(exported, temporary)
