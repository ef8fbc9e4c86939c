"""The pickle inside a torch file, followed opcode by opcode: nothing is imported, called or allocated on its word."""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from src.errors import ModelFileError
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


# A checkpoint with its optimizer has some 100 for each tensor.
_MOST_OPCODES = 4_000_000
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
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class TorchPickle:
    """Follows one pickle; dictionaries, lists, tuples, numbers and texts become themselves, tensors descriptions.

    Python's own reader is not used: a few bytes can make it take any amount of memory, or end the process.
    """

    def __init__(self, path: Path):
        self.storages: dict[str, Storage] = {}
        self._path = path
        self._stack: list = []
        self._below_marks: list[list] = []
        self._memo: dict[int, Any] = {}
        self._done = self._copied = 0
        self._builders: dict[Named, Callable] = {
            Named("collections", "OrderedDict"): self._dictionary,
            Named("torch._utils", "_rebuild_tensor"): self._tensor,
            Named("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            Named("torch._utils", "_rebuild_tensor_v3"): self._unread_tensor,
            Named("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
            Named("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: data,
        }
        self._actions: dict[str, Callable] = {
            "MARK": self._mark,
            "EMPTY_DICT": lambda _: self._push({}),
            "EMPTY_LIST": lambda _: self._push([]),
            "EMPTY_SET": lambda _: self._push(Named("builtins", "set")),
            "TUPLE": lambda _: self._push(tuple(self._above_mark())),
            "TUPLE1": lambda _: self._tuple(1),
            "TUPLE2": lambda _: self._tuple(2),
            "TUPLE3": lambda _: self._tuple(3),
            "FROZENSET": lambda _: self._frozen_set(),
            "ADDITEMS": lambda _: self._above_mark(),
            "APPEND": lambda _: self._append([self._stack.pop()]),
            "APPENDS": lambda _: self._append(self._above_mark()),
            "SETITEM": lambda _: self._set_items(self._popped(2)),
            "SETITEMS": lambda _: self._set_items(self._above_mark()),
            "BINPUT": self._remember,
            "LONG_BINPUT": self._remember,
            "MEMOIZE": lambda _: self._remember(len(self._memo)),
            "BINGET": lambda place: self._push(self._memo[place]),
            "LONG_BINGET": lambda place: self._push(self._memo[place]),
            "GLOBAL": lambda both: self._name(*both.split(" ", 1)),
            "STACK_GLOBAL": lambda _: self._name(*self._popped(2)),
            "REDUCE": lambda _: self._call(*self._popped(2)),
            "NEWOBJ": lambda _: self._call(*self._popped(2)),
            # Attributes of an object, such as the versions that torch notes at a dictionary.
            "BUILD": lambda _: self._stack.pop(),
            "BINPERSID": lambda _: self._storage(*self._stack.pop()),
        }

    def load(self, stream: BinaryIO) -> Any:
        """The object that the pickle at the stream's place describes.

        Raises:
            ModelFileError: a name that is not on the short list of harmless ones, or a pickle that torch never writes.
            Exception: of any kind, where the pickle is damaged.
        """
        for opcode, argument, _ in pickletools.genops(stream):
            self._done += 1
            if self._done > _MOST_OPCODES:
                raise ModelFileError(self._path, "holds more objects than any weights have")
            if opcode.name in _LITERALS:
                self._push(argument)
            elif opcode.name in _CONSTANTS:
                self._push(_CONSTANTS[opcode.name])
            elif opcode.name not in ("PROTO", "FRAME", "STOP"):
                if opcode.name not in self._actions:
                    raise ModelFileError(self._path, "is damaged or not a torch file", f"opcode {opcode.name}")
                self._actions[opcode.name](argument)
        return self._stack.pop()

    # Stack and memo

    def _push(self, value: Any) -> None:
        # Looked up after the value is made, since that may replace the stack.
        self._stack.append(value)

    def _mark(self, _: None) -> None:
        self._below_marks.append(self._stack)
        self._stack = []

    def _above_mark(self) -> list:
        items, self._stack = self._stack, self._below_marks.pop()
        return items

    def _popped(self, count: int) -> list:
        return [self._stack.pop() for _ in range(count)][::-1]

    def _remember(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    # Containers

    def _tuple(self, count: int) -> None:
        self._push(tuple(self._popped(count)))

    def _frozen_set(self) -> None:
        self._above_mark()
        self._push(Named("builtins", "frozenset"))

    def _append(self, items: list) -> None:
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(items)

    def _set_items(self, items: list) -> None:
        if isinstance(self._stack[-1], dict):
            self._stack[-1].update(self._by_text(zip(items[::2], items[1::2], strict=True)))

    def _dictionary(self, items: dict | list | tuple = ()) -> dict:
        # A dictionary that is copied again and again would outgrow any memory.
        self._copied += len(items)
        if self._copied > self._done:
            raise ModelFileError(self._path, "is damaged: copies more entries than it holds")
        return self._by_text(items.items() if isinstance(items, dict) else items)

    @staticmethod
    def _by_text(pairs: Any) -> dict:
        # Other keys have no part in weights, and the hash of a deep tuple can end the process.
        return {key: value for key, value in pairs if isinstance(key, str)}

    # Objects

    def _name(self, module: str, name: str) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ModelFileError(self._path, "is damaged: names something by other than a text")
        named = Named(module, name)
        if not (named in self._builders or named in _STORAGES or named in _PLACEHOLDERS):
            raise ModelFileError(self._path, "holds an object that is not a tensor and is not loaded", named)
        self._push(named)

    def _call(self, named: Named, arguments: tuple) -> None:
        if not isinstance(named, Named):
            raise ModelFileError(self._path, "is damaged: calls something that has no name")
        builder = self._builders.get(named)
        if builder and len(arguments) > _MOST_ARGUMENTS:
            raise ModelFileError(self._path, f"is damaged: too many arguments of {named}", len(arguments))
        self._push(builder(*arguments) if builder else named)

    def _storage(self, tag: str, named: Named, key: str, _device: str, count: int, view: None = None) -> None:
        is_storage = isinstance(named, Named) and named in _STORAGES
        if tag != "storage" or not is_storage or not isinstance(key, str) or not isinstance(count, int) or count < 0:
            raise ModelFileError(self._path, "is damaged: refers to something that is not a storage")
        if view is not None:
            raise ModelFileError(self._path, "holds a part of a storage, as only torch's first versions wrote")
        storage = Storage(key, _STORAGES[named], count)
        if self.storages.setdefault(key, storage) != storage:
            raise ModelFileError(self._path, f"is damaged: storage {key} has two types or sizes")
        self._push(storage)

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
