"""Weights and inputs out of formulas, so that goldens of whole networks need no stored weights.

A tensor depends on its name in the authors' spelling, on its shape and on nothing else. In the variant ``probe`` the
residual stream has a deviation of 0.01, so that a wrong epsilon of a norm shows; ``unit`` has ordinary scales, for
gradients and training. The outside references were computed with the same formulas.
"""

import re
import zlib
from collections.abc import Mapping

import numpy as np

SEED = 20240607

_TOKENS = r"(pos_embed|positional_emb|patch_pos|pixel_pos|cls_token|dist_token)$"
_ATTENTION_OUT = r"\.(attn|attn_in|attn_out|self_attn)\.proj\."
_MLP = r"\.(mlp|mlp_in)\."
_HEAD = r"(^|\.)(head|head_dist|fc)\.weight$"
_LAYER_SCALE = r"\.gamma$"
# Pattern of the name, kind, gain; the first that matches counts.
_PROBE = [
    (_TOKENS, "raw", 0.01),
    (_LAYER_SCALE, "scale", 0.5),
    (r"^(patch_embed|pixel_embed|patch_embeds\.0)\.proj\.weight$", "fan", 0.01),
    (r"^patch_embeds\.\d\.proj\.weight$", "fan", 1.0),
    (r"^(patch_embed|pixel_embed|patch_embeds\.\d)\.proj\.bias$", "raw", 0.003),
    (r"^patch_embeds\.\d\.norm\.weight$", "scale", 0.01),
    (r"^patch_embeds\.\d\.norm\.bias$", "raw", 0.002),
    (r"^classifier\.blocks\.\d+\.norm1\.weight$", "scale", 0.02),
    (r"^classifier\.blocks\.\d+\.norm1\.bias$", "raw", 0.004),
    (r"^classifier\.blocks\.\d+\.linear1\.weight$", "fan", 100.0),
    (r"^classifier\.blocks\.\d+\.linear2\.weight$", "fan", 0.02),
    (r"^classifier\.blocks\.\d+\.linear2\.bias$", "raw", 0.003),
    (r"(^|\.)norm2_proj\.weight$", "scale", 0.01),
    (r"(^|\.)norm2_proj\.bias$", "raw", 0.002),
    (r"^(blocks\.\d+\.)?proj\.weight$", "fan", 0.02),
    (r"^proj\.bias$", "raw", 0.003),
    (r"\.attn\.sr\.weight$", "fan", 0.01),
    (r"\.attn\.sr\.bias$", "raw", 0.002),
    (r"^pos_block\.\d\.proj\.0\.weight$", "fan", 0.7),
    (r"^pos_block\.\d\.proj\.0\.bias$", "raw", 0.003),
    (_ATTENTION_OUT + "weight$", "fan", 0.03),
    (_ATTENTION_OUT + "bias$", "raw", 0.003),
    (_MLP + r"fc2\.weight$", "fan", 0.02),
    (_MLP + r"fc2\.bias$", "raw", 0.003),
    (_MLP + r"fc1\.weight$", "fan", 2.0),
    (_HEAD, "fan", 1.0),
    (r"attention_pool\.weight$", "fan", 1.5),
]
_UNIT = [
    (_TOKENS, "raw", 0.2),
    (_LAYER_SCALE, "scale", 0.5),
    (r"^tokenizer\.conv_layers\.\d\.0\.weight$", "fan", 1.4),
    (r"\.attn\.sr\.weight$", "fan", 1.0),
    (r"^pos_block\.\d\.proj\.0\.weight$", "fan", 0.7),
    (r"(patch_embed|pixel_embed|patch_embeds\.\d)\.proj\.weight$", "fan", 1.0),
    (_ATTENTION_OUT + "weight$", "fan", 0.5),
    (_MLP + r"fc2\.weight$|linear2\.weight$", "fan", 0.5),
    (r"(^|\.)proj\.weight$", "fan", 1.0),
    (_HEAD, "fan", 1.0),
    (r"\.(attn|attn_in|attn_out|self_attn)\.(qkv|q|kv|qk|v)\.weight$", "fan", 1.2),
    (_MLP + r"fc1\.weight$|linear1\.weight$", "fan", 1.2),
]
_RULES = {"probe": _PROBE, "unit": _UNIT}


def _rule(name: str, shape: tuple[int, ...], variant: str, num_conv_layers: int) -> tuple[str, float]:
    convolution = re.match(r"tokenizer\.conv_layers\.(\d)\.", name)
    if convolution and variant == "probe":
        # The last convolution makes the small stream.
        return "fan", 0.01 if int(convolution[1]) == num_conv_layers - 1 else 1.4
    for pattern, kind, gain in _RULES[variant]:
        if re.search(pattern, name):
            return kind, gain
    if name.endswith(".bias"):
        return "raw", 0.1
    return ("scale", 1.0) if len(shape) == 1 else ("fan", 1.5)


def value(name: str, shape: tuple[int, ...], variant: str, num_conv_layers: int = 2) -> np.ndarray:
    """One tensor by the authors' name of the parameter."""
    random = np.random.RandomState(zlib.crc32(f"{SEED}:{name}".encode()))
    normal = random.standard_normal(shape)
    kind, gain = _rule(name, shape, variant, num_conv_layers)
    if kind == "raw":
        tensor = gain * normal
    elif kind == "scale":
        tensor = gain * (1.0 + 0.2 * normal)
    else:
        tensor = gain / np.sqrt(float(np.prod(shape[1:]))) * normal
    return tensor.astype(np.float32)


def weights(shapes: Mapping[str, tuple[int, ...]], variant: str, num_conv_layers: int = 2) -> dict[str, np.ndarray]:
    """All tensors of a network."""
    return {name: value(name, tuple(shape), variant, num_conv_layers) for name, shape in shapes.items()}


def images(side: int, batch_size: int = 2) -> np.ndarray:
    """(B, 3, side, side) float32: noise, and a smooth pattern per image that pooling does not average away."""
    random = np.random.RandomState(2024)
    image_BCYX = 0.7 * random.standard_normal((batch_size, 3, side, side))
    row_YX, column_YX = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side), indexing="ij")
    for plane_CYX in image_BCYX:
        for plane_YX in plane_CYX:
            a = random.uniform(-2, 2, 4)
            plane_YX += a[0] * row_YX + a[1] * column_YX + a[2] * np.sin(3 * row_YX + a[3] * column_YX)
    return image_BCYX.astype(np.float32)


def soft_targets(num_classes: int, batch_size: int = 2) -> np.ndarray:
    """(B, K) float32 rows that sum to 1, as Mixup with label smoothing makes them."""
    label_B = np.random.RandomState(7).randint(0, num_classes, batch_size)
    target_BK = np.full((batch_size, num_classes), 0.1 / num_classes)
    target_BK[np.arange(batch_size), label_B] = 0.9 + 0.1 / num_classes
    return (0.7 * target_BK + 0.3 * target_BK[::-1]).astype(np.float32)
