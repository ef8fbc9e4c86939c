"""Rewrite a MINDIR of MindSpore 2.10 (IR version 3) as IR version 1, the newest that MindSpore Lite 2.0 reads.

Lite 2.0 is the release that a package index offers with a C++ library, and boxes with an Ascend 310 often run it or an
older one. The two versions store the same graph; they differ in where an operator keeps its settings: version 3 passes
them as constant inputs of a function-like primitive, version 1 stores them as attributes of the primitive. Besides,
some operators have other names and a plain number next to a tensor has to be a tensor itself.

An operator is rewritten only if it is in the tables below, because Lite 2.0 accepts several others and computes them
wrongly (Im2Col, tanh GELU), roughly (Rsqrt) or crashes. A test, ``tests/runner/test_operators.py``, runs all that is in
the tables in Lite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from mindspore.train.mind_ir_pb2 import AttributeProto, GraphProto, ModelProto, NodeProto, PrimitiveProto, TensorProto

from src.deploy.mindir_graph import first_sizes, operators, tensor_types
from src.errors import ModelFileError
from src.files import replacing

IR_VERSION = 1
IR_VERSION_TEXT = "0.1.1"


@dataclass(frozen=True)
class Rule:
    """How version 1 writes one operator.

    Attributes:
        inputs: how many of the arguments stay inputs.
        attributes: names of the arguments behind them, which become attributes.
        name: the operator's name in version 1, where it differs.
        twins: attribute -> second name under which version 1 stores it too.
        numbers: True if an input may be a plain number, which has to become a tensor.
    """

    inputs: int
    attributes: tuple[str, ...] = ()
    name: str = ""
    twins: dict[str, tuple[str, ...]] = field(default_factory=dict)
    numbers: bool = False


_ARITHMETIC = Rule(2, numbers=True)
_MATMUL_TWINS = {"transpose_a": ("transpose_x1",), "transpose_b": ("transpose_x2",)}
_BATCH_MATMUL_TWINS = {"transpose_a": ("transpose_x1", "adj_x1"), "transpose_b": ("transpose_x2", "adj_x2")}
_SLICE_MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
_BATCH_NORM_SETTINGS = ("is_training", "epsilon", "momentum", "data_format")

# Primitives that MindSpore generates from a description: their settings are inputs in version 3.
RULES: dict[str, Rule] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "RealDiv", "Maximum", "Minimum", "Pow"), _ARITHMETIC),
    **dict.fromkeys(("Abs", "Erf", "Exp", "Neg", "ReLU", "Sigmoid", "Sqrt", "Square", "Tanh"), Rule(1)),
    "Muls": Rule(2, name="Mul", numbers=True),
    "Div": Rule(2, name="RealDiv", numbers=True),
    "Divs": Rule(2, name="RealDiv", numbers=True),
    "BatchMatMul": Rule(2, ("transpose_a", "transpose_b"), twins=_BATCH_MATMUL_TWINS),
    "BatchNorm": Rule(5, _BATCH_NORM_SETTINGS, twins={"data_format": ("format",)}),
    "BiasAdd": Rule(2, ("data_format",), twins={"data_format": ("format",)}),
    "BroadcastTo": Rule(1, ("shape",)),
    "Cast": Rule(2),
    "Concat": Rule(1, ("axis",)),
    "ExpandDims": Rule(2),
    "LayerNorm": Rule(3, ("begin_norm_axis", "begin_params_axis", "epsilon")),
    "MatMul": Rule(2, ("transpose_a", "transpose_b"), twins=_MATMUL_TWINS),
    "MatMulExt": Rule(2),
    "ReduceMax": Rule(2, ("keep_dims",)),
    "ReduceMean": Rule(2, ("keep_dims",)),
    "ReduceSum": Rule(2, ("keep_dims", "skip_mode")),
    "Reshape": Rule(2),
    "Slice": Rule(3),
    "Softmax": Rule(1, ("axis",)),
    "Split": Rule(1, ("axis", "output_num")),
    "Squeeze": Rule(1, ("axis",)),
    "StridedSlice": Rule(4, _SLICE_MASKS),
    "Tile": Rule(2),
    "Transpose": Rule(2),
}
# Primitives written by hand: version 3 stores them as version 1 does.
UNCHANGED = frozenset({"Conv2D", "MakeTuple", "MaxPool", "Pad", "Stack", "TupleGetItem", "Unstack"})
# An inference graph changes nothing, so what orders its effects goes: these stand for their first input or for nothing.
_PASS_THROUGH = frozenset({"Depend", "Load"})
_ORDER_ONLY = frozenset({"UpdateState"})
# What Lite 2.0 may do first to an input with a dynamic batch; it dies of Reshape and of elementwise operators there.
_FIRST_IF_DYNAMIC = frozenset({"Conv2D", "StridedSlice", "Transpose"})

_LAYOUTS = {0: b"NCHW", 1: b"NHWC", 4: b"NCDHW"}
# MindSpore's TypeId -> the data type of a stored tensor, and its numpy type. No float16: Lite 2.0 computes it wrongly.
_STORED_TYPES = {
    30: TensorProto.BOOL,
    32: TensorProto.INT8,
    34: TensorProto.INT32,
    35: TensorProto.INT64,
    37: TensorProto.UINT8,
    43: TensorProto.FLOAT,
    44: TensorProto.DOUBLE,
}
_NUMPY_TYPES = {
    TensorProto.INT32: np.int32,
    TensorProto.INT64: np.int64,
    TensorProto.FLOAT: np.float32,
}


def downgrade(model: ModelProto, source: object = "model") -> ModelProto:
    """Rewrite a model as IR version 1.

    Args:
        model: what an exported MINDIR file holds; it is not changed.
        source: what errors call the model.

    Returns:
        A new model; an equal one if it was of version 1 already.

    Raises:
        ModelFileError: the model is damaged, or holds what has no equal in version 1.
    """
    old = ModelProto()
    old.CopyFrom(model)
    try:
        _refuse_damaged(old)
        if old.mind_ir_version <= IR_VERSION:
            return old
        _refuse_unknown(old)
        return _Rewriter(old).run()
    except ModelFileError as error:
        raise ModelFileError(source, str(error)) from None
    except (AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError) as error:
        raise ModelFileError(source, "is damaged: its nodes do not fit together", repr(error)) from None


def rewrite_file(source: Path, target: Path) -> None:
    """Rewrite the MINDIR file ``source`` as IR version 1 into ``target``, in one step.

    Raises:
        ModelFileError: ``source`` is missing, damaged or no MINDIR, or holds what version 1 cannot express.
        OSError: ``target`` cannot be written.
    """
    model = ModelProto()
    try:
        model.ParseFromString(source.read_bytes())
    except FileNotFoundError:
        raise ModelFileError(source, "is not there") from None
    except (OSError, DecodeError, ValueError) as error:
        raise ModelFileError(source, "is no MINDIR file that can be read", error) from None
    content = downgrade(model, source).SerializeToString()
    with replacing(target) as temporary:
        temporary.write_bytes(content)


def _refuse_damaged(model: ModelProto) -> None:
    """MindSpore fills a tensor that is shorter than its shape with whatever lies in memory."""
    if not model.graph.output:
        raise ModelFileError("graph", "has no output: no MINDIR file, or a damaged one")
    for parameter in model.graph.parameter:
        if parameter.HasField("external_data"):
            raise ModelFileError(parameter.name, "lies in another file, which version 1 of the format cannot say")
        if parameter.data_type not in _NUMPY_TYPES:
            raise ModelFileError(parameter.name, "has a type that no rule is for", parameter.data_type)
        expected = math.prod(parameter.dims) * np.dtype(_NUMPY_TYPES[parameter.data_type]).itemsize
        if len(parameter.raw_data) != expected:
            rule = f"damaged: its shape {list(parameter.dims)} needs {expected} bytes"
            raise ModelFileError(parameter.name, rule, len(parameter.raw_data))


def _refuse_unknown(model: ModelProto) -> None:
    """Raise for every operator outside of the tables at once, so that a model is mended in one go."""
    if model.functions:
        raise ModelFileError("graph", "control flow (if, while, for over tensors) has no rule for IR version 1")
    known = UNCHANGED | _PASS_THROUGH | _ORDER_ONLY
    unknown: dict[str, str] = {}
    for node, primitive in operators(model):
        is_function = primitive.prim_type == PrimitiveProto.PrimType.PRIMITIVE_FUNCTION
        if primitive.op_type not in (RULES if is_function else known):
            unknown.setdefault(primitive.op_type, node.domain or node.name)
    if unknown:
        named = ", ".join(f"{operator} (first at {place})" for operator, place in unknown.items())
        raise ModelFileError("operators", "some have no rule for IR version 1", named, sorted({*RULES, *UNCHANGED}))


def _stored_value(constant: NodeProto) -> AttributeProto:
    return next(attribute for attribute in constant.attribute if attribute.name == "value")


class _Rewriter:
    """One pass over the nodes of a graph; they are stored in the order of computation."""

    def __init__(self, model: ModelProto):
        self.model = model
        self.graph: GraphProto = model.graph
        self.constants = {node.output[0]: node for node in self.graph.node if node.op_type == "Constant"}
        self.tensors = tensor_types(self.graph)
        self.first_sizes = first_sizes(model, self.tensors)
        self.dynamic_inputs = {value.name for value in self.graph.input if value.name in self.first_sizes}
        self.stands_for: dict[str, str] = {}
        self.weights = {parameter.name for parameter in self.graph.parameter}
        self.multiplied: dict[str, tuple[str, int]] = {}
        self.nodes: list[NodeProto] = list(self.constants.values())
        self.primitives: dict[bytes, PrimitiveProto] = {}

    def run(self) -> ModelProto:
        for node, primitive in operators(self.model):
            inputs = [str(self.stands_for.get(name, name)) for name in node.input]
            if primitive.op_type in _PASS_THROUGH:
                self.stands_for[node.output[0]] = inputs[0]
            elif primitive.op_type not in _ORDER_ONLY:
                self._rewrite(node, primitive, inputs)
        return self._assemble()

    def _rewrite(self, node: NodeProto, primitive: PrimitiveProto, inputs: list[str]) -> None:
        if self.dynamic_inputs.intersection(inputs) and primitive.op_type not in _FIRST_IF_DYNAMIC:
            rule = "Lite 2.0 dies of a dynamic batch whose first operator is not one of these, export a fixed batch"
            raise ModelFileError(node.domain or node.name, rule, primitive.op_type, sorted(_FIRST_IF_DYNAMIC))
        if primitive.op_type in UNCHANGED:
            operator, attributes = primitive.op_type, list(primitive.attribute)
        else:
            operator, inputs, attributes = self._by_rule(node, primitive.op_type, inputs)
        new = PrimitiveProto(op_type=operator, instance_name=primitive.instance_name, attribute=attributes)
        stored = self.primitives.setdefault(new.SerializeToString(deterministic=True), new)
        stored.name = stored.name or f"{operator}:p{len(self.primitives)}"
        # What these two hold are hints to the compiler of the new versions.
        node.ClearField("node_attr")
        node.ClearField("primal_attr")
        node.op_type = f"REF::{stored.name}"
        del node.input[:]
        node.input.extend(inputs)
        self.nodes.append(node)

    def _by_rule(
        self, node: NodeProto, operator: str, inputs: list[str]
    ) -> tuple[str, list[str], list[AttributeProto]]:
        rule = RULES[operator]
        if len(inputs) > rule.inputs + len(rule.attributes):
            raise ModelFileError(node.domain, f"{operator} has more inputs than its rule knows", len(inputs))
        settings = zip(rule.attributes, inputs[rule.inputs :], strict=False)
        attributes = {name: self._setting(node, name, value) for name, value in settings}
        for name, others in rule.twins.items():
            attributes |= {other: _renamed(attributes[name], other) for other in others if name in attributes}
        inputs = inputs[: rule.inputs]
        operator = rule.name or operator
        if rule.numbers:
            inputs = [self._as_tensor(name, inputs) for name in inputs]
        if operator == "Cast":
            inputs[1] = self._type_constant(inputs[1])
        if operator == "BroadcastTo":
            attributes["shape"] = self._full_shape(node)
        if operator == "LayerNorm":
            self._refuse_small_norm(node, inputs[0])
        if operator == "MatMulExt":
            operator, attributes = self._matmul(node, inputs)
        if operator in ("MatMul", "BatchMatMul"):
            self._refuse_two_ways(node, inputs, attributes)
        return operator, inputs, list(attributes.values())

    def _setting(self, node: NodeProto, name: str, constant: str) -> AttributeProto:
        if constant not in self.constants:
            raise ModelFileError(node.domain, f"the setting {name} has to be constant in IR version 1")
        value = _stored_value(self.constants[constant])
        if name == "data_format" and value.type == AttributeProto.INT64:
            return AttributeProto(name=name, type=AttributeProto.STRING, s=_LAYOUTS[value.i])
        return _renamed(value, name)

    def _matmul(self, node: NodeProto, inputs: list[str]) -> tuple[str, dict[str, AttributeProto]]:
        """``x @ y``: version 1 has one operator for matrices and one for batches of them, and no broadcasting."""
        left, right = (self.tensors[name].dims for name in inputs)
        if len(left) != len(right) or left[:-2] != right[:-2]:
            raise ModelFileError(node.domain, "matmul has to have equal batch axes", f"{list(left)} @ {list(right)}")
        operator = "MatMul" if len(left) == 2 else "BatchMatMul"
        names = [name for first, others in RULES[operator].twins.items() for name in (first, *others)]
        return operator, {name: AttributeProto(name=name, type=AttributeProto.BOOL, i=0) for name in names}

    def _refuse_small_norm(self, node: NodeProto, name: str) -> None:
        """Lite 2.0 starts fewer threads for a small norm than it shares the rows out to, and leaves rows uncomputed.

        Measured with 2 to 32 threads: right from 800 elements or 192 columns on, and for one row.
        """
        *outer, columns = self.tensors[name].dims
        rows = math.prod([self.first_sizes.get(name, outer[0]), *outer[1:]])
        if rows == 1 and name in self.first_sizes:
            rows = 2  # a dynamic batch: the smallest that goes wrong
        if rows > 1 and columns < 192 and rows * columns < 800:
            rule = "a layer norm has to have 1 row, 192 columns or 800 elements, Lite 2.0 computes smaller ones wrongly"
            raise ModelFileError(node.domain, rule, f"{rows} rows of {columns}")

    def _refuse_two_ways(self, node: NodeProto, inputs: list[str], attributes: dict[str, AttributeProto]) -> None:
        """Lite 2.0 transposes a weight in place: what multiplies by it as it was then gets the transposed one too."""
        for name, setting in zip(inputs, ("transpose_a", "transpose_b"), strict=True):
            use = (setting, attributes[setting].i)
            if name in self.weights and self.multiplied.setdefault(name, use) != use:
                raise ModelFileError(node.domain, "Lite 2.0 takes no weight both as it is and transposed", name)

    def _full_shape(self, node: NodeProto) -> AttributeProto:
        """Lite does not take -1 for "this axis as it is"."""
        dims = self.tensors[node.output[0]].dims
        if min(dims) < 1:
            raise ModelFileError(node.domain, "BroadcastTo has to have a fixed shape, export a fixed batch", list(dims))
        sizes = [AttributeProto(type=AttributeProto.INT64, ints=[size]) for size in dims]
        return AttributeProto(name="shape", type=AttributeProto.TUPLE, values=sizes)

    def _as_tensor(self, name: str, operands: list[str]) -> str:
        """The name of a tensor of no axes for a plain number, of the type of the other operand."""
        if name not in self.constants:
            return name
        value = _stored_value(self.constants[name])
        if value.type == AttributeProto.TENSORS:
            return name
        data_type = next((self.tensors[other].data_type for other in operands if other in self.tensors), None)
        if data_type not in _NUMPY_TYPES:
            raise ModelFileError(name, "a number needs a tensor of a float or integer type beside it")
        number = {AttributeProto.FLOAT: value.f, AttributeProto.DOUBLE: value.d}.get(value.type, value.i)
        content = np.array(number, _NUMPY_TYPES[data_type]).tobytes()
        return self._add_constant(f"{name}@tensor{data_type}", TensorProto(data_type=data_type, raw_data=content))

    def _type_constant(self, name: str) -> str:
        """Version 3 stores the type to cast to as a number; version 1 as an empty tensor of that type."""
        data_type = _STORED_TYPES.get(_stored_value(self.constants[name]).i)
        if data_type is None:
            raise ModelFileError(name, "a cast to this type has no rule for IR version 1")
        return self._add_constant(f"{name}@type{data_type}", TensorProto(data_type=data_type))

    def _add_constant(self, name: str, tensor: TensorProto) -> str:
        if name not in self.constants:
            tensor.name = "value0"
            value = AttributeProto(name="value", type=AttributeProto.TENSORS, tensors=[tensor])
            self.constants[name] = NodeProto(name=name, op_type="Constant", output=[name], attribute=[value])
            self.nodes.append(self.constants[name])
        return name

    def _assemble(self) -> ModelProto:
        for output in self.graph.output:
            output.name = self.stands_for.get(output.name, output.name)
        nodes = self._needed()
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        used = {node.op_type.removeprefix("REF::") for node in nodes}
        del self.model.primitives[:]
        self.model.primitives.extend(primitive for primitive in self.primitives.values() if primitive.name in used)
        self.model.ClearField("user_info")
        self.model.mind_ir_version = IR_VERSION
        self.model.ir_version = IR_VERSION_TEXT
        return self.model

    def _needed(self) -> list[NodeProto]:
        """The nodes that an output depends on; with the ordering nodes gone, some lead nowhere."""
        producers = {node.output[0]: node for node in self.nodes}
        needed: set[str] = set()
        waiting = [output.name for output in self.graph.output]
        while waiting:
            name = waiting.pop()
            if name in producers and name not in needed:
                needed.add(name)
                waiting.extend(producers[name].input)
        return [node for node in self.nodes if node.output[0] in needed]


def _renamed(attribute: AttributeProto, name: str) -> AttributeProto:
    new = AttributeProto()
    new.CopyFrom(attribute)
    new.name = name
    return new
