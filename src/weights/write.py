"""Weight files of ours, written as a whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from src.files import replacing

_TYPE_NAMES = {np.dtype(np.float32): "Float32", np.dtype(np.int32): "Int32", np.dtype(np.int64): "Int64"}


def write_ckpt(target: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a checkpoint that ``mindspore.load_checkpoint`` reads.

    MindSpore's own writer removes the old file first, and leaves its temporary file behind when the disk is full.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    from mindspore.train.checkpoint_pb2 import Checkpoint

    with replacing(target) as temporary, temporary.open("wb") as stream:
        for name, array in tensors.items():
            message = Checkpoint()
            value = message.value.add()
            value.tag = name
            # MindSpore writes a scalar's shape as one zero.
            value.tensor.dims.extend(array.shape or (0,))
            value.tensor.tensor_type = _TYPE_NAMES[array.dtype]
            value.tensor.tensor_content = np.ascontiguousarray(array).tobytes()
            # Messages that follow each other in a stream are read as one.
            stream.write(message.SerializeToString())


def write_safetensors(target: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a file that timm, Hugging Face and `read_tensors` read.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    from safetensors.numpy import save_file

    with replacing(target) as temporary:
        # Hugging Face refuses a file that does not say whose layout it has.
        save_file({name: np.ascontiguousarray(a) for name, a in tensors.items()}, temporary, {"format": "pt"})
