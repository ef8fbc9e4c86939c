"""Exports of the tiny networks, through the command's own way."""

from __future__ import annotations

from pathlib import Path

from src.config import load_config
from src.deploy.exporter import export_model
from src.weights.write import write_ckpt
from tests.networks import TINY, tiny, values

IMAGE_SIZE, NUM_CLASSES = 32, 3


def arguments(family: str, folder: Path, **flags: object) -> list[str]:
    """The command line for the tiny network of a family, with another image size and class count."""
    arch, sizes = TINY[family]
    sizes = {**sizes, "arch": arch, "image_size": IMAGE_SIZE, "num_classes": NUM_CLASSES, "output_dir": folder, **flags}
    if isinstance(sizes.get("num_heads"), tuple):
        sizes["stage_heads"] = sizes.pop("num_heads")
    words = {key: ",".join(map(str, value)) if isinstance(value, tuple) else value for key, value in sizes.items()}
    return [word for key, value in words.items() for word in (f"--{key}", str(value))]


def export(family: str, folder: Path, **flags: object) -> Path:
    return export_model(load_config("export", arguments(family, folder, **flags)))


def vit_weights(folder: Path) -> Path:
    path = folder / "vit.ckpt"
    write_ckpt(path, values(tiny("vit", image_size=IMAGE_SIZE, num_classes=NUM_CLASSES)))
    return path
