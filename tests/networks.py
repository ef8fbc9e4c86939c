"""The networks whose goldens are stored, and small ones that compile in a second."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import Tensor, nn, ops

from src.models import build_model
from src.models.kernels import kernel_form
from src.trainers.losses import SoftTargetCrossEntropy
from src.weights.authors_names import official_names
from src.weights.load import load_weights
from tests import recipe

GOLDENS = Path(__file__).parent / "goldens"
NO_DROPS = {"drop_rate": 0.0, "attn_drop_rate": 0.0, "drop_path_rate": 0.0}


@dataclass(frozen=True)
class Reference:
    """A network of outside code, by the name of its golden."""

    name: str
    arch: str
    image_size: int
    sizes: dict[str, Any] = field(default_factory=dict)

    def build(self, form: str = "composed", **changed: Any) -> nn.Cell:
        """Our network of the same sizes, in evaluation mode."""
        with kernel_form(form):
            net = build_model(self.arch, **{**self.sizes, **changed})
        return net.set_train(False)

    def golden(self) -> dict[str, Any]:
        """What the outside code computed."""
        return json.loads((GOLDENS / f"{self.name}.json").read_text(encoding="utf-8"))


CCT = Reference("cct_2_3x2_32", "cct_2_3x2_32", 32)
VIT = Reference("vit_tiny_patch16_224_d2", "vit_tiny_patch16_224", 224, {"depth": 2, "num_classes": 10})
DEIT = Reference(
    "deit_tiny_distilled_patch16_224_d2", "deit_tiny_distilled_patch16_224", 224, {"depth": 2, "num_classes": 10}
)
DEIT3 = Reference(
    "deit3_small_patch16_224_w96_d2",
    "deit3_small_patch16_224",
    224,
    {"depth": 2, "embed_dim": 96, "num_heads": 3, "num_classes": 10},
)
PCPVT = Reference(
    "pcpvt_small_narrow",
    "pcpvt_small_v0",
    224,
    {"depths": (1, 2, 1, 2), "embed_dims": (16, 32, 80, 128), "num_classes": 10},
)
SVT = Reference(
    "svt_small_narrow",
    "alt_gvt_small",
    224,
    {"depths": (2, 1, 2, 2), "embed_dims": (16, 32, 64, 128), "num_classes": 10},
)
TNT = Reference(
    "tnt_s_w96_d2", "tnt_s_patch16_224", 224, {"depth": 2, "embed_dim": 96, "num_heads": 3, "num_classes": 10}
)
REFERENCES = {reference.name: reference for reference in (CCT, VIT, DEIT, DEIT3, PCPVT, SVT, TNT)}

_TINY_VIT = dict(image_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=10)
# 16 pixels make maps of 4 and 2 tokens; windows of 3 do not fill them.
_TINY_TWINS = dict(
    image_size=16,
    embed_dims=(16, 16),
    depths=(1, 1),
    num_heads=(2, 2),
    mlp_ratios=(2.0, 2.0),
    sr_ratios=(2, 1),
    num_classes=10,
)
# Arch and sizes of the smallest network of a family that has all of its parts.
TINY = {
    "vit": ("vit_tiny_patch16_224", _TINY_VIT),
    "deit": ("deit_tiny_distilled_patch16_224", _TINY_VIT),
    "deit3": ("deit3_small_patch16_224", _TINY_VIT),
    "cct": ("cct_2_3x2_32", dict(image_size=16, embed_dim=16, depth=2, num_heads=2)),
    "pcpvt": ("pcpvt_small_v0", _TINY_TWINS),
    "svt": (
        "alt_gvt_small",
        {
            **_TINY_TWINS,
            "depths": (2,),
            "embed_dims": (16,),
            "num_heads": (2,),
            "mlp_ratios": (2.0,),
            "sr_ratios": (2,),
            "window_sizes": (3,),
        },
    ),
    "tnt": ("tnt_s_patch16_224", dict(**_TINY_VIT, inner_dim=8, inner_num_heads=2)),
}
FAMILIES = tuple(TINY)
TINY_IMAGE_SIZE = 16


def tiny(family: str, **changed: Any) -> nn.Cell:
    """The smallest network of a family that has all of its parts."""
    arch, sizes = TINY[family]
    return build_model(arch, **{**sizes, **changed}).set_train(False)


def official_shapes(net: nn.Cell) -> dict[str, tuple[int, ...]]:
    """Shapes by the authors' names."""
    parameters = dict(net.parameters_and_names())
    return {theirs: parameters[ours].shape for theirs, ours in official_names(net).items()}


def fill(net: nn.Cell, variant: str) -> nn.Cell:
    """Give a network the weights of the recipe."""
    load_weights(net, recipe.weights(official_shapes(net), variant))
    return net


def values(net: nn.Cell) -> dict[str, np.ndarray]:
    """A copy of all parameters by our names."""
    return {name: parameter.asnumpy().copy() for name, parameter in net.parameters_and_names()}


class _LossAndGradients(nn.Cell):
    def __init__(self, net: nn.Cell):
        super().__init__(auto_prefix=False)
        self.net, self.loss = net, SoftTargetCrossEntropy()
        self.value_and_grad = ops.value_and_grad(self.forward, None, net.trainable_params())

    def forward(self, image_BCYX: Tensor, target_BK: Tensor) -> Tensor:
        return self.loss(self.net(image_BCYX), target_BK)

    def construct(self, image_BCYX: Tensor, target_BK: Tensor) -> tuple:
        return self.value_and_grad(image_BCYX, target_BK)


def loss_and_gradients(net: nn.Cell, image_size: int) -> tuple[float, dict[str, np.ndarray]]:
    """Loss of the recipe's batch, and gradients by the authors' names; nothing is dropped."""
    images, targets = Tensor(recipe.images(image_size)), Tensor(recipe.soft_targets(10))
    loss, gradients = _LossAndGradients(net)(images, targets)
    theirs = {ours: name for name, ours in official_names(net).items()}
    names = [name for name, parameter in net.parameters_and_names() if parameter.requires_grad]
    pairs = zip(names, gradients, strict=True)
    return float(loss), {theirs[name]: gradient.asnumpy().astype(np.float64) for name, gradient in pairs}
