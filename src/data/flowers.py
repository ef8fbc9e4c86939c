"""Oxford Flowers-102 as VGG publishes it.

Source: M.-E. Nilsback and A. Zisserman, Automated Flower Classification over a Large Number of Classes, ICVGIP 2008.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from src.data.image_source import ImageList
from src.errors import DataError

IMAGE_FOLDER, LABEL_FILE, SPLIT_FILE = "jpg", "imagelabels.mat", "setid.mat"
# In torchvision's root the folder has this name.
_FOLDER = "flowers-102"
_SPLIT_KEYS = {"train": ("trnid", "valid"), "val": ("tstid",)}
# The files number the classes; their names are those of the set's page, in the order of the numbers.
_CLASS_NAMES = """
pink primrose, hard-leaved pocket orchid, canterbury bells, sweet pea, english marigold, tiger lily, moon orchid,
bird of paradise, monkshood, globe thistle, snapdragon, colt's foot, king protea, spear thistle, yellow iris,
globe-flower, purple coneflower, peruvian lily, balloon flower, giant white arum lily, fire lily, pincushion flower,
fritillary, red ginger, grape hyacinth, corn poppy, prince of wales feathers, stemless gentian, artichoke,
sweet william, carnation, garden phlox, love in the mist, mexican aster, alpine sea holly, ruby-lipped cattleya,
cape flower, great masterwort, siam tulip, lenten rose, barbeton daisy, daffodil, sword lily, poinsettia,
bolero deep blue, wallflower, marigold, buttercup, oxeye daisy, common dandelion, petunia, wild pansy, primula,
sunflower, pelargonium, bishop of llandaff, gaura, geranium, orange dahlia, pink-yellow dahlia, cautleya spicata,
japanese anemone, black-eyed susan, silverbush, californian poppy, osteospermum, spring crocus, bearded iris,
windflower, tree poppy, gazania, azalea, water lily, rose, thorn apple, morning glory, passion flower, lotus, toad lily,
anthurium, frangipani, clematis, hibiscus, columbine, desert-rose, tree mallow, magnolia, cyclamen, watercress,
canna lily, hippeastrum, bee balm, ball moss, foxglove, bougainvillea, camellia, mallow, mexican petunia, bromelia,
blanket flower, trumpet creeper, blackberry lily
"""
CLASS_NAMES = tuple(" ".join(_CLASS_NAMES.split()).split(", "))


def open_flowers(root: Path, split: str) -> ImageList:
    """Images of one split; a path is ``jpg/image_00001.jpg``.

    Split train is the authors' ``trnid`` and ``valid`` together (2,040 images), as CCT and most published results have
    it; split val is ``tstid`` (6,149 images).

    Args:
        root: folder of ``jpg``, ``imagelabels.mat`` and ``setid.mat``, or one with a folder ``flowers-102`` of them.
        split: train or val.

    Raises:
        DataError: files that are missing or damaged, or that do not fit each other.
    """
    folder = root / _FOLDER if (root / _FOLDER).is_dir() else root
    missing = [name for name in (IMAGE_FOLDER, LABEL_FILE, SPLIT_FILE) if not (folder / name).exists()]
    if missing:
        raise DataError(folder, "files of Flowers102 are missing", ", ".join(missing))
    label_N = _numbers(folder / LABEL_FILE, ("labels",))["labels"]
    wrong_N = (label_N < 1) | (label_N > len(CLASS_NAMES))
    if wrong_N.any():
        row = int(wrong_N.argmax())
        rule = f"labels must be 1 to {len(CLASS_NAMES)}"
        raise DataError(folder / LABEL_FILE, rule, f"{label_N[row]} of image {row + 1}")
    ids = _image_numbers(folder / SPLIT_FILE, split, len(label_N))
    names = [f"{IMAGE_FOLDER}/image_{number:05d}.jpg" for number in ids]
    present = set(os.listdir(folder / IMAGE_FOLDER))
    lacking = [name for name in names if name.removeprefix(f"{IMAGE_FOLDER}/") not in present]
    if lacking:
        raise DataError(folder, f"lacks {len(lacking)} of the {len(names)} images of {split}", ", ".join(lacking[:3]))
    return ImageList(folder, names, (label_N[np.array(ids) - 1] - 1).tolist(), CLASS_NAMES)


def _image_numbers(path: Path, split: str, num_images: int) -> list[int]:
    """Numbers of a split's images in rising order, from 1."""
    parts = _numbers(path, [key for keys in _SPLIT_KEYS.values() for key in keys])
    everything = np.concatenate(list(parts.values()))
    if everything.min() < 1 or everything.max() > num_images:
        received = f"{everything.min()} to {everything.max()}"
        raise DataError(path, f"image numbers must be 1 to {num_images}, as {LABEL_FILE} has it", received)
    if len(np.unique(everything)) != len(everything):
        raise DataError(path, f"must name an image once in {', '.join(parts)}")
    return sorted(np.concatenate([parts[key] for key in _SPLIT_KEYS[split]]).tolist())


def _numbers(path: Path, keys: list[str] | tuple[str, ...]) -> dict[str, np.ndarray]:
    """Rows of whole numbers in a MATLAB file, as int64."""
    # Takes long to import.
    from scipy.io import loadmat

    try:
        found = loadmat(path, variable_names=keys)
    except Exception as error:  # scipy raises what its parser stumbles over
        raise DataError(path, f"is damaged or no MATLAB file: {error}") from None
    missing = [key for key in keys if key not in found]
    if missing:
        raise DataError(path, "must hold variables", ", ".join(missing))
    numbers = {}
    for key in keys:
        row = np.asarray(found[key])
        if row.dtype.kind not in "iuf" or row.size == 0 or row.size != max(row.shape) or (row != np.rint(row)).any():
            raise DataError(path, f"{key} must be a row of whole numbers", f"{row.dtype} {row.shape}")
        numbers[key] = row.ravel().astype(np.int64)
    return numbers
