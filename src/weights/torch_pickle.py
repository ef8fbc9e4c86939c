"""The pickle inside a torch file: nothing is imported, called or allocated on its word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.errors import ModelFileError
from src.pickle_follower import PickleFollower
from src.weights.tensor_bytes import BFLOAT16


@dataclass(frozen=True)
class Named:
    """A name of some module; also stands for whatever a call of it would have made."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:100]


@dataclass(frozen=True)
class Storage:
    """Memory that tensors share; its bytes stand elsewhere in the file."""

    key: str
    dtype: np.dtype
    count: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.count * self.dtype.itemsize


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as places in a storage, counted in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


_MOST_ARGUMENTS = 8
_MOST_DIMS = 32
_STORAGES = {
    Named("torch", "DoubleStorage"): np.dtype(np.float64),
    Named("torch", "FloatStorage"): np.dtype(np.float32),
    Named("torch", "HalfStorage"): np.dtype(np.float16),
    Named("torch", "BFloat16Storage"): BFLOAT16,
    Named("torch", "LongStorage"): np.dtype(np.int64),
    Named("torch", "IntStorage"): np.dtype(np.int32),
    Named("torch", "ShortStorage"): np.dtype(np.int16),
    Named("torch", "CharStorage"): np.dtype(np.int8),
    Named("torch", "ByteStorage"): np.dtype(np.uint8),
    Named("torch", "BoolStorage"): np.dtype(np.bool_),
    # Of tensors whose type is named beside them.
    Named("torch.storage", "UntypedStorage"): np.dtype(np.uint8),
}
_TORCH_TYPES = (
    "bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 bfloat16 float32 float64 complex32 complex64 "
    "complex128 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu"
)
_BUILTINS = "set frozenset dict list int float bytes bytearray"
# Found beside the weights in authors' files: arguments of the run, numbers of numpy, state of schedules.
_HARMLESS = {
    "argparse": "Namespace",
    "builtins": _BUILTINS,
    "__builtin__": _BUILTINS,
    "_codecs": "encode",
    "collections": "Counter defaultdict",
    "numpy": "dtype ndarray",
    "numpy.core.multiarray": "scalar _reconstruct",
    "numpy._core.multiarray": "scalar _reconstruct",
    "numpy.core.numeric": "_frombuffer",
    "numpy._core.numeric": "_frombuffer",
    "pathlib": "Path PosixPath PurePosixPath WindowsPath",
    "torch": f"Size device {_TORCH_TYPES}",
}
_PLACEHOLDERS = {Named(module, name) for module, names in _HARMLESS.items() for name in names.split()}


class TorchPickle(PickleFollower):
    """Follows one pickle; dictionaries, lists, tuples, numbers and texts become themselves, tensors descriptions."""

    kind = "torch file"

    def __init__(self, path: Path):
        super().__init__()
        self.storages: dict[str, Storage] = {}
        self._path = path
        self._copied = 0
        self._builders: dict[Named, Callable] = {
            Named("collections", "OrderedDict"): self._dictionary,
            Named("torch._utils", "_rebuild_tensor"): self._tensor,
            Named("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            Named("torch._utils", "_rebuild_tensor_v3"): self._unread_tensor,
            Named("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
            Named("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: data,
        }
        self.actions |= {
            "EMPTY_SET": lambda _: self.push(Named("builtins", "set")),
            "FROZENSET": lambda _: self._frozen_set(),
            "ADDITEMS": lambda _: self.above_mark(),
            "NEWOBJ": lambda _: self.push(self.called(*self.popped(2))),
            "BINPERSID": lambda _: self._storage(*self.popped(1)[0]),
        }

    def refusal(self, rule: str, received: object = None) -> ModelFileError:
        """As every error of a weight file."""
        return ModelFileError(self._path, rule, received)

    # Containers

    def _frozen_set(self) -> None:
        self.above_mark()
        self.push(Named("builtins", "frozenset"))

    def pairs(self, items: list) -> dict:
        """Entries under texts."""
        return self._by_text(zip(items[::2], items[1::2], strict=True))

    def _dictionary(self, items: dict | list | tuple = ()) -> dict:
        # A dictionary that is copied again and again would outgrow any memory.
        self._copied += len(items)
        if self._copied > self.num_followed:
            raise ModelFileError(self._path, "is damaged: copies more entries than it holds")
        return self._by_text(items.items() if isinstance(items, dict) else items)

    @staticmethod
    def _by_text(pairs: Any) -> dict:
        # Other keys have no part in weights, and the hash of a deep tuple can end the process.
        return {key: value for key, value in pairs if isinstance(key, str)}

    # Objects

    def named(self, module: Any, name: Any) -> Named:
        """A name on the short list of harmless ones."""
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ModelFileError(self._path, "is damaged: names something by other than a text")
        named = Named(module, name)
        if not (named in self._builders or named in _STORAGES or named in _PLACEHOLDERS):
            raise ModelFileError(self._path, "holds an object that is not a tensor and is not loaded", named)
        return named

    def called(self, made: Any, arguments: Any) -> Any:
        """A tensor's description, a dictionary, or the name that was called."""
        if not isinstance(made, Named):
            raise ModelFileError(self._path, "is damaged: calls something that has no name")
        builder = self._builders.get(made)
        if builder and len(arguments) > _MOST_ARGUMENTS:
            raise ModelFileError(self._path, f"is damaged: too many arguments of {made}", len(arguments))
        return builder(*arguments) if builder else made

    def build(self, target: Any, state: Any) -> None:
        """Nothing: what torch notes at objects, such as versions at a dictionary, is not read."""

    def _storage(self, tag: str, named: Named, key: str, _device: str, count: int, view: None = None) -> None:
        is_storage = isinstance(named, Named) and named in _STORAGES
        if tag != "storage" or not is_storage or not isinstance(key, str) or not isinstance(count, int) or count < 0:
            raise ModelFileError(self._path, "is damaged: refers to something that is not a storage")
        if view is not None:
            raise ModelFileError(self._path, "holds a part of a storage, as only torch's first versions wrote")
        storage = Storage(key, _STORAGES[named], count)
        if self.storages.setdefault(key, storage) != storage:
            raise ModelFileError(self._path, f"is damaged: storage {key} has two types or sizes")
        self.push(storage)

    def _tensor(self, storage: Storage, offset: int, shape: tuple, stride: tuple, *_: Any) -> StoredTensor:
        if len(shape) > _MOST_DIMS:
            raise ModelFileError(self._path, "is damaged: a tensor of so many dimensions", len(shape))
        # Products of anything else, of a text for one, are no numbers and may be huge.
        if not isinstance(storage, Storage) or not all(isinstance(n, int) for n in (offset, *shape, *stride)):
            raise ModelFileError(self._path, "is damaged: a tensor without a storage or a place in it")
        last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
        if min((offset, *shape, *stride)) < 0 or (0 not in shape and last >= storage.count):
            raise ModelFileError(self._path, "is damaged: a tensor reaches beyond its storage", str(shape))
        return StoredTensor(storage, offset, shape, stride)

    def _unread_tensor(self, *arguments: Any) -> None:
        dtypes = [str(value) for value in arguments if isinstance(value, Named)]
        known = [named.name.removesuffix("Storage") for named in _STORAGES if named.module == "torch"]
        raise ModelFileError(self._path, "holds a tensor of a type that is not read", " ".join(dtypes), known)
