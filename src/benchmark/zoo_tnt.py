"""TNT as the model zoo computes it: three projections, convolution on unfolded patches, MindSpore's own operators.

Kept for comparison alone. Shape letters: B batch, T tokens, D width, H heads, K width of one head.
"""

from __future__ import annotations

from typing import Any

from mindspore import Tensor, nn

from src.models import build_model
from src.models.kernels import Dense, SoftmaxAttention, kernel_form


class SplitAttention(nn.Cell):
    """Self-attention with a matrix each for queries, keys and values."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k, self.v = (Dense(dim, dim, has_bias=False) for _ in range(3))
        self.attention = SoftmaxAttention((dim // num_heads) ** -0.5)
        self.proj = Dense(dim, dim)

    def heads(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, H, T, K)."""
        B, T, D = x_BTD.shape
        return x_BTD.reshape(B, T, self.num_heads, D // self.num_heads).transpose(0, 2, 1, 3)

    def construct(self, x_BTD: Tensor, key_B: Tensor | None = None) -> Tensor:
        out_BHTK = self.attention(*(self.heads(project(x_BTD)) for project in (self.q, self.k, self.v)))
        return self.proj(out_BHTK.transpose(0, 2, 1, 3).reshape(x_BTD.shape))


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
