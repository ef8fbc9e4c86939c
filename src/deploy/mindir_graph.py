"""What the graph of a MINDIR file says of its operators and tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator

from mindspore.train.mind_ir_pb2 import GraphProto, ModelProto, NodeProto, PrimitiveProto, TensorProto

from src.errors import ModelFileError


def operators(model: ModelProto) -> Iterator[tuple[NodeProto, PrimitiveProto]]:
    """Every node that computes something, with its primitive."""
    primitives = {primitive.name: primitive for primitive in model.primitives}
    for node in model.graph.node:
        if node.op_type.startswith("REF::"):
            yield node, primitives[node.op_type.removeprefix("REF::")]


def tensor_types(graph: GraphProto) -> dict[str, TensorProto]:
    """Name -> shape and data type of every tensor: parameters, inputs, constants and results of nodes."""
    found = {parameter.name: parameter for parameter in graph.parameter}
    found |= {value.name: value.tensor[0] for value in graph.input if value.tensor}
    for node in graph.node:
        wanted = "value" if node.op_type == "Constant" else "shape"
        described = [attribute for attribute in node.attribute if attribute.name == wanted and attribute.tensors]
        if described:
            found[node.output[0]] = described[0].tensors[0]
    return found


def first_sizes(model: ModelProto, tensors: dict[str, TensorProto]) -> dict[str, int]:
    """Name -> size of the first axis for one image, of every tensor that grows with a dynamic batch.

    The file says -1 for it, also where the axis holds several rows of an image: a reshape keeps their elements.
    """
    found = {value.name: 1 for value in model.graph.input if tensors[value.name].dims[0] < 1}
    for node, primitive in operators(model):
        source = next((name for name in node.input if name in found), None)
        if source is None:
            continue
        size, result = found[source], tensors.get(node.output[0])
        if result is not None and min(result.dims[1:], default=1) < 1:
            rule = "a dynamic batch has to stay the first axis, export a fixed batch"
            raise ModelFileError(node.domain or node.name, rule, list(result.dims))
        if primitive.op_type == "Reshape":
            size = size * math.prod(tensors[source].dims[1:]) // math.prod(result.dims[1:])
        found[node.output[0]] = size
    return found
