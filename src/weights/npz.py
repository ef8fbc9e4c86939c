"""Arrays of an .npz file, as JAX projects publish their weights."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import numpy as np

from src.errors import ModelFileError
from src.weights.archive import open_archive, read_member
from src.weights.tensor_bytes import BFLOAT16, from_bytes, owned

_TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
# numpy stores bfloat16 as two bytes without a meaning.
_BFLOAT16_NAMES = ("V2", "bfloat16")
# Most take 118; the header is parsed as a Python literal, which a long one could overturn.
_LONGEST_HEADER = 2000


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays by name; names with slashes stay as they are.

    Raises:
        ModelFileError: damaged, or something else than plain arrays.
    """
    with open_archive(path) as archive:
        names = archive.namelist()
        foreign = [name for name in names if not name.endswith(".npy")]
        if foreign:
            raise ModelFileError(path, "holds something else than arrays", foreign[0])
        return {name.removesuffix(".npy"): _array(path, name, read_member(path, archive, name)) for name in names}


def _array(path: Path, name: str, content: bytes) -> np.ndarray:
    stream = io.BytesIO(content)
    major, _ = np.lib.format.read_magic(stream)
    length = int.from_bytes(stream.read(2 if major == 1 else 4), "little")
    if length > _LONGEST_HEADER:
        raise ModelFileError(path, f"is damaged: the header of {name} is too long", length)
    header = ast.literal_eval(stream.read(length).decode("latin-1"))
    shape, is_fortran = header["shape"], header["fortran_order"]
    dtype = _dtype(path, name, header["descr"])
    values = from_bytes(path, name, memoryview(content)[stream.tell() :], dtype, shape[::-1] if is_fortran else shape)
    return owned(values.T if is_fortran else values)


def _dtype(path: Path, name: str, descr: object) -> np.dtype:
    kind = descr.lstrip("<>|=") if isinstance(descr, str) else None
    if kind in _BFLOAT16_NAMES:
        return BFLOAT16
    if kind not in _TYPES:
        raise ModelFileError(path, f"array {name} is not of plain numbers and is not loaded", descr, _TYPES)
    return np.dtype(descr)
