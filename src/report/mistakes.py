"""The mistakes that a network was most certain of, as small pictures, and where it looked.

Shape letters: N images, C image channels, Y X rows and columns.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from mindspore import nn
from PIL import Image

from src.data.transforms import EvalTransform, normalize
from src.models import build_configured_model
from src.report.attention import attention_maps
from src.report.overlay import overlay
from src.trainers.evaluator import Evaluation
from src.weights.load import load_given_weights

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


def worst_mistakes(evaluation: Evaluation, most: int = _MOST, net: nn.Cell | None = None) -> list[Mistake]:
    """Wrong answers, the most certain ones first.

    Args:
        evaluation: its images and answers.
        most: how many at most.
        net: the network that answered, to draw where it looked; None for none of that.
    """
    prediction_N = evaluation.result.prediction_N[~evaluation.is_right]
    config, images = evaluation.config, evaluation.eval_set.images
    transform = EvalTransform.from_config(config.data, config.model.image_size)
    found = []
    for prediction in prediction_N[np.argsort(-prediction_N["confidence"], kind="stable")[:most]]:
        index = int(prediction["index"])
        image = transform.crop(images.read(index))
        found.append(
            Mistake(
                images.paths[index],
                images.class_names[prediction["label"]],
                images.class_names[prediction["first"]],
                float(prediction["confidence"]),
                image,
                None if net is None else _overlay(net, transform, image),
            )
        )
    return found


def evaluated_network(evaluation: Evaluation) -> nn.Cell:
    """The network whose answers these are.

    Raises:
        ModelFileError: its weights are gone.
    """
    net = build_configured_model(evaluation.config.model)
    given = {"pretrained": str(evaluation.weights)}
    load_given_weights(net, evaluation.config.model.model_copy(update=given))
    return net


def _overlay(net: nn.Cell, transform: EvalTransform, image: Image.Image) -> Image.Image:
    """The family's map that is nearest to the answer, over the image."""
    image_CYX = normalize(image, transform.mean, transform.std)
    map_YX = next(iter(attention_maps(net, image_CYX[None]).values()))[0]
    return overlay(image_CYX, transform, map_YX)


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
