"""The rewriting of MINDIR files: what version 1 looks like, and what is refused. The runner's tests run such files."""

from __future__ import annotations

import random
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops
from mindspore.train.mind_ir_pb2 import AttributeProto, ModelProto, TensorProto

from src.deploy.mindir_v1 import IR_VERSION, IR_VERSION_TEXT, RULES, UNCHANGED, downgrade, rewrite_file
from src.errors import ModelFileError
from src.models import build_model
from src.models.kernels import kernel_form

NETWORKS = {
    "vit": ("vit_tiny_patch16_224", dict(depth=1, image_size=32, patch_size=16)),
    "vit_zoo": ("vit_tiny_patch16_224", dict(depth=1, image_size=32, patch_size=16, compat="zoo")),
    "cct": ("cct_2_3x2_32", dict(depth=1)),
    "cct_zoo": ("cct_2_3x2_32", dict(depth=1, compat="zoo")),
}
NAMES_IN_V1 = {rule.name or operator for operator, rule in RULES.items()} - {"MatMulExt"} | UNCHANGED


def export(net: nn.Cell, shape: tuple[int, ...], folder: Path) -> ModelProto:
    path = folder / "model.mindir"
    ms.export(net.set_train(False), Tensor(np.zeros(shape, np.float32)), file_name=str(path), file_format="MINDIR")
    return ModelProto.FromString(path.read_bytes())


def export_dynamic(net: nn.Cell, shape: tuple[int | None, ...], folder: Path) -> ModelProto:
    x = Tensor(shape=shape, dtype=ms.float32)
    net.set_inputs(x)
    ms.export(net.set_train(False), x, file_name=str(folder / "model.mindir"), file_format="MINDIR")
    return ModelProto.FromString((folder / "model.mindir").read_bytes())


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[tuple[str, int], ModelProto]:
    """Each network as MindSpore exports it, for batches of 1 and 4."""
    found = {}
    for name, (arch, sizes) in NETWORKS.items():
        with kernel_form("export"):
            net = build_model(arch, num_classes=5, **sizes)
        for batch in (1, 4):
            found[name, batch] = export(net, (batch, 3, 32, 32), tmp_path_factory.mktemp(name))
    return found


@pytest.fixture
def model(models) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(models["cct", 1])
    return copy


