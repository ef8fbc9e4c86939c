"""The built-in data set: scikit-learn's 1,797 real handwritten digits as 32x32 PNG class folders.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test part), 8x8 pixels of
17 grey levels each.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from pathlib import Path

import numpy as np
from PIL import Image

from src.errors import DataError

IMAGE_SIDE = 32
NUM_TRAIN, NUM_VAL = 1437, 360
# Fixed for ever: results on the 360 held-out images are compared across versions.
_SPLIT_SEED = 0


def write_digits(root: Path) -> None:
    """Write ``root/{train,val}/<digit>/<index>.png`` unless it is there; all of it or nothing.

    Raises:
        DataError: the folder exists and holds something else.
    """
    if root.exists():
        counts = [sum(1 for _ in (root / split).glob("[0-9]/*.png")) for split in ("train", "val")]
        if counts != [NUM_TRAIN, NUM_VAL]:
            raise DataError(
                "data_url", f"is not the digits set of {NUM_TRAIN} and {NUM_VAL} images: choose a new folder", root
            )
        return
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    index_N = np.arange(len(digits.target))
    train_index, _ = train_test_split(index_N, test_size=NUM_VAL, random_state=_SPLIT_SEED, stratify=digits.target)
    in_train = np.isin(index_N, train_index)
    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = root.with_name(f".partial-{uuid.uuid4().hex[:12]}")
    try:
        for index, (grey_8x8, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            folder = temporary / ("train" if in_train[index] else "val") / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            _enlarged(grey_8x8).save(folder / f"{index:04d}.png")
        os.rename(temporary, root)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        # Another rank was faster: what it wrote is looked at as if it had been there.
        write_digits(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _enlarged(grey_8x8: np.ndarray) -> Image.Image:
    grey = Image.fromarray((grey_8x8 * (255.0 / 16.0)).round().astype(np.uint8))
    return grey.resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BICUBIC)
