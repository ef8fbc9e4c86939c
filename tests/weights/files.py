"""Weight files of every kind, made by hand and by their own libraries."""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from mindspore.train.checkpoint_pb2 import Checkpoint


def ckpt_bytes(tensors: Mapping[str, np.ndarray], slices: int = 1) -> bytes:
    """A MindSpore checkpoint; large tensors of MindSpore's come in slices under one name."""
    kinds = {"float32": "Float32", "float16": "Float16", "int32": "Int32", "int64": "Int64"}
    message = Checkpoint()
    for name, array in tensors.items():
        content = array.tobytes()
        size = -(-len(content) // slices)
        for start in range(0, len(content), size):
            value = message.value.add()
            value.tag = name
            value.tensor.dims.extend(array.shape or (0,))
            value.tensor.tensor_type = kinds[str(array.dtype)]
            value.tensor.tensor_content = content[start : start + size]
    return message.SerializeToString()


class _Named:
    """Pickled as a reference to a name of some module, without importing it."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class _Storage:
    def __init__(self, key: str, array: np.ndarray):
        self.key, self.array = key, array


class _Call:
    """Pickled as the call of a name."""

    def __init__(self, module: str, name: str, *arguments: object):
        self.function, self.arguments = _Named(module, name), arguments


_KINDS = {"float32": "FloatStorage", "float16": "HalfStorage", "float64": "DoubleStorage", "int64": "LongStorage"}


class _TorchPickler(pickle._Pickler):
    """Writes what torch.save writes, without torch."""

    def persistent_id(self, value: object) -> tuple | None:
        if isinstance(value, _Storage):
            kind = _Named("torch", _KINDS[str(value.array.dtype)])
            return "storage", kind, value.key, "cpu", value.array.size
        return None

    def save(self, value: object, save_persistent_id: bool = True) -> None:
        if isinstance(value, _Named):
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        elif isinstance(value, _Call):
            self.save(value.function)
            self.save(value.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(value, save_persistent_id)


def call(module: str, name: str, *arguments: object) -> object:
    """Something that a naive reader would execute."""
    return _Call(module, name, *arguments)


def torch_bytes(tree: object) -> bytes:
    """A torch file since 1.6: a zip of a pickle and one entry per storage; arrays in the tree become tensors."""
    storages: dict[str, np.ndarray] = {}

    def tensor(array: np.ndarray) -> _Call:
        # The memory as it lies there, so that strides of transposed arrays reach the file.
        base = array.base if array.base is not None and not array.flags.c_contiguous else array
        key = str(len(storages))
        storages[key] = np.ascontiguousarray(base).ravel()
        strides = tuple(stride // array.itemsize for stride in array.strides)
        storage = _Storage(key, storages[key])
        return _Call("torch._utils", "_rebuild_tensor_v2", storage, 0, array.shape, strides, False, OrderedDict())

    def converted(value: object) -> object:
        if isinstance(value, Mapping):
            return type(value)((key, converted(inner)) for key, inner in value.items())
        return tensor(value) if isinstance(value, np.ndarray) else value

    stream = io.BytesIO()
    _TorchPickler(stream, protocol=2).dump(converted(tree))
    archive_bytes = io.BytesIO()
    with zipfile.ZipFile(archive_bytes, "w") as archive:
        archive.writestr("net/data.pkl", stream.getvalue())
        for key, array in storages.items():
            archive.writestr(f"net/data/{key}", array.tobytes())
        archive.writestr("net/version", "3\n")
    return archive_bytes.getvalue()


def write_file(name: str, content: bytes) -> Path:
    """A file in the current folder."""
    path = Path(name)
    path.write_bytes(content)
    return path
