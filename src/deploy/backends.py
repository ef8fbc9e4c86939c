"""What computes a network's answers: the checkpoint, MINDIR in MindSpore, ONNX Runtime. Fed batch by batch, and timed.

Shape letters: B batch, N images, K classes.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.deploy.model_info import ModelInfo
from src.errors import ModelFileError

Compute = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Answers:
    """What a backend gave for all images.

    Attributes:
        logits_NK: its outputs.
        ms_per_image: milliseconds, the median over batches after a warm-up; None where it did not run here.
        quantization: how the weights that it used are stored; none: as float32.
    """

    logits_NK: np.ndarray
    ms_per_image: float | None = None
    quantization: str = "none"


class Backend(Protocol):
    """Takes batches, then gives its answers."""

    def add(self, image_BCYX: np.ndarray, count: int) -> None:
        """Take a batch, of whose rows the first ``count`` are images and the others filling."""

    def answers(self) -> Answers:
        """For all images, in the order in which they came."""


class CallBackend:
    """A backend that is called in this process.

    Args:
        compute: images (B, 3, Y, X) to logits (B, K).
        quantization: how its weights are stored; none: as float32.
    """

    def __init__(self, compute: Compute, quantization: str = "none"):
        self._compute, self._quantization = compute, quantization
        self._logits: list[np.ndarray] = []
        self._milliseconds: list[float] = []

    def add(self, image_BCYX: np.ndarray, count: int) -> None:
        """Compute a batch; filling costs time as images do."""
        if not self._logits:
            # The first call compiles and allocates.
            self._compute(image_BCYX)
        started = time.perf_counter()
        logits_BK = self._compute(image_BCYX)
        self._milliseconds.append(1000 * (time.perf_counter() - started) / len(image_BCYX))
        self._logits.append(logits_BK[:count])

    def answers(self) -> Answers:
        """For all images so far."""
        return Answers(np.concatenate(self._logits), statistics.median(self._milliseconds), self._quantization)


def mindir_backend(path: Path, info: ModelInfo) -> Backend:
    """See `open_mindir`."""
    return CallBackend(open_mindir(path, info), info.quantization)


def onnx_backend(path: Path, info: ModelInfo) -> Backend:
    """See `open_onnx`."""
    return CallBackend(open_onnx(path, info), info.quantization)


def open_mindir(path: Path, info: ModelInfo) -> Compute:
    """A MINDIR of IR version 3, run by MindSpore at the batch size that it was exported for.

    Raises:
        ModelFileError: another format, or an IR version that MindSpore does not run.
    """
    if info.file_format != "MINDIR" or info.ir_version != 3:
        received = f"{info.file_format}, IR version {info.ir_version}"
        raise ModelFileError(path, "MindSpore runs MINDIR files of IR version 3", received)
    with _failures_of(path, "MindSpore"):
        net = nn.GraphCell(ms.load(str(path)))
    return _of_file(path, info, "MindSpore", lambda image_BCYX: net(Tensor(image_BCYX)).asnumpy())


def open_onnx(path: Path, info: ModelInfo) -> Compute:
    """An ONNX file, run by ONNX Runtime at the batch size that it was exported for.

    Raises:
        ModelFileError: another format, or a file that ONNX Runtime does not take.
    """
    import onnxruntime

    if info.file_format != "ONNX":
        raise ModelFileError(path, "ONNX Runtime runs ONNX files", info.file_format)
    with _failures_of(path, "ONNX Runtime"):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
    return _of_file(path, info, "ONNX Runtime", lambda image_BCYX: session.run(None, {name: image_BCYX})[0])


def in_chunks(compute: Compute, size: int | None) -> Compute:
    """A computation of a fixed batch size for any number of images; the last call is filled up with zeros.

    One whose size is None takes any number by itself.
    """
    if size is None:
        return compute

    def run(image_BCYX: np.ndarray) -> np.ndarray:
        B = len(image_BCYX)
        filling = np.zeros((-B % size, *image_BCYX.shape[1:]), np.float32)
        filled = np.concatenate([image_BCYX, filling])
        return np.concatenate([compute(filled[first : first + size]) for first in range(0, len(filled), size)])[:B]

    return run


def _of_file(path: Path, info: ModelInfo, library: str, compute: Compute) -> Compute:
    """Any number of images through an exported file, whose failures are errors of that file."""

    def run(image_BCYX: np.ndarray) -> np.ndarray:
        with _failures_of(path, library):
            return compute(image_BCYX)

    return in_chunks(run, info.input.shape[0])


@contextlib.contextmanager
def _failures_of(path: Path, library: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the libraries' errors have no class in common
        raise ModelFileError(path, f"{library} cannot run it: {str(error).strip().partition(chr(10))[0]}") from None
