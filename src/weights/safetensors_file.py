"""Tensors of a .safetensors file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from src.errors import ModelFileError
from src.weights.tensor_bytes import BFLOAT16, from_bytes, owned

_TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": BFLOAT16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors by name.

    Raises:
        ModelFileError: damaged, or a type that numpy has no equal of.
    """
    from safetensors import SafetensorError, deserialize

    try:
        # The library's numpy loader knows no bfloat16; this is the layer below, which checks as much.
        entries = deserialize(path.read_bytes())
    except SafetensorError as error:
        raise ModelFileError(path, f"is damaged or not a safetensors file: {error}") from None
    return {name: _array(path, name, entry) for name, entry in entries}


def _array(path: Path, name: str, entry: dict) -> np.ndarray:
    dtype = _TYPES.get(entry["dtype"])
    if dtype is None:
        raise ModelFileError(path, f"tensor {name} has a type that is not read", entry["dtype"], list(_TYPES))
    return owned(from_bytes(path, name, entry["data"], dtype, tuple(entry["shape"])))
