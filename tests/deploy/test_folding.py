"""Folding: the same logits out of fewer operators, and every factor really gone."""

from __future__ import annotations

import io
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path

import mindspore as ms
import numpy as np
import onnx
import pytest
from mindspore import Tensor, nn

from src.deploy.folding import fold
from src.models.kernels import kernel_form
from src.models.layers import MultiHeadAttention
from tests.networks import FAMILIES, tiny


def operators(net: nn.Cell, folder: Path) -> Counter:
    """How often each operator stands in the exported graph."""
    path = folder / "x.onnx"
    with redirect_stdout(io.StringIO()):
        ms.export(net, Tensor(np.zeros((1, 3, 16, 16), np.float32)), file_name=str(path), file_format="ONNX")
    return Counter(node.op_type for node in onnx.load(path).graph.node)


# CCT's attention is ViT's, and both kinds of Twins fold alike.
@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=pytest.mark.slow if name in {"cct", "pcpvt"} else []) for name in FAMILIES],
)
def test_the_same_logits_from_fewer_operators(family, tmp_path):
    with kernel_form("export"):
        net = tiny(family)
    rng = np.random.default_rng(0)
    for parameter in net.get_parameters():
        noise = rng.normal(0, 0.2, parameter.shape).astype(np.float32)
        parameter.set_data(Tensor(parameter.asnumpy() + noise))
    image_BCYX = Tensor(rng.standard_normal((2, 3, 16, 16)).astype(np.float32))
    before_BK, many = net(image_BCYX).asnumpy(), operators(net, tmp_path)
    attentions = sum(isinstance(cell, MultiHeadAttention) for _, cell in net.cells_and_names())

    fold(net)
    net.compile_cache.clear()
    after_BK, few = net(image_BCYX).asnumpy(), operators(net, tmp_path)
    np.testing.assert_allclose(after_BK, before_BK, rtol=0, atol=1e-5)
    assert np.ptp(before_BK, axis=0).max() > 0.1
    layer_scales = 4 if family == "deit3" else 0
    assert many["Mul"] - few["Mul"] == attentions + layer_scales
    assert not [name for name, _ in net.parameters_and_names() if ".ls" in name]
