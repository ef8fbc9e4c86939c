"""A model file, images for it, and MindSpore's logits: what the runner's tests run it on, and how they run it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.deploy.mindir_v1 import rewrite_file

IMAGES = ("a/x", "a/y", "b/x", "class with blanks/ä ü", "top.1")
MODELS: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": dict(depth=1, image_size=32, patch_size=16),
    "cct_2_3x2_32": dict(depth=1),
}


@dataclass
class Case:
    """A model file, images for it, and MindSpore's logits for them."""

    model: Path
    folder: Path
    logits_NK: np.ndarray


def export(net: nn.Cell, shape: tuple[int, ...], stem: Path) -> Path:
    """Export for MindSpore Lite; the file of version 3 stays as ``stem.v3.mindir``."""
    newer, older = Path(f"{stem}.v3.mindir"), Path(f"{stem}.mindir")
    # MindSpore refuses to export to a path with blanks.
    with tempfile.TemporaryDirectory() as plain:
        exported = Path(plain) / "model.mindir"
        ms.export(net, Tensor(np.zeros(shape, np.float32)), file_name=str(exported), file_format="MINDIR")
        shutil.copy(exported, newer)
    rewrite_file(newer, older)
    return older


def run(runner: Path, tmp_path: Path, model: Path, folder: Path, *flags: str, **options) -> subprocess.CompletedProcess:
    command = [runner, "--mindir_path", model, "--input0_path", folder, "--device_target", "CPU", *flags]
    return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, **options)


def check_error(done: subprocess.CompletedProcess, code: int, *words: str) -> None:
    assert done.returncode == code, (done.returncode, done.stderr)
    assert re.fullmatch(r"error: .+: .+\n", done.stderr), done.stderr
    for word in words:
        assert word in done.stderr


def read(folder: Path, names: tuple[str, ...] = IMAGES) -> np.ndarray:
    return np.stack([np.fromfile(folder / f"{name}_0.bin", np.float32) for name in names])
