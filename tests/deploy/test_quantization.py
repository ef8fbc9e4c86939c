"""Eight bits: an ONNX file with int8 weights, and what MindSpore Lite's converter is told."""

from __future__ import annotations

import configparser
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from mindspore import Tensor
from PIL import Image

from src.deploy.exporter import write_graph
from src.deploy.model_info import read_model_info
from src.deploy.quantization import quantize_onnx
from src.errors import ConfigError, DataError
from src.models import build_model
from src.models.kernels import kernel_form
from src.schema import ExportConfig
from tests.deploy.exports import IMAGE_SIZE, export, vit_weights

# Wide enough for the weights to be most of the file.
_SIZES = dict(image_size=32, patch_size=8, embed_dim=96, depth=2, num_heads=3, num_classes=10)


@pytest.mark.parametrize("batch", [1, None])
def test_onnx_is_smaller_and_gives_nearly_the_same(batch, tmp_path):
    with kernel_form("export"):
        net = build_model("vit_tiny_patch16_224", **_SIZES).set_train(False)
    rng = np.random.default_rng(0)
    for parameter in net.get_parameters():
        if parameter.ndim > 1:
            deviation = float(np.prod(parameter.shape[1:])) ** -0.5
            parameter.set_data(Tensor(rng.normal(0, deviation, parameter.shape).astype(np.float32)))
    image_BCYX = rng.standard_normal((1, 3, 32, 32)).astype(np.float32)
    logits_BK = net(Tensor(image_BCYX)).asnumpy()
    whole, small = tmp_path / "whole.onnx", tmp_path / "small.onnx"
    write_graph(net, (batch, 3, 32, 32), whole, ExportConfig(file_format="ONNX"))
    shutil.copy(whole, small)
    quantize_onnx(small)
    model = onnx.load(small)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain for entry in model.opset_import} <= {"", "ai.onnx"}
    kinds = [node.op_type for node in model.graph.node]
    # Four affine maps in each of two blocks, and the head.
    assert kinds.count("MatMulInteger") == 9
    assert small.stat().st_size < 0.45 * whole.stat().st_size
    session = onnxruntime.InferenceSession(small, providers=["CPUExecutionProvider"])
    received_BK = session.run(None, {session.get_inputs()[0].name: image_BCYX})[0]
    error = np.abs(received_BK - logits_BK).max() / logits_BK.std()
    # A network of noise: 0.1 or so; with scales or zero points of other rows more than 1.
    assert 1e-4 < error < 0.2
    assert logging.root.manager.disable == logging.NOTSET


def test_the_description_says_what_was_done(tmp_path):
    weights = vit_weights(tmp_path)
    path = export("vit", tmp_path, pretrained=weights, file_format="ONNX", quantization="int8")
    assert read_model_info(Path(f"{path}.json")).quantization == "int8"
    assert "MatMulInteger" in {node.op_type for node in onnx.load(path).graph.node}
    older = json.loads(Path(f"{path}.json").read_text())
    del older["quantization"]
    (tmp_path / "older.json").write_text(json.dumps(older))
    assert read_model_info(tmp_path / "older.json").quantization == "none"


# ---------------------------------------------------------------------------------------------------------------------
# MindSpore Lite's converter


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    for name in ("a.png", "b.JPG", "below/c.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_what_the_converter_is_told(images, tmp_path, capsys):
    weights = vit_weights(tmp_path)
    flags = dict(quantization="int8", calibrate_path=images, crop_pct=0.8, interpolation="bilinear")
    path = export("vit", tmp_path, pretrained=weights, **flags)
    told = configparser.ConfigParser()
    told.read(path.with_suffix(".quant.cfg"))
    assert dict(told["common_quant_param"]) == {"quant_type": "FULL_QUANT", "bit_num": "8"}
    data = dict(told["data_preprocess_param"])
    assert (data["calibrate_path"], data["calibrate_size"]) == (f"image_BCYX:{images}", "2")
    assert (data["normalize_mean"], data["normalize_std"]) == ("[127.5, 127.5, 127.5]",) * 2
    assert (data["resize_width"], data["resize_height"], data["resize_method"]) == ("40", "40", "LINEAR")
    assert (data["center_crop_width"], data["center_crop_height"]) == (str(IMAGE_SIZE),) * 2
    assert set(told["full_quant_param"]) == {"activation_quant_method", "bias_correction", "per_channel"}
    line = capsys.readouterr().out.splitlines()[-1]
    assert f"converter_lite --fmk=MINDIR --modelFile={path} " in line
    assert f" --configFile={path.with_suffix('.quant.cfg')} --inputDataFormat=NCHW" in line
    assert "inputShape" not in line
    # The file itself is as it was.
    assert read_model_info(path.with_suffix(".json")).quantization == "none"


def test_an_open_batch_is_calibrated_image_by_image(images, tmp_path, capsys):
    export(
        "vit",
        tmp_path,
        pretrained=vit_weights(tmp_path),
        quantization="int8",
        calibrate_path=images,
        batch_size="dynamic",
    )
    assert capsys.readouterr().out.splitlines()[-1].endswith(" --inputShape=image_BCYX:1,3,32,32")


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        ({}, ConfigError, "calibrate_path: must name a folder of 100 to 500 images"),
        ({"calibrate_path": "absent"}, DataError, "calibrate_path: must be a folder of .* images.*Received: absent"),
        ({"file_format": "AIR", "device_target": "Ascend"}, ConfigError, "quantization: is of ONNX and MINDIR"),
    ],
)
def test_what_is_refused(flags, error, message, tmp_path):
    with pytest.raises(error, match=message):
        export("vit", tmp_path, pretrained=vit_weights(tmp_path), quantization="int8", **flags)
