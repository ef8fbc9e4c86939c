"""Constant factors of a network that go into the weights before them, so that an exported graph does without.

    attention    the scale of the scores goes into the rows of the projection that makes the queries
    layer scale  (DeiT III) goes into the projection at the end of its branch

What has been measured and left out is in docs/architecture.md.
"""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn

from src.models.deit import LayerScaleBlock
from src.models.kernels import Dense
from src.models.layers import MultiHeadAttention

# What families call the projection whose first D rows make the queries.
_QUERY_PROJECTIONS = ("q", "qk", "qkv")


def fold(net: nn.Cell) -> None:
    """Change a network of the export form in place; its logits stay the same but for float32 rounding.

    Its weights are no longer those of its checkpoint: load them before.
    """
    for _, cell in net.cells_and_names():
        if isinstance(cell, MultiHeadAttention):
            _fold_attention_scale(cell)
        elif isinstance(cell, LayerScaleBlock):
            _fold_layer_scales(cell)


def _fold_attention_scale(cell: MultiHeadAttention) -> None:
    projection = next(getattr(cell, name) for name in _QUERY_PROJECTIONS if hasattr(cell, name))
    factor_E = np.ones(projection.out_channels, np.float32)
    factor_E[: cell.proj.in_channels] = cell.attention.scale
    _scale_rows(projection, factor_E)
    cell.attention.scale = 1.0


def _fold_layer_scales(block: LayerScaleBlock) -> None:
    _scale_rows(block.attn.proj, block.ls1.gamma.asnumpy())
    _scale_rows(block.mlp.fc2, block.ls2.gamma.asnumpy())
    block.ls1, block.ls2 = nn.Identity(), nn.Identity()


def _scale_rows(dense: Dense, factor_E: np.ndarray) -> None:
    """Multiply each output of an affine map by a factor of its own."""
    dense.weight.set_data(Tensor(dense.weight.asnumpy() * factor_E[:, None]))
    if dense.has_bias:
        dense.bias.set_data(Tensor(dense.bias.asnumpy() * factor_E))
