"""The pickles of CIFAR's Python version: arrays, lists and dictionaries, and nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from src.errors import DataError
from src.pickle_follower import PickleFollower


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

    Raises:
        DataError: damaged, no pickle, of something else than a dictionary, or one that names anything to be imported
            but an array.
    """
    content = path.read_bytes()
    try:
        found = _CifarPickle(path).follow(content)
    except DataError:
        raise
    except Exception as error:  # whatever a damaged pickle leads to
        raise DataError(path, f"is damaged or no pickle of CIFAR: {error}") from None
    if not isinstance(found, dict):
        raise DataError(path, "must hold a dictionary, as CIFAR's pickles do", type(found).__name__)
    return found, content


class _CifarPickle(PickleFollower):
    kind = "pickle of CIFAR"
    # The authors wrote protocols 0 and 2, other people's copies are of later ones.
    literals = PickleFollower.literals | {"INT", "LONG", "FLOAT", "STRING", "UNICODE"}

    def __init__(self, path: Path):
        super().__init__()
        self._path = path
        self.actions |= {
            "DICT": lambda _: self.push(self.pairs(self.above_mark())),
            "LIST": lambda _: self.push(self.above_mark()),
            "PUT": self.remember,
            "GET": self.recall,
        }

    def refusal(self, rule: str, received: object = None) -> ValueError:
        return ValueError(rule if received is None else f"{rule}, {received}")

    def pairs(self, items: list) -> dict:
        # Other keys have no part in CIFAR, and the hash of a deep tuple can end the process.
        return {_text(key): value for key, value in zip(items[::2], items[1::2], strict=True)}

    def named(self, module: Any, name: Any) -> Callable:
        both = f"{_text(module)} {_text(name)}"
        if both not in _NAMES:
            raise DataError(self._path, "names something that no CIFAR file needs, and is not loaded", both[:100])
        return _NAMES[both]

    def called(self, made: Any, arguments: Any) -> Any:
        if made not in _NAMES.values():
            raise ValueError("calls what cannot be called")
        return made(*arguments)

    def build(self, target: Any, state: Any) -> None:
        if not isinstance(target, (StoredArray, _DType)):
            raise ValueError("sets what cannot be set")
        target.state = state


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if not isinstance(value, str):
        raise ValueError("a name that is not a text")
    return value
