"""How many classes a network has, where the user leaves it to the weights or the images."""

from __future__ import annotations

from pathlib import Path

from src.data.sources import class_folders
from src.schema import Config
from src.weights.manifest import read_manifest


def with_class_count(config: Config, *, by_weights: bool = True, by_images: bool = False) -> Config:
    """The configuration with ``num_classes`` as the weights' manifest or the class folders of the data set have it.

    A count that the user gives stays; where nothing says one, it stays empty, which means the arch's own.

    Args:
        config: what the user wants.
        by_weights: the weights decide, where they say it; not in training, which gives them a new head.
        by_images: else the folders; not for a command that may have no data set.

    Raises:
        DataError: a folder that cannot be read.
    """
    model, data = config.model, config.data
    if model.num_classes is not None:
        return config
    manifest = read_manifest(Path(model.pretrained)) if by_weights and model.pretrained is not None else None
    names = manifest.class_names if manifest else ()
    if not names and by_images and data.set == "folder":
        names = class_folders(Path(data.data_url))
    return config.model_copy(update={"model": model.model_copy(update={"num_classes": len(names) or None})})
