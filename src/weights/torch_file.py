"""Tensors of a file that torch saved, in the zip of torch 1.6 and later or the row of pickles before it."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from src.errors import ModelFileError
from src.weights.archive import open_archive, read_member
from src.weights.tensor_bytes import from_bytes, owned, require_room
from src.weights.torch_pickle import Named, Storage, StoredTensor, TorchPickle

# What training code puts weights under; averaged ones are taken only where there are no others.
_WRAPPERS = ("model", "state_dict", "state_dict_ema", "model_ema")
_MOST_WRAPPERS = 2
_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001


class _FileReader(io.BufferedReader):
    """Sets no memory aside for more bytes than the file has, however many a pickle announces."""

    def __init__(self, path: Path):
        super().__init__(path.open("rb", buffering=0))
        self._size = path.stat().st_size

    def read(self, size: int = -1) -> bytes:
        return super().read(min(size, self._size))


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """The weights by name; whatever else the file holds is left out.

    Raises:
        ModelFileError: damaged, or holding an object that is not known to be harmless.
    """
    if zipfile.is_zipfile(path):
        with open_archive(path) as archive:
            return _read_zip(path, archive)
    with _FileReader(path) as stream:
        return _read_pickles(path, stream)


def _read_zip(path: Path, archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    pickled = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickled) != 1:
        raise ModelFileError(path, "is damaged or not a torch file: must hold one data.pkl", len(pickled))
    folder = pickled[0].removesuffix("data.pkl")
    order = "little"
    if f"{folder}byteorder" in archive.namelist():
        order = read_member(path, archive, f"{folder}byteorder").decode("latin-1")
        if order not in ("little", "big"):
            raise ModelFileError(path, "is damaged: unknown byte order", order, ("little", "big"))
    tree = TorchPickle(path).follow(io.BytesIO(read_member(path, archive, pickled[0])))

    def content(storage: Storage) -> bytes:
        stored = read_member(path, archive, f"{folder}data/{storage.key}")
        if order == "little" or len(stored) != storage.size:
            return stored
        return np.frombuffer(stored, f"u{storage.dtype.itemsize}").byteswap().tobytes()

    return _arrays(path, _weights(path, tree), content)


def _read_pickles(path: Path, stream: BinaryIO) -> dict[str, np.ndarray]:
    """Magic number, version, the writer's machine, the tree and the storages' names are pickles, one after another."""
    _require_no_tar(path, stream)
    if TorchPickle(path).follow(stream) != _MAGIC:
        raise ModelFileError(path, "is damaged or not a torch file")
    if TorchPickle(path).follow(stream) != _VERSION:
        raise ModelFileError(path, "is damaged, or of an unknown version of torch's format")
    # Numbers are stored little-endian on every machine.
    TorchPickle(path).follow(stream)
    pickled = TorchPickle(path)
    tree = pickled.follow(stream)
    keys = TorchPickle(path).follow(stream)
    if not (isinstance(keys, list) and all(isinstance(key, str) and key in pickled.storages for key in keys)):
        raise ModelFileError(path, "is damaged: its list of storages is not that of its tensors")
    places = _places(path, stream, [pickled.storages[key] for key in keys])

    def content(storage: Storage) -> bytes:
        stream.seek(places[storage.key])
        return stream.read(storage.size)

    return _arrays(path, _weights(path, tree), content)


def _require_no_tar(path: Path, stream: BinaryIO) -> None:
    if stream.read(512)[257:262] == b"ustar":
        raise ModelFileError(path, "is a tar archive and not a torch file")
    stream.seek(0)


def _places(path: Path, stream: BinaryIO, storages: list[Storage]) -> dict[str, int]:
    """Where each storage's numbers begin; their count stands before them."""
    end = path.stat().st_size
    places = {}
    for storage in storages:
        count = int.from_bytes(stream.read(8), "little")
        if count != storage.count:
            raise ModelFileError(path, f"is damaged: storage {storage.key} needs {storage.count} numbers", count)
        places[storage.key] = stream.tell()
        if stream.seek(storage.size, io.SEEK_CUR) > end:
            raise ModelFileError(path, f"is damaged: cut off within storage {storage.key}")
    return places


def _weights(path: Path, tree: Any) -> dict[str, StoredTensor]:
    """The dictionary's tensors, below wrappers."""
    for _ in range(_MOST_WRAPPERS):
        if isinstance(tree, dict):
            tree = next((tree[key] for key in _WRAPPERS if isinstance(tree.get(key), dict)), tree)
    if not isinstance(tree, dict):
        found = tree if isinstance(tree, Named) else type(tree).__name__
        raise ModelFileError(path, "must hold a dictionary of tensors", found)
    return {name: value for name, value in tree.items() if isinstance(value, StoredTensor)}


def _arrays(path: Path, tensors: dict[str, StoredTensor], content: Callable[[Storage], bytes]) -> dict[str, np.ndarray]:
    # Stored once and repeated by strides of zero, or shared by many, a number can fill any memory.
    require_room(path, sum(math.prod(tensor.shape) * tensor.storage.dtype.itemsize for tensor in tensors.values()))
    sharing: dict[Storage, list[str]] = {}
    for name, tensor in tensors.items():
        sharing.setdefault(tensor.storage, []).append(name)
    arrays = {}
    for storage, names in sharing.items():
        values = from_bytes(path, f"storage {storage.key}", content(storage), storage.dtype, (storage.count,))
        arrays.update((name, _array(values, tensors[name])) for name in names)
    return {name: arrays[name] for name in tensors}


def _array(values: np.ndarray, tensor: StoredTensor) -> np.ndarray:
    strides = [step * values.itemsize for step in tensor.stride]
    # Bytes cannot be written, so each tensor gets memory of its own even where a storage is shared.
    return owned(np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides))
