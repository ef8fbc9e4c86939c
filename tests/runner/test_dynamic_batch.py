"""Files that leave the number of images open: every backend gives the logits of each image, whatever the batch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
import onnxruntime
import pytest
from mindspore import Tensor, nn

from src.deploy.exporter import write_graph
from src.models import build_model
from src.models.kernels import kernel_form
from src.schema import ExportConfig
from tests.networks import FAMILIES, TINY
from tests.runner.cases import read, run

BATCHES = (1, 2, 5, 8)
NAMES = tuple(f"{index}" for index in range(8))
# Wide enough for Lite's layer norm.
_WIDE = dict(image_size=32, embed_dim=192, num_heads=3)
_WIDE_TWINS = dict(image_size=32, embed_dims=(192, 192), num_heads=(3, 3))
SIZES = {
    **dict.fromkeys(("vit", "deit", "deit3", "cct"), _WIDE),
    "tnt": {**_WIDE, "inner_dim": 16},
    "pcpvt": _WIDE_TWINS,
    "svt": dict(image_size=32, embed_dims=(192,), num_heads=(3,)),
}


@dataclass
class Exported:
    """Files of one network for any number of images, images for them, and MindSpore's logits."""

    folder: Path
    image_NCYX: np.ndarray
    logits_NK: np.ndarray

    def check(self, logits_NK: np.ndarray) -> None:
        np.testing.assert_allclose(logits_NK, self.logits_NK, rtol=0, atol=1e-5)


# Others hold the operators of these.
_SLOW = {"deit", "deit3", "svt"}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name in _SLOW else []) for name in FAMILIES],
)
def exported(request, tmp_path_factory) -> Exported:
    arch, sizes = TINY[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    with kernel_form("export"):
        net = build_model(arch, **{**sizes, **SIZES[request.param]}).set_train(False)
    rng = np.random.default_rng(0)
    for parameter in net.get_parameters():
        noise = rng.normal(0, 0.1, parameter.shape).astype(np.float32)
        parameter.set_data(Tensor(parameter.asnumpy() + noise))
    image_NCYX = rng.standard_normal((len(NAMES), 3, 32, 32)).astype(np.float32)
    (folder / "images").mkdir()
    for name, image_CYX in zip(NAMES, image_NCYX, strict=True):
        image_CYX.tofile(folder / "images" / f"{name}.bin")
    logits_NK = net(Tensor(image_NCYX)).asnumpy()
    shape = (None, 3, 32, 32)
    write_graph(net, shape, folder / "v3.mindir", ExportConfig())
    # What was folded stays so.
    write_graph(net, shape, folder / "v1.mindir", ExportConfig(ir_version=1, fold=False))
    write_graph(net, shape, folder / "net.onnx", ExportConfig(file_format="ONNX", fold=False))
    return Exported(folder, image_NCYX, logits_NK)


def test_images_differ(exported):
    assert np.abs(exported.logits_NK).max() > 0.1
    assert np.abs(exported.logits_NK - exported.logits_NK[:1]).max() > 1e-2


def test_mindspore(exported):
    net = nn.GraphCell(ms.load(str(exported.folder / "v3.mindir")))
    for batch in BATCHES:
        parts = np.split(exported.image_NCYX, range(batch, len(NAMES), batch))
        exported.check(np.concatenate([net(Tensor(part)).asnumpy() for part in parts]))


def test_onnx_runtime(exported):
    session = onnxruntime.InferenceSession(exported.folder / "net.onnx", providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    assert image.shape == ["batch", 3, 32, 32]
    for batch in BATCHES:
        parts = np.split(exported.image_NCYX, range(batch, len(NAMES), batch))
        exported.check(np.concatenate([session.run(None, {image.name: part})[0] for part in parts]))


def test_runner(exported, runner, tmp_path):
    for batch in BATCHES:
        flags = ("--batch", str(batch), "--result_dir", f"{batch}")
        done = run(runner, tmp_path, exported.folder / "v1.mindir", exported.folder / "images", *flags)
        assert (done.returncode, done.stderr) == (0, "")
        exported.check(read(tmp_path / f"{batch}", NAMES))