def refused(model: ModelProto, *words: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        downgrade(model, "some.mindir")
    message = str(caught.value)
    assert message.startswith("some.mindir: ")
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("network", NETWORKS)
def test_form_of_version_1(models, network, batch):
    old = models[network, batch]
    before = old.SerializeToString(deterministic=True)
    new = downgrade(old)
    assert old.SerializeToString(deterministic=True) == before
    assert (new.mind_ir_version, new.ir_version) == (IR_VERSION, IR_VERSION_TEXT)
    assert not new.user_info
    assert new.graph.parameter == old.graph.parameter
    assert new.graph.input == old.graph.input

    primitives = {f"REF::{primitive.name}": primitive for primitive in new.primitives}
    assert {primitive.op_type for primitive in new.primitives} <= NAMES_IN_V1
    defined = {value.name for value in (*new.graph.parameter, *new.graph.input)}
    constants = {}
    for node in new.graph.node:
        assert set(node.input) <= defined
        defined.add(node.output[0])
        assert not node.node_attr
        assert not node.primal_attr
        if node.op_type == "Constant":
            constants[node.output[0]] = node.attribute[0]
            continue
        operator = primitives[node.op_type].op_type
        attributes = {attribute.name: attribute for attribute in primitives[node.op_type].attribute}
        if operator in RULES:
            assert len(node.input) <= RULES[operator].inputs
            assert set(attributes) >= set(RULES[operator].attributes)
        if operator in ("Add", "Sub", "Mul", "RealDiv", "Maximum", "Minimum"):
            # No plain numbers.
            assert all(constants[name].type == AttributeProto.TENSORS for name in node.input if name in constants)
    assert {output.name for output in new.graph.output} <= defined


def settings(model: ModelProto, operator: str) -> dict[str, AttributeProto]:
    primitive = next(primitive for primitive in model.primitives if primitive.op_type == operator)
    return {attribute.name: attribute for attribute in primitive.attribute}


def test_settings_become_attributes(models):
    new = downgrade(models["vit", 1])
    assert settings(new, "LayerNorm")["epsilon"].f == pytest.approx(1e-6)
    assert settings(new, "LayerNorm")["begin_norm_axis"].i == -1
    assert {name: settings(new, "MatMul")[name].i for name in ("transpose_a", "transpose_b")} == {
        "transpose_a": 0,
        "transpose_b": 1,
    }
    assert settings(new, "MatMul")["transpose_x2"].i == 1
    assert settings(new, "BatchMatMul")["adj_x1"].i == 0
    assert settings(new, "BiasAdd")["data_format"].s == settings(new, "BiasAdd")["format"].s == b"NCHW"
    assert settings(new, "Split")["output_num"].i == 3


def test_rewriting_twice_changes_nothing(models, tmp_path):
    for model in models.values():
        once = downgrade(model)
        assert downgrade(once) == once
    source, target = tmp_path / "v3.mindir", tmp_path / "new folder" / "ä b.mindir"
    source.write_bytes(models["vit", 1].SerializeToString())
    rewrite_file(source, target)
    first = target.read_bytes()
    rewrite_file(source, target)
    assert target.read_bytes() == first
    rewrite_file(target, target)
    assert ModelProto.FromString(target.read_bytes()) == ModelProto.FromString(first)


def test_operators_without_rule_are_all_named(model):
    functions = [primitive for primitive in model.primitives if primitive.op_type in ("Softmax", "BiasAdd")]
    for primitive, name in zip(functions, ("Im2Col", "PadV3"), strict=False):
        primitive.op_type = name
    refused(model, "IR version 1", "Im2Col (first at Default/", "PadV3 (first at", "LayerNorm")


def test_setting_that_is_computed(model):
    softmax = next(node for node in model.graph.node if "Softmax" in node.op_type)
    softmax.input[1] = softmax.input[0]
    refused(model, "axis", "constant")


def test_layer_norm_that_lite_computes_wrongly(tmp_path):
    refused(export(nn.LayerNorm((16,)), (1, 8, 16), tmp_path), "layer norm", "8 rows of 16")
    for shape in ((1, 1, 16), (1, 50, 16), (4, 192)):
        downgrade(export(nn.LayerNorm(shape[-1:]), shape, tmp_path))


class NormOfParts(nn.Cell):
    """A norm of rows of 16, four of which make a part of an image."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm((16,))

    def construct(self, x_BND):
        return self.norm(x_BND.transpose(0, 2, 1).reshape(-1, 4, 16)).reshape(-1, x_BND.shape[1] * 16)


class NormOfRow(nn.Cell):
    """A norm of an image's first row."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm((16,))

    def construct(self, x_BND):
        return self.norm(x_BND[:, 0])


def test_rows_of_an_image_count_where_the_batch_is_open(tmp_path):
    downgrade(export_dynamic(NormOfParts(), (None, 64, 16), tmp_path))
    refused(export_dynamic(NormOfParts(), (None, 48, 16), tmp_path), "layer norm", "48 rows of 16")
    # One row is right for one image, and wrong for two.
    refused(export_dynamic(NormOfRow(), (None, 8, 16), tmp_path), "layer norm", "2 rows of 16")


class BatchBehind(nn.Cell):
    """Moves the batch to the second axis."""

    def construct(self, x_BND):
        return x_BND.transpose(1, 0, 2) * 2.0


class BatchInside(nn.Cell):
    """Needs the number of images as a number."""

    def construct(self, x_BND):
        return ops.tile(x_BND[:1], (x_BND.shape[0], 1, 1))


class Repeated(nn.Cell):
    """Repeats a row of every image."""

    def construct(self, x_BND):
        return ops.broadcast_to(x_BND[:, :1], (-1, 3, 16))


def test_networks_that_cannot_leave_the_batch_open(tmp_path):
    refused(export_dynamic(BatchBehind(), (None, 8, 16), tmp_path), "first axis", "export a fixed batch")
    refused(export_dynamic(BatchInside(), (None, 8, 16), tmp_path), "no rule", "Shape (first at")
    refused(export_dynamic(Repeated(), (None, 8, 16), tmp_path), "BroadcastTo has to have a fixed shape", "[-1, 3, 16]")
    refused(export_dynamic(nn.ReLU(), (None, 8, 16), tmp_path), "first operator", "Received: ReLU", "Conv2D")


class TwoWays(nn.Cell):
    """One weight in two products, transposed in the first."""

    def __init__(self, second_transposed: bool):
        super().__init__()
        self.weight_DD = Parameter(Tensor(np.ones((16, 16), np.float32)))
        self.first, self.second = ops.MatMul(transpose_b=True), ops.MatMul(transpose_b=second_transposed)

    def construct(self, x_ND):
        return self.second(self.first(x_ND, self.weight_DD), self.weight_DD)


def test_weight_that_lite_would_transpose_for_both(tmp_path):
    refused(export(TwoWays(second_transposed=False), (4, 16), tmp_path), "weight_DD", "transposed")
    downgrade(export(TwoWays(second_transposed=True), (4, 16), tmp_path))


def test_damaged_weights(model):
    name = model.graph.parameter[0].name
    model.graph.parameter[0].raw_data = model.graph.parameter[0].raw_data[:-4]
    refused(model, name, "damaged", "bytes")


def test_weights_elsewhere(model):
    model.graph.parameter[0].external_data.location = "weights"
    refused(model, model.graph.parameter[0].name, "another file")


@pytest.mark.parametrize("data_type", [TensorProto.BFLOAT16, TensorProto.FLOAT16])
def test_weights_of_unknown_type(model, data_type):
    model.graph.parameter[0].data_type = data_type
    refused(model, model.graph.parameter[0].name, "type")


def test_control_flow(model):
    model.functions.add().name = "branch"
    refused(model, "control flow")


def broken_files(whole: bytes) -> dict[str, bytes]:
    return {
        "empty": b"",
        "text": b"this is not a model, but a sentence that somebody wrote into a file",
        "cut early": whole[:100],
        "cut in the weights": whole[: len(whole) // 2],
        "cut at the end": whole[:-1],
    }


def test_broken_file_leaves_the_old_target(models, tmp_path):
    source, target = tmp_path / "source.mindir", tmp_path / "target.mindir"
    target.write_bytes(b"old")
    for name, content in broken_files(models["cct", 1].SerializeToString()).items():
        source.write_bytes(content)
        with pytest.raises(ModelFileError, match=r"source\.mindir: "):
            rewrite_file(source, target)
        assert target.read_bytes() == b"old", name
    with pytest.raises(ModelFileError, match=r"none\.mindir: is not there"):
        rewrite_file(tmp_path / "none.mindir", target)
    with pytest.raises(ModelFileError, match="is no MINDIR file that can be read"):
        rewrite_file(tmp_path, target)
    assert {path.name for path in tmp_path.iterdir()} == {"source.mindir", "target.mindir"}


def test_mutated_files_are_rewritten_or_refused(models, tmp_path):
    whole = models["vit", 1].SerializeToString()
    graph_start = len(whole) - 60_000
    source, target = tmp_path / "source.mindir", tmp_path / "target.mindir"
    rng = random.Random(0)
    refusals = []
    for _ in range(50):
        content = bytearray(whole)
        for _ in range(rng.choice((3, 30, 100))):
            content[rng.randrange(graph_start, len(content))] = rng.randrange(256)
        source.write_bytes(content)
        try:
            rewrite_file(source, target)
        except ModelFileError as error:
            refusals.append(str(error))
    assert len(refusals) > 10
    assert not any("\n" in refusal for refusal in refusals)
