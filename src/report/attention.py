"""Where a network looks: its attention as maps over the image, whatever the family.

The probabilities are those of the network itself: hooks take the queries and keys of one pass, operator by operator,
and `SoftmaxAttention.probabilities` weighs them as the network does. Heads are averaged.

Shape letters: B batch, C image channels, Y X rows and columns of a grid of patches, N tokens, M subsampled tokens,
S side of a grid. A parts that attend to themselves (windows of all images, or patches of all images), P tokens of a
part; where there are no parts A = B and P = N.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
from mindspore import Tensor, nn

from src.device import operator_by_operator
from src.errors import ConfigError
from src.models.cct import CompactConvolutionalTransformer
from src.models.softmax_attention import SoftmaxAttention
from src.models.tnt import TNT
from src.models.twins import LocalAttention, Twins
from src.models.vit import VisionTransformer

Recorded = dict[str, np.ndarray]
_POOL = "classifier.softmax"


def attention_maps(net: nn.Cell, image_BCYX: np.ndarray, *, inner: bool = False) -> dict[str, np.ndarray]:
    """Every map of the network's family, the one nearest to the answer first: name -> (B, Y, X), values not negative.

    A value is a patch's share of the attention; a map sums to 1, less what goes to tokens that are no patch.

        ViT, DeiT   ``rollout`` from the class token; distilled: ``rollout_class`` and ``rollout_distillation``
        CCT         ``sequence_pool``, the weights of the last tokens in the answer; ``rollout`` from these on
        Twins       ``stage4_global`` to ``stage1_global``: what a patch gets from all patches, mean over the blocks of
                    the stage; what a subsampled key gets is divided among the patches that it was made of. SVT also
                    has ``stage4_local`` and so on, from the patches of the same window
        TNT         ``rollout`` from the class token; with ``inner`` also ``inner``, on the grid of pixels: what a pixel
                    gets from those of its patch, mean over the blocks

    Args:
        net: a network of `src.models`, which stays as it was.
        image_BCYX: normalised images, float32.
        inner: the inner stream too.

    Raises:
        ConfigError: ``inner``, but the network is no TNT.
    """
    if inner and not isinstance(net, TNT):
        raise ConfigError("attention_inner", "TNT alone has an inner stream", type(net).__name__)
    return maps_of(net, recorded_attention(net, image_BCYX), inner=inner)


def maps_of(net: nn.Cell, recorded: Recorded, *, inner: bool = False) -> dict[str, np.ndarray]:
    """The maps of `attention_maps` from what `recorded_attention` gave."""
    make = next(make for family, make in _FAMILIES.items() if isinstance(net, family))
    return make(net, recorded) | ({"inner": _inner_map(net, recorded)} if inner else {})


def recorded_attention(net: nn.Cell, image_BCYX: np.ndarray) -> Recorded:
    """The probabilities of one pass in evaluation mode, in the order of the pass.

    Returns:
        Name of the cell that attends, such as ``blocks.0.attn`` -> (A, P, P), or (B, N, M) where keys are subsampled.
        CCT's pooling is ``classifier.softmax``: (B, 1, N).
    """
    recorded: Recorded = {}

    def keep_probabilities(name: str, cell: nn.Cell, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        recorded[name] = cell.probabilities(*inputs[:2]).asnumpy().mean(1)

    def keep_output(name: str, cell: nn.Cell, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        recorded[name] = output.asnumpy()

    handles = []
    for name, cell in net.cells_and_names():
        if isinstance(cell, SoftmaxAttention):
            keep = functools.partial(keep_probabilities, name.rpartition(".")[0])
        elif name == _POOL:
            keep = functools.partial(keep_output, name)
        else:
            continue
        handles.append(cell.register_forward_hook(keep))
    was_training = net.training
    net.set_train(False)
    try:
        with operator_by_operator():
            net(Tensor(image_BCYX))
    finally:
        net.set_train(was_training)
        for handle in handles:
            handle.remove()
    return recorded


def rollout(layers: Sequence[np.ndarray], start_BN: np.ndarray) -> np.ndarray:
    """Attention rollout, https://arxiv.org/abs/2005.00928 section 3: how much of each input is in a mix of outputs.

    A layer passes 0.5 attention + 0.5 identity on, for its residual connection, with rows that sum to 1.

    Args:
        layers: attention (B, N, N) of each, from the image to the logits.
        start_BN: the mix of the last layer's tokens, such as 1 for the class token and 0 for the others.

    Returns:
        Shares of the first layer's tokens (B, N), with the sum of ``start_BN``.
    """
    share_BN = start_BN.astype(np.float64)
    for attention_BNN in reversed(layers):
        mixed_BNN = 0.5 * attention_BNN + 0.5 * np.eye(attention_BNN.shape[-1])
        mixed_BNN /= mixed_BNN.sum(-1, keepdims=True)
        share_BN = (share_BN[:, None] @ mixed_BNN)[:, 0]
    return share_BN


# ---------------------------------------------------------------------------------------------------------------------
# Families


def _vit_maps(net: VisionTransformer, recorded: Recorded) -> dict[str, np.ndarray]:
    layers = list(recorded.values())
    names = ("rollout",) if net.num_prefix_tokens == 1 else ("rollout_class", "rollout_distillation")
    return {name: _token_map(layers, token, net.num_prefix_tokens) for token, name in enumerate(names)}


def _cct_maps(net: CompactConvolutionalTransformer, recorded: Recorded) -> dict[str, np.ndarray]:
    pool_BN = recorded[_POOL][:, 0]
    layers = [attention for name, attention in recorded.items() if name != _POOL]
    return {"sequence_pool": _square(pool_BN), "rollout": _square(rollout(layers, pool_BN))}


def _twins_maps(net: Twins, recorded: Recorded) -> dict[str, np.ndarray]:
    of_blocks: dict[str, list[np.ndarray]] = {}
    for stage, blocks in reversed(list(enumerate(net.blocks))):
        side = net.pos_block[stage].proj[0].side
        for index, block in enumerate(blocks):
            attention = recorded[f"blocks.{stage}.{index}.attn"]
            if isinstance(block.attn, LocalAttention):
                kind, map_BYX = "local", _map_of_windows(attention, side, block.attn.window_size)
            else:
                kind, map_BYX = "global", _map_of_keys(attention, block.attn.sr_ratio)
            of_blocks.setdefault(f"stage{stage + 1}_{kind}", []).append(map_BYX)
    order = sorted(of_blocks, key=lambda name: name.endswith("local"))
    return {name: np.mean(of_blocks[name], 0) for name in order}


def _tnt_maps(net: TNT, recorded: Recorded) -> dict[str, np.ndarray]:
    layers = [attention for name, attention in recorded.items() if name.endswith(".attn_out")]
    return {"rollout": _token_map(layers, 0, 1)}


def _inner_map(net: TNT, recorded: Recorded) -> np.ndarray:
    layers = [attention for name, attention in recorded.items() if name.endswith(".attn_in")]
    received_AP = np.mean(layers, 0).mean(1)
    return _assembled(received_AP.reshape(-1, net.num_patches, received_AP.shape[1])) / net.num_patches


_FAMILIES: dict[type[nn.Cell], Callable[[nn.Cell, Recorded], dict[str, np.ndarray]]] = {
    VisionTransformer: _vit_maps,
    CompactConvolutionalTransformer: _cct_maps,
    Twins: _twins_maps,
    TNT: _tnt_maps,
}


# ---------------------------------------------------------------------------------------------------------------------
# From tokens to places


def _token_map(layers: Sequence[np.ndarray], token: int, num_prefix_tokens: int) -> np.ndarray:
    """Rollout from one token to the patches behind the prefix: (B, S, S)."""
    B, N, _ = layers[0].shape
    start_BN = np.broadcast_to(np.arange(N) == token, (B, N))
    return _square(rollout(layers, start_BN)[:, num_prefix_tokens:])


def _map_of_keys(attention_BNM: np.ndarray, sr_ratio: int) -> np.ndarray:
    """What each patch gets, mean over all queries; each key was made of sr_ratio x sr_ratio patches."""
    key_BYX = _square(attention_BNM.mean(1)) / sr_ratio**2
    return key_BYX.repeat(sr_ratio, 1).repeat(sr_ratio, 2)


def _map_of_windows(attention_APP: np.ndarray, side: int, window_size: int) -> np.ndarray:
    """What each of side x side patches gets, mean over all queries; tokens that fill windows up are left out."""
    n, P = -(-side // window_size), window_size**2
    inside = np.arange(n * window_size) < side
    is_patch_YX = inside[:, None] & inside
    is_patch_AP = is_patch_YX.reshape(n, window_size, n, window_size).transpose(0, 2, 1, 3).reshape(n * n, 1, P)
    received_BAP = (is_patch_AP @ attention_APP.reshape(-1, n * n, P, P))[:, :, 0] / side**2
    return _assembled(received_BAP)[:, :side, :side]


def _assembled(part_BAP: np.ndarray) -> np.ndarray:
    """Square parts, row by row of them, as one square: (B, Y, X)."""
    B, A, P = part_BAP.shape
    n, W = math.isqrt(A), math.isqrt(P)
    return part_BAP.reshape(B, n, n, W, W).transpose(0, 1, 3, 2, 4).reshape(B, n * W, n * W)


def _square(share_BN: np.ndarray) -> np.ndarray:
    """Tokens of a square, row by row, as a map: (B, S, S)."""
    side = math.isqrt(share_BN.shape[1])
    return share_BN.reshape(-1, side, side)
