"""How many classes a network has, where the user leaves it to the weights or the images."""

from __future__ import annotations

from pathlib import Path

from src.data.sources import class_folders
from src.schema import Config
from src.weights.manifest import read_manifest


def with_class_count(config: Config, *, new_head: bool = False) -> Config:
    """The configuration with ``num_classes`` as the weights' manifest or the class folders of the data set have it.

    A count that the user gives stays; where nothing says one, it stays empty, which means the arch's own.

    Args:
        config: what the user wants.
        new_head: whether the images decide, as in training, and not the weights.

    Raises:
        DataError: a folder that cannot be read.
    """
    model, data = config.model, config.data
    if model.num_classes is not None:
        return config
    manifest = None if new_head or model.pretrained is None else read_manifest(Path(model.pretrained))
    names = manifest.class_names if manifest else class_folders(Path(data.data_url)) if data.set == "folder" else ()
    return config.model_copy(update={"model": model.model_copy(update={"num_classes": len(names) or None})})
