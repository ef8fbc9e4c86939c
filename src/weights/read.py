"""Tensors of a weight file as numpy arrays, whatever wrote it; nothing in a file is ever executed.

Every length is checked against the shapes that the file claims, since MindSpore's own reader fills up or ends the
process.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from src.errors import ModelFileError

SUFFIXES = (".ckpt", ".safetensors", ".pth")
_CKPT_TYPES = {
    "Float32": np.float32,
    "Float16": np.float16,
    "Float64": np.float64,
    "Int8": np.int8,
    "Int16": np.int16,
    "Int32": np.int32,
    "Int64": np.int64,
    "UInt8": np.uint8,
    "Bool": np.bool_,
}
_TORCH_STORAGES = {
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "DoubleStorage": np.float64,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "BoolStorage": np.bool_,
}


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a file by name.

    Raises:
        ModelFileError: no such file, unknown suffix, or contents that are damaged or of another kind.
    """
    if not path.is_file():
        raise ModelFileError(path, "no such file")
    readers = {".ckpt": _read_ckpt, ".safetensors": _read_safetensors, ".pth": _read_torch}
    if path.suffix not in readers:
        raise ModelFileError(path, "unknown kind of weight file", path.suffix or "no suffix", SUFFIXES)
    tensors = readers[path.suffix](path)
    if not tensors:
        raise ModelFileError(path, "holds no tensors")
    return tensors


def _read_ckpt(path: Path) -> dict[str, np.ndarray]:
    from google.protobuf.message import DecodeError
    from mindspore.train.checkpoint_pb2 import Checkpoint

    message = Checkpoint()
    pieces: dict[str, list] = {}
    try:
        message.ParseFromString(path.read_bytes())
        for value in message.value:
            pieces.setdefault(value.tag, []).append(value.tensor)
    except (DecodeError, UnicodeDecodeError):
        raise ModelFileError(path, "is damaged or not a MindSpore checkpoint") from None
    return {name: _ckpt_tensor(path, name, parts) for name, parts in pieces.items()}


def _ckpt_tensor(path: Path, name: str, parts: list) -> np.ndarray:
    dims = [int(d) for d in parts[0].dims]
    dtype = _CKPT_TYPES.get(parts[0].tensor_type)
    if dtype is None:
        raise ModelFileError(path, f"tensor {name} has an unknown type", parts[0].tensor_type, list(_CKPT_TYPES))
    # Large tensors are stored in slices; a scalar has dims [0].
    content = b"".join(part.tensor_content for part in parts)
    shape = () if dims == [0] else tuple(dims)
    return _from_bytes(path, name, content, dtype, shape)


def _from_bytes(path: Path, name: str, content: bytes, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    expected = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    if min(shape, default=1) < 0 or expected != len(content):
        raise ModelFileError(path, f"is damaged: tensor {name} of shape {shape} needs {expected} bytes", len(content))
    return np.frombuffer(content, dtype).reshape(shape).copy()


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, KeyError, TypeError) as error:
        raise ModelFileError(path, f"is damaged or not a safetensors file: {error}") from None


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise ModelFileError(path, "is damaged, or of torch before 1.6, whose format is not read yet")
    try:
        with zipfile.ZipFile(path) as archive:
            (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            folder = pickled.removesuffix("data.pkl")
            tree = _TorchUnpickler(path, archive, folder).load()
    except ModelFileError:
        raise
    except Exception as error:
        # Damage in a zip or a pickle comes out as any kind of error.
        raise ModelFileError(path, f"is damaged or not a torch file: {error}") from None
    while isinstance(tree, dict):
        inner = next((tree[k] for k in ("model", "state_dict", "model_ema", "state_dict_ema") if k in tree), None)
        if not isinstance(inner, dict):
            break
        tree = inner
    if not isinstance(tree, dict):
        raise ModelFileError(path, "must hold a dictionary of tensors", type(tree).__name__)
    return {name: value for name, value in tree.items() if isinstance(value, np.ndarray)}


class _TorchUnpickler(pickle.Unpickler):
    """Reads dictionaries of plain tensors; a name outside the list below is refused, not imported."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, folder: str):
        super().__init__(io.BytesIO(archive.read(folder + "data.pkl")))
        self.path, self.archive, self.folder = path, archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *_: data
        if module == "torch" and name in _TORCH_STORAGES:
            return name
        raise ModelFileError(self.path, "holds an object that is not a tensor and is not loaded", f"{module}.{name}")

    def persistent_load(self, pid: tuple) -> np.ndarray:
        _, storage, key, _, count = pid
        content = self.archive.read(f"{self.folder}data/{key}")
        return _from_bytes(self.path, f"storage {key}", content, _TORCH_STORAGES[storage], (int(count),))

    def _rebuild_tensor(self, storage: np.ndarray, offset: int, shape: tuple, stride: tuple, *_: Any) -> np.ndarray:
        last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
        if min((offset, *shape, *stride)) < 0 or (0 not in shape and last >= storage.size):
            raise ModelFileError(self.path, "is damaged: a tensor reaches beyond its storage", str(shape))
        strides = [s * storage.itemsize for s in stride]
        return np.lib.stride_tricks.as_strided(storage[offset:], shape, strides).copy()
