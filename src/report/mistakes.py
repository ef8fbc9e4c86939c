"""The mistakes that a network was most certain of, as small pictures.

Shape letters: N images.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from src.data.transforms import EvalTransform
from src.trainers.evaluator import Evaluation

_MOST = 24
# Pixels of a picture's side; smaller ones stay as they are.
_SIDE = 128


@dataclass(frozen=True)
class Mistake:
    """One image that was taken for another class.

    Attributes:
        path: name of the image in its data set.
        label: its class.
        answer: what it was taken for.
        confidence: probability of that, in [0, 1].
        image: what the network saw of it, in colours.
        overlay: the same with a map over it, to stand beside it.
    """

    path: str
    label: str
    answer: str
    confidence: float
    image: Image.Image
    overlay: Image.Image | None = None


def worst_mistakes(evaluation: Evaluation, most: int = _MOST) -> list[Mistake]:
    """Wrong answers, the most certain ones first."""
    prediction_N = evaluation.result.prediction_N[~evaluation.is_right]
    config, images = evaluation.config, evaluation.eval_set.images
    transform = EvalTransform.from_config(config.data, config.model.image_size)
    found = []
    for prediction in prediction_N[np.argsort(-prediction_N["confidence"], kind="stable")[:most]]:
        index = int(prediction["index"])
        found.append(
            Mistake(
                images.paths[index],
                images.class_names[prediction["label"]],
                images.class_names[prediction["first"]],
                float(prediction["confidence"]),
                transform.crop(images.read(index)),
            )
        )
    return found


def data_uri(image: Image.Image) -> str:
    """A picture inside of a page: as it is where it is small, else smaller and as JPEG."""
    stream = io.BytesIO()
    if max(image.size) <= _SIDE // 2:
        image.save(stream, "PNG", optimize=True)
        kind = "png"
    else:
        small = image.copy()
        small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        small.save(stream, "JPEG", quality=85)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
