"""Weights to a file that other programs run: MINDIR or ONNX, with its description beside it."""

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
from src.device import open_device, versions
from src.errors import ConfigError
from src.files import replacing, sha256
from src.models import build_configured_model, resolved
from src.models.kernels import kernel_form
from src.schema import BUILT_FOR_EXPORT, Config
from src.weights.load import given_weights, load_given_weights
from src.weights.manifest import flat_config, verified_manifest
from src.weights.numerics import with_numerics

SUFFIXES = {"MINDIR": ".mindir", "ONNX": ".onnx"}


def export_model(config: Config) -> Path:
    """Export the weights ``pretrained`` as ``OUTPUT_DIR/FILE_NAME.mindir`` or ``.onnx``; returns that path.

    Its description (`ModelInfo`) lies beside it. The graph is float32 with a fixed batch size, in
    operators that MindSpore Lite 2.0 and ONNX Runtime compute right.

    Raises:
        ConfigError: AIR without an Ascend device, or no weights given.
        ModelFileError: weights that do not fit; what was exported before stays.
    """
    require_built(config, BUILT_FOR_EXPORT)
    config = resolved(config)
    model, export, run = config.model, config.export, config.run
    if export.file_format == "AIR":
        rule = "AIR is written by the compiler of an Ascend device, not built yet"
        raise ConfigError("file_format", rule, "AIR", list(SUFFIXES))
    if export.file_format == "ONNX" and export.ir_version != 3:
        raise ConfigError("ir_version", "is of MINDIR files alone, leave it out with ONNX", export.ir_version)
    weights = given_weights(model)
    manifest = verified_manifest(weights)
    open_device(run)
    config = config.model_copy(update={"model": with_numerics(model, weights)})
    model = config.model
    with kernel_form("export"):
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
    size = f"{info.bytes / 2**20:.1f} MiB, input {' x '.join(map(str, shape))}"
    print(f"=> exported {target} ({size}) and {info_path(target).name}")
    return target


def write_graph(net: nn.Cell, shape: tuple[int, ...], target: Path, file_format: str, ir_version: int) -> None:
    """Compile a network for images of this shape and write it, as a whole or not at all.

    Raises:
        ModelFileError: IR version 1 cannot express the network.
    """
    image = Tensor(np.zeros(shape, np.float32))
    # MindSpore takes no path with blanks or letters beyond ASCII, and prints a page about every ONNX export.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        exported = Path(folder) / f"graph{target.suffix}"
        ms.export(net, image, file_name=str(exported), file_format=file_format)
        if file_format == "MINDIR" and ir_version == 1:
            exported.chmod(0o644)
            rewrite_file(exported, exported)
        with replacing(target) as temporary:
            shutil.copyfile(exported, temporary)
