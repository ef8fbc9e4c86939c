"""Tensors of a MindSpore checkpoint.

MindSpore's own reader fills up data that is too short, ends the process at a negative dimension, and cannot parse
more than 2 GB.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from src.errors import ModelFileError
from src.weights.tensor_bytes import BFLOAT16, from_bytes, owned

_TYPES = {
    "Float32": np.float32,
    "Float16": np.float16,
    "Float64": np.float64,
    "BFloat16": BFLOAT16,
    "Int8": np.int8,
    "Int16": np.int16,
    "Int32": np.int32,
    "Int64": np.int64,
    "UInt8": np.uint8,
    "UInt16": np.uint16,
    "UInt32": np.uint32,
    "UInt64": np.uint64,
    "Bool": np.bool_,
}
# What the field `value` of a message begins with: its number, and that a length follows.
_VALUE = b"\x0a"
_LONGEST_VARINT = 10
_CRC_MARK = b"crc_num"
_CRC_BYTES = 10


def read_ckpt(path: Path) -> dict[str, np.ndarray]:
    """All tensors by name; texts that were saved beside them are left out.

    Raises:
        ModelFileError: damaged, a wrong checksum, or a type that is not read.
    """
    kinds: dict[str, tuple[str, list[int]]] = {}
    slices: dict[str, list[bytes]] = {}
    for name, tensor in _entries(path):
        kind = tensor.tensor_type, list(tensor.dims)
        if kind[0] == "str":
            continue
        if kinds.setdefault(name, kind) != kind:
            raise ModelFileError(path, f"is damaged: slices of tensor {name} differ in type or shape", kind)
        slices.setdefault(name, []).append(tensor.tensor_content)
    # A tensor's slices go as soon as it is there, so that the whole is not in memory twice.
    return {name: _tensor(path, name, *kind, slices.pop(name)) for name, kind in kinds.items()}


def _tensor(path: Path, name: str, type_name: str, dims: list[int], slices: list[bytes]) -> np.ndarray:
    if type_name not in _TYPES:
        raise ModelFileError(path, f"tensor {name} has an unknown type", type_name, list(_TYPES))
    # A scalar has dims [0].
    shape = () if dims == [0] else tuple(dims)
    return owned(from_bytes(path, name, bytearray().join(slices), _TYPES[type_name], shape))


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    """Name and tensor message of each entry, parsed one by one: protobuf takes no more than 2 GB at once."""
    from mindspore.train.checkpoint_pb2 import Checkpoint

    with path.open("rb") as stream:
        end = _end_of_entries(path, stream)
        while stream.tell() < end:
            if stream.read(1) != _VALUE:
                raise ModelFileError(path, "is damaged or not a MindSpore checkpoint")
            length = _varint(stream)
            if length > end - stream.tell():
                raise ModelFileError(path, f"is damaged: cut off within a tensor of {length} bytes")
            value = Checkpoint.Value()
            value.ParseFromString(stream.read(length))
            if not value.IsInitialized():
                raise ModelFileError(path, "is damaged: a tensor lacks its name, type or values")
            if not value.HasField("tensor"):
                raise ModelFileError(path, "holds something else than a tensor and is not loaded", value.tag)
            yield value.tag, value.tensor


def _varint(stream: BinaryIO) -> int:
    """A number in protobuf's encoding: seven bits in each byte, the lowest first, and a sign that more follow."""
    number = 0
    for place in range(_LONGEST_VARINT):
        (byte,) = stream.read(1)
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            break
    return number


def _end_of_entries(path: Path, stream: BinaryIO) -> int:
    """Where the entries end, with the checksum that MindSpore may have put there already compared."""
    size = path.stat().st_size
    end = size - len(_CRC_MARK) - _CRC_BYTES
    stream.seek(max(0, end))
    if end < 0 or stream.read(len(_CRC_MARK)) != _CRC_MARK:
        stream.seek(0)
        return size
    expected = int.from_bytes(stream.read(_CRC_BYTES), "big")
    stream.seek(0)
    found = 0
    while block := stream.read(min(1 << 20, end - stream.tell())):
        found = zlib.crc32(block, found)
    if found != expected:
        raise ModelFileError(path, f"is damaged: its contents have not the checksum {expected}", found)
    stream.seek(0)
    return end
