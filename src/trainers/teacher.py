"""A trained network whose answers another one learns from.

Shape letters: B batch, C channels, Y X rows and columns, K classes.
"""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn, ops

from src.config import load_config
from src.errors import ConfigError
from src.models import build_configured_model, resolved
from src.schema import Config, DistillConfig
from src.weights.load import load_given_weights
from src.weights.numerics import with_numerics


class Teacher(nn.Cell):
    """``image_BCYX -> logits_BK`` of a network in evaluation, without gradients; of two heads, their mean.

    Args:
        net: the network; its parameters are renamed.
        factor_3: the images come normalised for the student: what they are multiplied by for the teacher.
        offset_3: and what is added then.
    """

    def __init__(self, net: nn.Cell, factor_3: np.ndarray, offset_3: np.ndarray):
        super().__init__(auto_prefix=False)
        # In one graph with the student, which may have the same names.
        net.update_parameters_name("teacher.")
        for parameter in net.get_parameters():
            parameter.requires_grad = False
        self.net = net
        self.is_shifted = bool(np.any(factor_3 != 1) or np.any(offset_3 != 0))
        self.factor_311, self.offset_311 = (Tensor(v.astype(np.float32)[:, None, None]) for v in (factor_3, offset_3))
        self.set_train(False)

    def construct(self, image_BCYX: Tensor) -> Tensor:
        if self.is_shifted:
            image_BCYX = image_BCYX * self.factor_311 + self.offset_311
        return ops.stop_gradient(self.net(image_BCYX))


def load_teacher(config: Config) -> Teacher:
    """The teacher that a student's resolved config names: another config, and its weights.

    Raises:
        ConfigError: no teacher is named, or one of other classes or another image size.
        ModelFileError: weights that are missing, damaged or of another model.
    """
    distill = config.distill
    theirs = _teacher_config(distill)
    if theirs.model.pretrained is None:
        raise ConfigError("teacher_pretrained", "must name the teacher's weights, since teacher_config does not")
    for key, mine, its in (
        ("num_classes", config.model.num_classes, theirs.model.num_classes),
        ("image_size", config.model.image_size, theirs.model.image_size),
    ):
        if mine != its:
            raise ConfigError("teacher_config", f"the teacher must have the student's {key}", its, [mine])
    model = with_numerics(theirs.model, theirs.model.pretrained)
    net = build_configured_model(model)
    print(f"=> loading teacher '{model.arch}' from '{model.pretrained}'")
    print(load_given_weights(net, model))
    (mean, std), (its_mean, its_std) = (
        (np.array(data.mean), np.array(data.std)) for data in (config.data, theirs.data)
    )
    return Teacher(net, std / its_std, (mean - its_mean) / its_std)


def _teacher_config(distill: DistillConfig) -> Config:
    if distill.teacher_config is None:
        raise ConfigError("teacher_config", "must name the YAML of the teacher where distillation is on")
    flags = ["--config", distill.teacher_config]
    if distill.teacher_pretrained is not None:
        flags += ["--pretrained", distill.teacher_pretrained]
    return resolved(load_config("eval", flags))
