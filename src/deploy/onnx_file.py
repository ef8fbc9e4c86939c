"""What MindSpore's ONNX export lacks, done to the file that it wrote."""

from __future__ import annotations

from pathlib import Path

from src.device import check_installation
from src.errors import ModelFileError


def leave_batch_open(path: Path) -> None:
    """Make the first axis of an ONNX file's input and output dynamic; MindSpore itself writes fixed batches alone.

    The export form of a network holds -1 for the batch wherever it reshapes, so these two are all that names it.

    Args:
        path: file that was exported for a batch of 1; it is written anew.

    Raises:
        ModelFileError: an operator holds the batch all the same.
        UserError: the package onnx is missing.
    """
    check_installation(("onnx",))
    import onnx

    model = onnx.load(path)
    (output,) = model.graph.output
    output.type.tensor_type.shape.dim[0].Clear()
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    if inferred.graph.output[0].type.tensor_type.shape.dim[0].HasField("dim_value"):
        rule = "the batch cannot be left open, an operator holds it: export a fixed --batch_size"
        raise ModelFileError(output.name, rule)
    output.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
