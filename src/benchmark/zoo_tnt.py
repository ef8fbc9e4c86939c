"""TNT as the model zoo computes it: three projections, convolution on unfolded patches, MindSpore's own operators.

Kept for comparison alone. Shape letters: B batch, T tokens, D width.
"""

from __future__ import annotations

from typing import Any

from mindspore import Tensor, nn

from src.models import build_model
from src.models.kernels import Dense, kernel_form
from src.models.layers import MultiHeadAttention


class SplitAttention(MultiHeadAttention):
    """Self-attention with a matrix each for queries, keys and values."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__(dim, num_heads, attn_drop_rate=0.0, drop_rate=0.0, salt=0)
        self.q, self.k, self.v = (Dense(dim, dim, has_bias=False) for _ in range(3))
        self.proj = Dense(dim, dim)

    def construct(self, x_BTD: Tensor, key_B: Tensor | None = None) -> Tensor:
        return self.attend(self.q(x_BTD), self.k(x_BTD), self.v(x_BTD), key_B)


def build_zoo_tnt(arch: str, **sizes: Any) -> nn.Cell:
    """The network that `build_model` makes of the same arguments, in the zoo's formulation."""
    with kernel_form("native"):
        net = build_model(arch, **sizes)
        for block in net.blocks:
            for name in ("attn_in", "attn_out"):
                ours = getattr(block, name)
                setattr(block, name, SplitAttention(ours.v.in_channels, ours.num_heads))
    # A cell that is replaced loses the prefix of its place.
    for name, parameter in net.parameters_and_names():
        parameter.name = name
    return net
