"""Names of JAX .npz files for ViT: google-research/vision_transformer and google-research/big_vision.

The first published theirs before Flax counted layers by kind, big_vision writes the newer names; files in between mix
them. Kernels are stored (in, out), those of attention with an axis of heads.

Shape letters: D width, H heads, K width of one head, C image channels, E channels out, P patch side.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
from mindspore import nn

from src.weights.naming import Layout, Naming, complete_origins, rule
from src.weights.resample import CORNERS

_KERNEL = Layout(lambda kernel_DE: kernel_DE.T, lambda weight_ED: weight_ED.T)
_CONVOLUTION = Layout(
    lambda kernel_PPCE: kernel_PPCE.transpose(3, 2, 0, 1), lambda weight_ECPP: weight_ECPP.transpose(2, 3, 1, 0)
)
_BLOCK = r"Transformer/encoderblock_\1"
# Published name -> the one that Flax gives today.
_TODAY = (
    ("/LayerNorm_2/", "/LayerNorm_1/"),
    ("/MultiHeadDotProductAttention_1/", "/MultiHeadDotProductAttention_0/"),
    ("/MlpBlock_3/", "/MlpBlock_0/"),
)
_POSITIONS = "Transformer/posembed_input/pos_embedding"
_POOLED = "has no class token: its network pools over all tokens, which this one does not"


def _with_class_position(table_1ND: np.ndarray) -> np.ndarray:
    """big_vision adds positions before it puts the class token in front, so the token's own is zero."""
    if math.isqrt(table_1ND.shape[1]) ** 2 != table_1ND.shape[1]:
        return table_1ND
    return np.concatenate((np.zeros_like(table_1ND[:, :1]), table_1ND), 1)


def unstacked(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Blocks that a scan has stacked on the first axis, under the names of single blocks; other tensors as they are."""
    single = {}
    for name, array in tensors.items():
        match = re.fullmatch(r"Transformer/encoderblock/(.+)", name)
        if match is None:
            single[name] = array
        else:
            single.update({f"Transformer/encoderblock_{i}/{match[1]}": layer for i, layer in enumerate(array)})
    return single


def jax_naming(net: nn.Cell) -> Naming | None:
    """The names for a ViT; None for networks that were never published in JAX."""
    names = {name: name for name, _ in net.parameters_and_names()}
    if "blocks.0.attn.qkv.weight" not in names:
        return None
    origins = complete_origins(names, _rules(net.blocks[0].attn.num_heads))
    if origins is None:
        return None
    aliases = {"pos_embedding": _POSITIONS, "Transformer/pos_embedding": _POSITIONS}
    for name in (name for origin in origins.values() for name in origin.names):
        today = name
        for published, renamed in _TODAY:
            today = today.replace(published, renamed)
        if today != name:
            aliases[today] = name
    return Naming("jax", origins, aliases, CORNERS, lambda names: "" if "cls" in names else _POOLED)


def _rules(num_heads: int) -> tuple:
    attention = rf"{_BLOCK}/MultiHeadDotProductAttention_1"
    into_heads = Layout(
        lambda kernel_DHK: kernel_DHK.reshape(len(kernel_DHK), -1).T,
        lambda weight_ED: weight_ED.T.reshape(weight_ED.shape[1], num_heads, -1),
    )
    out_of_heads = Layout(
        lambda kernel_HKD: kernel_HKD.reshape(-1, kernel_HKD.shape[-1]).T,
        lambda weight_DE: weight_DE.T.reshape(num_heads, -1, len(weight_DE)),
    )
    head_bias = Layout(lambda bias_HK: bias_HK.reshape(-1), lambda bias_D: bias_D.reshape(num_heads, -1))
    qkv = ("query", "key", "value")
    return (
        rule(r"cls_token", "cls"),
        rule(r"pos_embed", _POSITIONS, layout=Layout(_with_class_position, lambda table: table)),
        rule(r"patch_embed\.proj\.weight", "embedding/kernel", layout=_CONVOLUTION),
        rule(r"patch_embed\.proj\.bias", "embedding/bias"),
        rule(r"blocks\.(\d+)\.norm1\.gamma", rf"{_BLOCK}/LayerNorm_0/scale"),
        rule(r"blocks\.(\d+)\.norm1\.beta", rf"{_BLOCK}/LayerNorm_0/bias"),
        rule(r"blocks\.(\d+)\.attn\.qkv\.weight", *(f"{attention}/{p}/kernel" for p in qkv), layout=into_heads),
        rule(r"blocks\.(\d+)\.attn\.qkv\.bias", *(f"{attention}/{p}/bias" for p in qkv), layout=head_bias),
        rule(r"blocks\.(\d+)\.attn\.proj\.weight", f"{attention}/out/kernel", layout=out_of_heads),
        rule(r"blocks\.(\d+)\.attn\.proj\.bias", f"{attention}/out/bias"),
        rule(r"blocks\.(\d+)\.norm2\.gamma", rf"{_BLOCK}/LayerNorm_2/scale"),
        rule(r"blocks\.(\d+)\.norm2\.beta", rf"{_BLOCK}/LayerNorm_2/bias"),
        rule(r"blocks\.(\d+)\.mlp\.fc1\.weight", rf"{_BLOCK}/MlpBlock_3/Dense_0/kernel", layout=_KERNEL),
        rule(r"blocks\.(\d+)\.mlp\.fc1\.bias", rf"{_BLOCK}/MlpBlock_3/Dense_0/bias"),
        rule(r"blocks\.(\d+)\.mlp\.fc2\.weight", rf"{_BLOCK}/MlpBlock_3/Dense_1/kernel", layout=_KERNEL),
        rule(r"blocks\.(\d+)\.mlp\.fc2\.bias", rf"{_BLOCK}/MlpBlock_3/Dense_1/bias"),
        rule(r"norm\.gamma", "Transformer/encoder_norm/scale"),
        rule(r"norm\.beta", "Transformer/encoder_norm/bias"),
        rule(r"head\.weight", "head/kernel", layout=_KERNEL),
        rule(r"head\.bias", "head/bias"),
    )
