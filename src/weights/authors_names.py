"""Names of the authors' PyTorch code and of timm, which are ours but for the two words of a norm.

timm renamed what TNT's and DeiT III's authors wrote; both forms are read.
"""

from __future__ import annotations

import math

import numpy as np
from mindspore import nn

from src.models.kernels import LayerNorm
from src.weights.naming import Layout, Naming, origins_by_rules, rule
from src.weights.resample import BICUBIC


def _square(pixels_1PE: np.ndarray) -> np.ndarray:
    _, P, E = pixels_1PE.shape
    return pixels_1PE.transpose(0, 2, 1).reshape(1, E, math.isqrt(P), -1)


# (1, P, E) pixels in a row; ours is timm's (1, E, side, side).
_PIXEL_ROWS = Layout(_square, lambda array: array.reshape(*array.shape[:2], -1).transpose(0, 2, 1))

# huawei-noah/Efficient-AI-Backbones; the zoo's names descend from these.
TNT_PYTORCH = (
    rule(r"patch_pos", "outer_pos"),
    rule(r"pixel_pos", "inner_pos", layout=_PIXEL_ROWS),
    rule(r"pixel_embed\.(.+)", r"patch_embed.\1"),
    rule(r"(blocks\.\d+\.|)norm([12])_proj\.(.+)", r"\1proj_norm\2.\3"),
    rule(r"(blocks\.\d+)\.norm_in\.(.+)", r"\1.inner_norm1.\2"),
    rule(r"(blocks\.\d+)\.norm_mlp_in\.(.+)", r"\1.inner_norm2.\2"),
    rule(r"(blocks\.\d+)\.norm_out\.(.+)", r"\1.outer_norm1.\2"),
    rule(r"(blocks\.\d+)\.norm_mlp\.(.+)", r"\1.outer_norm2.\2"),
    rule(r"(blocks\.\d+)\.attn_in\.(.+)", r"\1.inner_attn.\2"),
    rule(r"(blocks\.\d+)\.attn_out\.(.+)", r"\1.outer_attn.\2"),
    rule(r"(blocks\.\d+)\.mlp_in\.(.+)", r"\1.inner_mlp.\2"),
    rule(r"(blocks\.\d+)\.mlp\.(.+)", r"\1.outer_mlp.\2"),
)
# facebookresearch/deit, models_v2.
_DEIT_3 = (rule(r"(blocks\.\d+)\.ls([12])\.gamma", r"\1.gamma_\2"),)


def official_names(net: nn.Cell) -> dict[str, str]:
    """The authors' name (torch spelling) -> ours, for each parameter of a network."""
    norms = {name for name, cell in net.cells_and_names() if isinstance(cell, LayerNorm)}
    table = {}
    for ours, _ in net.parameters_and_names():
        cell, _, leaf = ours.rpartition(".")
        theirs = {"gamma": "weight", "beta": "bias"}[leaf] if cell in norms else leaf
        table[f"{cell}.{theirs}" if cell else theirs] = ours
    return table


def authors_namings(net: nn.Cell) -> list[Naming]:
    """``official``, which is timm's, and what the authors called it where timm differs."""
    official = {ours: theirs for theirs, ours in official_names(net).items()}
    known = [Naming("official", origins_by_rules(official, ()))]
    if "patch_pos" in official:
        known.append(Naming("tnt_pytorch", origins_by_rules(official, TNT_PYTORCH)))
    if "blocks.0.ls1.gamma" in official:
        known.append(Naming("facebookresearch/deit", origins_by_rules(official, _DEIT_3), position_rule=BICUBIC))
    return known


def tnt_objection(net: nn.Cell, names: set[str]) -> str:
    """Why these names, in any naming, are of another TNT than a network; nothing if they are not."""
    has_bias = "head.bias" in dict(net.parameters_and_names())
    if "blocks.0.proj.bias" in names:
        return "is timm's tnt_s_legacy, another network: take the weights of tnt_s_patch16_224"
    if "head.bias" in names and not has_bias:
        return "has biases that the model zoo's TNT lacks: build the network with compat official"
    biases = {"head.bias", "pixel_embed.proj.bias", "patch_embed.proj.bias"}
    if "head.weight" in names and has_bias and not biases & names:
        return "lacks biases, as the model zoo's TNT does: build the network with compat zoo"
    return ""
