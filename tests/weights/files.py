"""Weight files of every kind, made by hand and by their own libraries."""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mindspore.train.checkpoint_pb2 import Checkpoint
from safetensors.numpy import save

# numpy's own name -> MindSpore's and torch's; bfloat16 is two bytes to numpy.
_CKPT_KINDS = {"float32": "Float32", "float16": "Float16", "int32": "Int32", "int64": "Int64", "void16": "BFloat16"}
_TORCH_KINDS = {
    "float64": "Double",
    "float32": "Float",
    "float16": "Half",
    "void16": "BFloat16",
    "int64": "Long",
    "int32": "Int",
    "int16": "Short",
    "int8": "Char",
    "uint8": "Byte",
    "bool": "Bool",
}
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C

VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)


def bfloat16(array: np.ndarray) -> np.ndarray:
    """The upper halves of float32 numbers, as files hold them."""
    return (array.view(np.uint32) >> 16).astype(np.uint16).view("V2")


def ckpt_bytes(tensors: Mapping[str, np.ndarray], slices: int = 1) -> bytes:
    """A MindSpore checkpoint; large tensors of MindSpore's come in slices under one name."""
    message = Checkpoint()
    for name, array in tensors.items():
        content = array.tobytes()
        size = -(-len(content) // slices)
        for start in range(0, len(content), size):
            value = message.value.add()
            value.tag = name
            value.tensor.dims.extend(array.shape or (0,))
            value.tensor.tensor_type = _CKPT_KINDS[array.dtype.name]
            value.tensor.tensor_content = content[start : start + size]
    return message.SerializeToString()


def npz_bytes(tensors: Mapping[str, np.ndarray]) -> bytes:
    """What numpy.savez writes."""
    stream = io.BytesIO()
    np.savez(stream, **tensors)
    return stream.getvalue()


class _Named:
    """Pickled as a reference to a name of some module, without importing it."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class _Call:
    """Pickled as the call of a name."""

    def __init__(self, module: str, name: str, *arguments: object):
        self.function, self.arguments = _Named(module, name), arguments


class _Storage:
    def __init__(self, key: str, array: np.ndarray):
        self.key, self.array = key, array


@dataclass
class TorchTensor:
    """Places in an array's memory, counted in elements; tensors of one array share its storage."""

    array: np.ndarray
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _TorchPickler(pickle._Pickler):
    """Writes what torch.save writes, without torch; arrays become tensors."""

    def __init__(self, stream: io.BytesIO):
        super().__init__(stream, protocol=2)
        self.storages: dict[int, _Storage] = {}

    def persistent_id(self, value: object) -> tuple | None:
        if isinstance(value, _Storage):
            kind = _Named("torch", f"{_TORCH_KINDS[value.array.dtype.name]}Storage")
            return "storage", kind, value.key, "cpu", value.array.size
        return None

    def save(self, value: Any, save_persistent_id: bool = True) -> None:
        if isinstance(value, _Named):
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        elif isinstance(value, type):
            # Libraries that are imported elsewhere change how Python's own writer puts this down.
            self.save(_Named(value.__module__.replace("builtins", "__builtin__"), value.__qualname__))
        elif isinstance(value, _Call):
            self.save(value.function)
            self.save(value.arguments)
            self.write(pickle.REDUCE)
        elif isinstance(value, np.ndarray):
            # The memory as it lies there, so that strides of transposed arrays reach the file.
            base = value if value.flags.c_contiguous else value.base.view(value.dtype)
            self.save(TorchTensor(base, 0, value.shape, tuple(step // value.itemsize for step in value.strides)))
        elif isinstance(value, TorchTensor):
            storage = self.storages.setdefault(id(value.array), _Storage(str(len(self.storages)), value.array))
            places = (storage, value.offset, value.shape, value.stride)
            self.save(call("torch._utils", "_rebuild_tensor_v2", *places, False, OrderedDict()))
        else:
            super().save(value, save_persistent_id)


def call(module: str, name: str, *arguments: object) -> object:
    """Something that a naive reader would execute."""
    return _Call(module, name, *arguments)


def named(module: str, name: str) -> object:
    """Something that a naive reader would import."""
    return _Named(module, name)


def torch_bytes(tree: object, order: str = "little") -> bytes:
    """A torch file since 1.6: a zip of a pickle and one entry per storage; arrays in the tree become tensors."""
    stream = io.BytesIO()
    pickler = _TorchPickler(stream)
    pickler.dump(tree)
    storages = [(storage.key, storage.array) for storage in pickler.storages.values()]
    return torch_zip(stream.getvalue(), {key: _stored(array, order) for key, array in storages}, order)


def torch_zip(pickled: bytes, storages: Mapping[str, bytes], order: str = "little") -> bytes:
    """The zip alone."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("net/data.pkl", pickled)
        archive.writestr("net/byteorder", order)
        for key, content in storages.items():
            archive.writestr(f"net/data/{key}", content)
        archive.writestr("net/version", "3\n")
    return stream.getvalue()


def legacy_torch_bytes(tree: object) -> bytes:
    """A torch file before 1.6: pickles one after another, then the storages with their lengths."""
    stream = io.BytesIO()
    stream.write(legacy_head())
    pickler = _TorchPickler(stream)
    pickler.dump(tree)
    storages = pickler.storages.values()
    pickle.dump([storage.key for storage in storages], stream, protocol=2)
    for storage in storages:
        stream.write(storage.array.size.to_bytes(8, "little"))
        stream.write(_stored(storage.array, "little"))
    return stream.getvalue()


def legacy_head() -> bytes:
    """The pickles before the tree."""
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    return b"".join(pickle.dumps(value, protocol=2) for value in (_TORCH_MAGIC, 1001, machine))


def _stored(array: np.ndarray, order: str) -> bytes:
    bits = np.ascontiguousarray(array).view(f"u{array.itemsize}")
    return (bits if order == "little" else bits.byteswap()).tobytes()


# One file name for each format.
WRITERS = {
    "net.ckpt": ckpt_bytes,
    "net.safetensors": save,
    "net.npz": npz_bytes,
    "net.pth": torch_bytes,
    "legacy.pth.tar": legacy_torch_bytes,
}


def write_file(name: str, content: bytes) -> Path:
    """A file in the current folder."""
    path = Path(name)
    path.write_bytes(content)
    return path


def pickled(content: bytes) -> Path:
    """A file of torch with a pickle made by hand, and one storage of four numbers."""
    return write_file("net.pth", torch_zip(content, {"0": np.arange(4, dtype=np.float32).tobytes()}))


def reference(key: str, count: int) -> bytes:
    """The opcodes that refer to a storage of float32 numbers."""
    return (
        b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0"
        + key.encode()
        + b"X\x03\0\0\0cpu"
        + number(count)
        + b"tQ"
    )


def number(value: int) -> bytes:
    """The opcodes of an integer."""
    return pickle.dumps(value, 2)[2:-1]
