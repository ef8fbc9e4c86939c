"""A data set and a model that train in seconds, and the commands' arguments for them."""

import gc
import json
from pathlib import Path

import numpy as np
from PIL import Image

from src.config import load_config
from src.models import build_configured_model, resolved
from src.schema import Config
from src.weights.write import write_ckpt
from tests.networks import values

CLASS_NAMES = ("circle", "square", "tri angle")
STEPS_PER_EPOCH = 3
NUM_VAL = 7
SIZES = {
    "arch": "vit_tiny_patch16_224",
    "image_size": 16,
    "patch_size": 8,
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
    "num_classes": 3,
    "drop_rate": 0.1,
    "attn_drop_rate": 0.1,
    "drop_path_rate": 0.0,
}


def write_images(root: Path) -> Path:
    """Class folders of random images: 12 for training, 7 for evaluation."""
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", NUM_VAL)):
        for index in range(count):
            folder = root / split / CLASS_NAMES[index % 3]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (18, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


def arguments(data: Path, output: Path, **flags: object) -> list[str]:
    """The command line of a run on `write_images`'s folder."""
    values = {
        **SIZES,
        "set": "folder",
        "data_url": data,
        "output_dir": output,
        "batch_size": 4,
        "epochs": 4,
        "num_parallel_workers": 0,
        "base_lr": 1e-2,
        "clip_global_norm_value": 1.0,
        **flags,
    }
    return [word for key, value in values.items() for word in (f"--{key}", str(value))]


def config(data: Path, output: Path, **flags: object) -> Config:
    """The configuration of such a run."""
    # A run before it in the same test, see `forgotten_networks` of conftest.py.
    gc.collect()
    return load_config("train", arguments(data, output, **flags))


def write_weights(path: Path, **flags: object) -> Path:
    """Weights, as drawn, of the network that these flags make of it."""
    net = build_configured_model(resolved(config(Path(), Path(), **flags)).model)
    write_ckpt(path, values(net))
    return path


def epoch_records(folder: Path) -> list[dict]:
    """The records of a run directory's epochs."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == "epoch"]
