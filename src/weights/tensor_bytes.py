"""Bytes of a file that become an array, once their number fits the shape that the file claims."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from src.errors import ModelFileError

# numpy has no bfloat16; files of JAX call it by this name too.
BFLOAT16 = np.dtype("V2")
Buffer: TypeAlias = bytes | bytearray | memoryview
_ROOM = 64 << 20
_ROOM_PER_BYTE = 16


def from_bytes(path: Path, name: str, content: Buffer, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A view of the bytes.

    Raises:
        ModelFileError: their number is not the shape's, or no array can have the shape.
    """
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    if min(shape, default=1) < 0 or expected != len(content):
        raise ModelFileError(path, f"is damaged: tensor {name} of shape {shape} needs {expected} bytes", len(content))
    try:
        return np.frombuffer(content, dtype).reshape(shape)
    except ValueError:
        # Too many dimensions, or too large ones beside a zero.
        raise ModelFileError(path, f"is damaged: tensor {name} has a shape that no array has", shape) from None


def owned(array: np.ndarray) -> np.ndarray:
    """The values in memory that can be written, contiguous and in native byte order; bfloat16 widened to float32."""
    if array.dtype != BFLOAT16:
        return np.require(array, array.dtype.newbyteorder("="), ["C", "W"])
    halves = np.zeros((*array.shape, 2), np.uint16)
    halves[..., 1] = array.view(np.uint16)
    return halves.view(np.float32).reshape(array.shape)


def require_room(path: Path, size: int) -> None:
    """Refuse contents that a small file has blown up.

    Raises:
        ModelFileError: the contents would take many times the file's size.
    """
    stored = path.stat().st_size
    if size > _ROOM + _ROOM_PER_BYTE * stored:
        raise ModelFileError(path, f"would fill {size} bytes of memory, out of proportion to its size", stored)
