"""Tensors of a weight file as numpy arrays, whatever wrote it; nothing in a file is ever executed."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np

from src.errors import ModelFileError
from src.weights.ckpt import read_ckpt
from src.weights.npz import read_npz
from src.weights.safetensors_file import read_safetensors
from src.weights.torch_file import read_torch

_TORCH = (read_torch, "a torch file")
_READERS = {
    ".ckpt": (read_ckpt, "a MindSpore checkpoint"),
    ".safetensors": (read_safetensors, "a safetensors file"),
    ".npz": (read_npz, "an .npz file"),
    ".pth": _TORCH,
    ".pt": _TORCH,
    ".bin": _TORCH,
    ".th": _TORCH,
    # .pth.tar, as published; no archive of the program tar.
    ".tar": _TORCH,
}
SUFFIXES = tuple(_READERS)


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a file by name, as the file's types; bfloat16 becomes float32.

    Raises:
        ModelFileError: no such file, unknown suffix, or contents that are damaged or of another kind.
    """
    _require_file(path)
    if path.suffix not in _READERS:
        raise ModelFileError(path, "unknown kind of weight file", path.suffix or "no suffix", SUFFIXES)
    reader, kind = _READERS[path.suffix]
    try:
        tensors = reader(path)
    except ModelFileError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from None
    except MemoryError:
        raise ModelFileError(path, "does not fit into memory") from None
    except Exception as error:
        # Damage in a zip, a pickle or a message comes out as any kind of error.
        raise ModelFileError(path, f"is damaged or not {kind}") from error
    if not tensors:
        raise ModelFileError(path, "holds no tensors")
    return tensors


def _require_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ModelFileError(path, "no such file") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if stat.S_ISDIR(mode):
        raise ModelFileError(path, "is a folder and not a weight file")
    if not stat.S_ISREG(mode):
        raise ModelFileError(path, "is not a regular file")


def _unreadable(path: Path, error: OSError) -> ModelFileError:
    return ModelFileError(path, f"cannot be read: {(error.strerror or str(error)).lower()}")
