"""Small image folders for the tests of the data pipeline."""

from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, width: int = 12, height: int = 10) -> Image.Image:
    """An RGB image of smooth random colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def write_folders(root: Path, counts: dict[str, int], suffix: str = ".png") -> Path:
    """``root/<class>/<index><suffix>``, all pictures different."""
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            picture(1000 * label + index).save(root / name / f"{index:03d}{suffix}")
    return root
