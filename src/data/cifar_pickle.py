"""The pickles of CIFAR's Python version, followed opcode by opcode: nothing is imported or called on their word."""

from __future__ import annotations

import math
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from src.errors import DataError

# CIFAR-100 has some 350,000.
_MOST_OPCODES = 4_000_000
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


class StoredArray:
    """An array as the pickle describes it: nothing is checked or made before it is asked for."""

    def __init__(self, state: tuple = ()):
        self.state = state

    def array(self) -> np.ndarray:
        """The array of whole numbers, in one or two dimensions.

        Raises:
            ValueError: the description is not one of such an array.
        """
        _, shape, dtype, is_fortran, raw = self.state
        if len(shape) > 2 or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError("an array of another form")
        if not isinstance(dtype, _DType) or not isinstance(raw, (str, bytes, bytearray)):
            raise ValueError("an array of other things than numbers")
        kind = dtype.kind()
        raw = raw.encode("latin-1") if isinstance(raw, str) else raw
        if math.prod(shape) * kind.itemsize != len(raw):
            raise ValueError(f"an array of {shape} in {len(raw)} bytes")
        return np.frombuffer(raw, kind).reshape(shape, order="F" if is_fortran else "C")


class _DType:
    def __init__(self, code: Any):
        self.code, self.state = code, (None, "|")

    def kind(self) -> np.dtype:
        code, order = _text(self.code), _text(self.state[1])
        if not re.fullmatch("[iu][1248]", code) or order not in ("<", ">", "|"):
            raise ValueError(f"an array of {code[:20]}")
        return np.dtype(code if order == "|" else order + code)


def _array_of_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> StoredArray:
    return StoredArray((1, shape, dtype, order == "F", buffer))


# What a pickle may name, under the names that numpy has had for it. Nothing is called but these stand-ins.
_NAMES: dict[str, Callable] = {
    "numpy.core.multiarray _reconstruct": lambda *_: StoredArray(),
    "numpy._core.multiarray _reconstruct": lambda *_: StoredArray(),
    "numpy.core.numeric _frombuffer": _array_of_buffer,
    "numpy._core.numeric _frombuffer": _array_of_buffer,
    "numpy ndarray": lambda *_: StoredArray(),
    "numpy dtype": lambda code, *_: _DType(code),
    # Bytes in the guise of a text; they are turned back when they are looked at.
    "_codecs encode": lambda text, *_: text,
}


def load_cifar_pickle(path: Path) -> tuple[dict[str, Any], bytes]:
    """The dictionary in a batch or a meta file, with texts as keys, and the whole content of the file.

    Python's own reader is not used: a pickle can make it run any program, or take any amount of memory.

    Raises:
        DataError: damaged, no pickle, of something else than a dictionary, or one that names anything to be imported
            but an array.
    """
    content = path.read_bytes()
    try:
        found = _Follower(path).load(content)
    except DataError:
        raise
    except Exception as error:  # whatever a damaged pickle leads to
        raise DataError(path, f"is damaged or no pickle of CIFAR: {error}") from None
    if not isinstance(found, dict):
        raise DataError(path, "must hold a dictionary, as CIFAR's pickles do", type(found).__name__)
    return found, content


class _Follower:
    def __init__(self, path: Path):
        self._path = path
        self._stack: list = []
        self._below_marks: list[list] = []
        self._memo: dict[int, Any] = {}
        self._actions: dict[str, Callable] = {
            "MARK": self._mark,
            "EMPTY_DICT": lambda _: self._push({}),
            "EMPTY_LIST": lambda _: self._push([]),
            "EMPTY_TUPLE": lambda _: self._push(()),
            "DICT": lambda _: self._dictionary(self._above_mark()),
            "LIST": lambda _: self._push(self._above_mark()),
            "TUPLE": lambda _: self._push(tuple(self._above_mark())),
            "TUPLE1": lambda _: self._push(tuple(self._popped(1))),
            "TUPLE2": lambda _: self._push(tuple(self._popped(2))),
            "TUPLE3": lambda _: self._push(tuple(self._popped(3))),
            "APPEND": lambda _: self._append(self._popped(1)),
            "APPENDS": lambda _: self._append(self._above_mark()),
            "SETITEM": lambda _: self._set_items(self._popped(2)),
            "SETITEMS": lambda _: self._set_items(self._above_mark()),
            "PUT": self._remember,
            "BINPUT": self._remember,
            "LONG_BINPUT": self._remember,
            "MEMOIZE": lambda _: self._remember(len(self._memo)),
            "GET": lambda place: self._push(self._memo[place]),
            "BINGET": lambda place: self._push(self._memo[place]),
            "LONG_BINGET": lambda place: self._push(self._memo[place]),
            "GLOBAL": self._name,
            "STACK_GLOBAL": lambda _: self._name(" ".join(map(_text, self._popped(2)))),
            "REDUCE": lambda _: self._call(*self._popped(2)),
            "BUILD": lambda _: self._build(self._stack.pop()),
        }

    def load(self, content: bytes) -> Any:
        for done, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if done > _MOST_OPCODES:
                raise ValueError("too many objects")
            if opcode.name in _LITERALS:
                self._push(argument)
            elif opcode.name in _CONSTANTS:
                self._push(_CONSTANTS[opcode.name])
            elif opcode.name not in ("PROTO", "FRAME", "STOP"):
                if opcode.name not in self._actions:
                    raise ValueError(f"opcode {opcode.name}")
                self._actions[opcode.name](argument)
        return self._stack.pop()

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
        self._memo[int(place)] = self._stack[-1]

    def _dictionary(self, items: list) -> None:
        self._push({})
        self._set_items(items)

    def _append(self, items: list) -> None:
        self._stack[-1].extend(items)

    def _set_items(self, items: list) -> None:
        # Other keys have no part in CIFAR, and the hash of a deep tuple can end the process.
        pairs = zip(items[::2], items[1::2], strict=True)
        self._stack[-1].update((_text(key), value) for key, value in pairs)

    def _name(self, name: str) -> None:
        if name not in _NAMES:
            raise DataError(self._path, "names something that no CIFAR file needs, and is not loaded", name[:100])
        self._push(_NAMES[name])

    def _call(self, made: Callable, arguments: tuple) -> None:
        if made not in _NAMES.values():
            raise ValueError("calls what cannot be called")
        self._push(made(*arguments))

    def _build(self, state: tuple) -> None:
        if not isinstance(self._stack[-1], (StoredArray, _DType)):
            raise ValueError("sets what cannot be set")
        self._stack[-1].state = state


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if not isinstance(value, str):
        raise ValueError("a name that is not a text")
    return value
