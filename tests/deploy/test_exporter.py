"""Weights to files: every family, other sizes, the moving average, any number of images, formats that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import mindspore as ms
import numpy as np
import onnx
import onnxruntime
import pytest
from mindspore import Tensor, nn

from src import device
from src.deploy import exporter
from src.deploy.model_info import read_model_info
from src.deploy.onnx_file import leave_batch_open
from src.errors import ConfigError, ModelFileError, UserError
from src.weights.load import load_weights
from src.weights.write import write_ckpt
from tests.deploy.exports import IMAGE_SIZE, NUM_CLASSES, export, vit_weights
from tests.networks import FAMILIES, tiny, values


@pytest.mark.parametrize("family", FAMILIES)
def test_the_moving_average_of_every_family_in_other_sizes(family, tmp_path):
    net = tiny(family, image_size=IMAGE_SIZE, num_classes=NUM_CLASSES)
    rng = np.random.default_rng(0)
    average = {name: array + rng.normal(0, 0.1, array.shape).astype(np.float32) for name, array in values(net).items()}
    write_ckpt(tmp_path / "w.ckpt", {**values(net), **{f"ema.{name}": array for name, array in average.items()}})
    flags = dict(pretrained=tmp_path / "w.ckpt", use_ema=True, file_format="ONNX", batch_size="dynamic")
    path = export(family, tmp_path, **flags)

    onnx.checker.check_model(onnx.load(path), full_check=True)
    load_weights(net, average)
    image_BCYX = rng.standard_normal((2, 3, IMAGE_SIZE, IMAGE_SIZE)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    received_BK = session.run(None, {session.get_inputs()[0].name: image_BCYX})[0]
    np.testing.assert_allclose(received_BK, net(Tensor(image_BCYX)).asnumpy(), rtol=0, atol=1e-5)
    info = read_model_info(Path(f"{path}.json"))
    assert info.input.name == session.get_inputs()[0].name
    assert (info.num_classes, info.input.shape) == (NUM_CLASSES, (None, 3, IMAGE_SIZE, IMAGE_SIZE))


def test_an_open_batch_is_null_in_the_description(tmp_path, capsys):
    path = export("vit", tmp_path, pretrained=vit_weights(tmp_path), batch_size="dynamic")
    assert json.loads(path.with_suffix(".json").read_text())["input"]["shape"] == [None, 3, IMAGE_SIZE, IMAGE_SIZE]
    assert "input any x 3 x 32 x 32" in capsys.readouterr().out


def test_a_network_too_small_for_lite_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(ModelFileError, match=r"layer norm has to have .* Received: 17 rows of 16"):
        export("vit", tmp_path, pretrained=vit_weights(tmp_path), batch_size="dynamic", ir_version=1)
    assert {file.name for file in tmp_path.iterdir()} == {"vit.ckpt"}


def test_folding_can_be_left_out(tmp_path):
    weights, products = vit_weights(tmp_path), {}
    for fold in (True, False):
        path = export("vit", tmp_path, pretrained=weights, file_format="ONNX", fold=fold)
        products[fold] = sum(node.op_type == "Mul" for node in onnx.load(path).graph.node)
    # One attention in each of two blocks.
    assert products[False] - products[True] == 2


# ---------------------------------------------------------------------------------------------------------------------
# ONNX


class HoldsBatch(nn.Cell):
    """Says the number of images where it reshapes."""

    def construct(self, x_BND):
        return (x_BND * 2.0).reshape(x_BND.shape[0], -1)


def test_an_operator_that_holds_the_batch_is_refused(tmp_path):
    path = tmp_path / "x.onnx"
    ms.export(HoldsBatch(), Tensor(np.zeros((1, 4, 8), np.float32)), file_name=str(path), file_format="ONNX")
    before = path.read_bytes()
    with pytest.raises(ModelFileError, match="cannot be left open, an operator holds it: export a fixed --batch_size"):
        leave_batch_open(path)
    assert path.read_bytes() == before


def test_without_the_package_onnx(tmp_path, monkeypatch):
    version = device.package_version
    monkeypatch.setattr(device, "package_version", lambda name: None if name == "onnx" else version(name))
    with pytest.raises(UserError, match=r"packages are missing, `pip install .* Received: onnx"):
        leave_batch_open(tmp_path / "x.onnx")


# ---------------------------------------------------------------------------------------------------------------------
# Formats


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (dict(file_format="AIR"), "AIR is written by the compiler of an Ascend device.*Known: MINDIR, ONNX"),
        (dict(file_format="AIR", device_target="Ascend", batch_size="dynamic"), "AIR holds a fixed number of images"),
        (dict(file_format="AIR", device_target="Ascend"), "device_target: cannot be opened"),
        (dict(file_format="ONNX", ir_version=1), "ir_version: is of MINDIR files alone, leave it out with ONNX"),
    ],
)
def test_formats_that_are_refused(flags, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        export("vit", tmp_path, pretrained=vit_weights(tmp_path), **flags)


def test_air_on_an_ascend_device(tmp_path, monkeypatch):
    """The device is a stand-in: what is asked of MindSpore is all that can be seen here."""
    asked = []

    def write(net: nn.Cell, image: Tensor, *, file_name: str, file_format: str) -> None:
        asked.append((image.shape, file_format))
        Path(file_name).write_bytes(b"air")

    monkeypatch.setattr(exporter, "open_device", lambda run: None)
    monkeypatch.setattr(exporter.ms, "export", write)
    weights = vit_weights(tmp_path)
    path = export("vit", tmp_path, pretrained=weights, file_format="AIR", device_target="Ascend", batch_size=4)
    assert asked == [((4, 3, IMAGE_SIZE, IMAGE_SIZE), "AIR")]
    assert (path.name, path.read_bytes()) == ("vit_tiny_patch16_224.air", b"air")
    info = read_model_info(Path(f"{path}.json"))
    assert (info.file_format, info.ir_version) == ("AIR", None)


def test_a_trained_distilled_network_gives_the_mean_of_its_heads(tmp_path):
    """Exported files are of evaluation: one output, whatever training had."""
    net = tiny("deit", image_size=IMAGE_SIZE, num_classes=NUM_CLASSES).set_train(True)
    write_ckpt(tmp_path / "w.ckpt", values(net))
    path = export("deit", tmp_path, pretrained=tmp_path / "w.ckpt", file_format="ONNX")
    (output,) = onnx.load(path).graph.output
    assert [size.dim_value for size in output.type.tensor_type.shape.dim] == [1, NUM_CLASSES]
