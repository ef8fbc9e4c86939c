"""Every operator that may stand in an exported file, in the runner and in MindSpore."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.train.mind_ir_pb2 import ModelProto

from src.deploy.mindir_v1 import RULES, UNCHANGED
from tests.runner.cases import export, run


class OperatorForms(nn.Cell):
    """Every operator that the rewriter lets pass, in the forms in which they are exported."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(1)

        def weight(*shape: int) -> Parameter:
            return Parameter(Tensor(rng.standard_normal(shape).astype(np.float32)))

        self.conv = nn.Conv2d(4, 6, 3, pad_mode="pad", padding=1, has_bias=True)
        self.strided_conv = nn.Conv2d(4, 6, 7, 2, pad_mode="pad", padding=3)
        self.patch_conv = nn.Conv2d(4, 6, 4, 4, pad_mode="valid", has_bias=True)
        self.depth_conv = nn.Conv2d(4, 4, 3, pad_mode="pad", padding=1, group=4)
        self.batch_norm = nn.BatchNorm2d(4, gamma_init="uniform", beta_init="uniform")
        self.layer_norm = nn.LayerNorm((16,), epsilon=1e-6)
        self.gamma_D, self.beta_D = weight(16), weight(16)
        self.norm = ops.LayerNorm(-1, -1, 1e-5)
        self.dense = nn.Dense(16, 12)
        self.weight_1_DD, self.weight_2_DD, self.weight_3_DD = weight(16, 16), weight(16, 16), weight(16, 16)
        self.weight_BND = weight(1, 64, 16)
        self.matmul, self.matmul_bt = ops.MatMul(), ops.MatMul(transpose_b=True)
        self.bmm, self.bmm_bt = ops.BatchMatMul(), ops.BatchMatMul(transpose_b=True)
        self.bmm_at = ops.BatchMatMul(transpose_a=True)
        self.bias_add = ops.BiasAdd()
        self.pad = nn.Pad(((0, 0), (0, 0), (1, 2), (0, 1)))
        self.pool = ops.MaxPool(kernel_size=3, strides=2, pad_mode="valid")
        self.pool_same = ops.MaxPool(kernel_size=2, strides=2, pad_mode="same")
        self.split, self.softmax = ops.Split(-1, 2), ops.Softmax(-1)
        self.mean, self.sum = ops.ReduceMean(keep_dims=True), ops.ReduceSum()
        self.max, self.divide = ops.ReduceMax(), ops.RealDiv()

    def construct(self, x_BCYX):
        return self.maps(x_BCYX) + self.products_and_sums(x_BCYX) + self.shapes(x_BCYX) + self.elements(x_BCYX)

    def maps(self, x_BCYX):
        return (
            self.conv(x_BCYX),
            self.strided_conv(x_BCYX),
            self.patch_conv(x_BCYX),
            self.depth_conv(x_BCYX),
            self.batch_norm(x_BCYX),
            self.pool(self.pad(x_BCYX)),
            self.pool_same(x_BCYX),
        )

    def products_and_sums(self, x_BCYX):
        x_BND, x_ND = x_BCYX.reshape(1, 64, 16), x_BCYX.reshape(64, 16)
        return (
            self.layer_norm(x_BND),
            self.norm(x_BND, self.gamma_D, self.beta_D)[0],
            self.dense(x_BND),
            self.bias_add(self.matmul(x_ND, self.weight_1_DD), self.beta_D).reshape(1, 64, 16),
            self.matmul_bt(x_ND, self.weight_2_DD).reshape(1, 64, 16),
            self.bmm(x_BCYX, x_BCYX),
            self.bmm_bt(x_BCYX, x_BCYX),
            self.bmm_at(x_BCYX, x_BCYX),
            ops.matmul(x_BCYX, x_BCYX),
            ops.matmul(x_ND, self.weight_3_DD).reshape(1, 64, 16),
            self.softmax(x_BCYX),
            self.mean(x_BND, -1),
            self.sum(x_BND, 1),
            self.max(x_BND, 1),
        )

    def shapes(self, x_BCYX):
        x_BND = x_BCYX.reshape(1, 64, 16)
        return (
            x_BND.transpose(0, 2, 1),
            self.split(x_BND)[1],
            ops.concat((ops.tile(self.weight_BND, (1, 2, 1)), x_BND), 1),
            ops.broadcast_to(x_BND[:, :1], (-1, 3, 16)),
            ops.expand_dims(x_BND, 1),
            ops.squeeze(x_BND, 0).reshape(1, 1024),
            ops.slice(x_BND, (0, 3, 0), (1, 4, 8)),
            x_BND[:, 0],
            x_BND[:, 1:],
            ops.stack((x_BND, self.weight_BND), 1),
            ops.unstack(x_BCYX, 1)[2],
            ops.cast(ops.cast(x_BND * 3, ms.int32), ms.float32),
        )

    def elements(self, x_BCYX):
        x_BND = x_BCYX.reshape(1, 64, 16)
        positive_BND = ops.abs(x_BND) + 0.5
        return (
            x_BND + self.weight_BND,
            x_BND - self.weight_BND,
            x_BND * self.gamma_D,
            x_BND / positive_BND,
            self.divide(x_BND, positive_BND),
            2.0 - x_BND,
            x_BND - 2.0,
            x_BND + 1,
            x_BND / 3.0,
            x_BND * 0.3 + 1.5,
            ops.minimum(ops.maximum(x_BND, -0.5), 0.5),
            ops.pow(positive_BND, 3.0),
            x_BND * 0.5 * (1.0 + ops.erf(x_BND * 0.70710678)),
            x_BND * ops.sigmoid(x_BND),
            -x_BND,
            ops.exp(x_BND),
            ops.relu(x_BND),
            ops.sqrt(positive_BND),
            ops.square(x_BND),
            ops.tanh(x_BND),
        )


def test_every_operator_form(runner, tmp_path):
    net = OperatorForms().set_train(False)
    x_BCYX = np.random.default_rng(2).standard_normal((1, 4, 16, 16)).astype(np.float32)
    model = export(net, x_BCYX.shape, tmp_path / "forms")
    exported = ModelProto()
    exported.ParseFromString(model.with_suffix(".v3.mindir").read_bytes())
    operators = {primitive.op_type for primitive in exported.primitives}
    assert {*RULES, *UNCHANGED} - operators == set(), "operators that the rewriter knows and this test does not"

    (tmp_path / "images").mkdir()
    x_BCYX.tofile(tmp_path / "images" / "x.bin")
    done = run(runner, tmp_path, model, tmp_path / "images")
    assert done.returncode == 0, done.stderr
    for index, output in enumerate(net(Tensor(x_BCYX))):
        expected = output.asnumpy().ravel()
        received = np.fromfile(tmp_path / "result_Files" / f"x_{index}.bin", np.float32)
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5, err_msg=f"output {index}")
