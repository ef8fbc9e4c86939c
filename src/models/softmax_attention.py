"""Soft-max attention of several heads, in the forms of `src.models.kernels`.

Shape letters: B batch, N tokens, M tokens that are attended to, D width, H heads, K width of one head. A parts that
attend to themselves, P tokens of a part: with windows A counts all windows of all images, without them A = B, P = N.
"""

from __future__ import annotations

import math

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr

from src.models.kernels import current_form


@constexpr
def _rows_by_head(num_tokens: int, num_heads: int, window_size: int, back: bool) -> Tensor:
    """Of an image's rows of K numbers, token by token: which comes at each place part by part, head by head.

    ``back`` is the way back. A window size of 0 means one part.
    """
    row = np.arange(num_tokens * num_heads)
    if window_size:
        n, W = math.isqrt(num_tokens) // window_size, window_size
        order = row.reshape(n, W, n, W, num_heads).transpose(0, 2, 4, 1, 3).ravel()
    else:
        order = row.reshape(num_tokens, num_heads).T.ravel()
    return Tensor((np.argsort(order) if back else order).astype(np.int32))


@constexpr
def _windows_per_side(num_tokens: int, window_size: int) -> int:
    return math.isqrt(num_tokens) // window_size


class _AttentionFunction(nn.Cell):
    """softmax(scale q k') v of (B, N, D), (B, M, D) and (B, M, D), and the probabilities for the gradient.

    Heads are taken apart and put together by gathering rows. The CPU's Transpose takes two to three times as long, and
    keeps a table of 8 bytes or more per element at each place where it stands: half the memory of a training step.
    """

    def __init__(self, num_heads: int, scale: float, window_size: int):
        super().__init__()
        self.num_heads, self.scale, self.window_size = num_heads, scale, window_size
        self.gather = ops.Gather()
        self.matmul = ops.BatchMatMul()
        self.matmul_at = ops.BatchMatMul(transpose_a=True)
        self.matmul_bt = ops.BatchMatMul(transpose_b=True)
        self.row_sum = ops.MatMul()
        self.softmax = ops.Softmax(-1)

    def heads(self, x_BND: Tensor) -> Tensor:
        """(B, N, D) -> (A, H, P, K)."""
        B, N, D = x_BND.shape
        H, P = self.num_heads, self.window_size**2 or N
        row_BRK = x_BND.reshape(B, N * H, D // H)
        return self.gather(row_BRK, _rows_by_head(N, H, self.window_size, False), 1).reshape(-1, H, P, D // H)

    def tokens(self, x_AHPK: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """(A, H, P, K) -> (B, N, D), the shape that is given."""
        B, N, D = shape
        H = self.num_heads
        row_BRK = x_AHPK.reshape(B, N * H, D // H)
        return self.gather(row_BRK, _rows_by_head(N, H, self.window_size, True), 1).reshape(shape)

    def construct(self, q_BND: Tensor, k_BMD: Tensor, v_BMD: Tensor) -> tuple[Tensor, Tensor]:
        score_AHPM = self.matmul_bt(self.heads(q_BND * self.scale), self.heads(k_BMD))
        probability_AHPM = self.softmax(score_AHPM)
        return self.tokens(self.matmul(probability_AHPM, self.heads(v_BMD)), q_BND.shape), probability_AHPM

    def bprop(self, q_BND, k_BMD, v_BMD, out, grads):
        (out_BND, probability_AHPM), grad_BND = out, grads[0]
        grad_AHPK = self.heads(grad_BND)
        grad_probability_AHPM = self.matmul_bt(grad_AHPK, self.heads(v_BMD))
        grad_score_AHPM = probability_AHPM * (grad_probability_AHPM - self.delta(grad_BND, out_BND))
        return (
            *self.query_and_key_gradients(q_BND, k_BMD, grad_score_AHPM),
            self.tokens(self.matmul_at(probability_AHPM, grad_AHPK), v_BMD.shape),
        )

    def delta(self, grad_BND: Tensor, out_BND: Tensor) -> Tensor:
        """Sum over a head's entries of result times gradient: (A, H, P, 1)."""
        B, N, D = grad_BND.shape
        H = self.num_heads
        sum_R1 = self.row_sum((grad_BND * out_BND).reshape(-1, D // H), ops.ones((D // H, 1), grad_BND.dtype))
        return self.heads(sum_R1.reshape(B, N, H))

    def query_and_key_gradients(self, q_BND: Tensor, k_BMD: Tensor, grad_score_AHPM: Tensor) -> tuple[Tensor, Tensor]:
        """By the gradient of the scores."""
        grad_q_AHPK = self.matmul(grad_score_AHPM, self.heads(k_BMD))
        grad_k_AHMK = self.matmul_at(grad_score_AHPM, self.heads(q_BND * self.scale))
        return self.tokens(grad_q_AHPK, q_BND.shape) * self.scale, self.tokens(grad_k_AHMK, k_BMD.shape)


class _DroppedAttentionFunction(_AttentionFunction):
    """The same with dropped probabilities; mask_AHPM holds 0 and 1 / keep and gets no gradient."""

    def construct(self, q_BND: Tensor, k_BMD: Tensor, v_BMD: Tensor, mask_AHPM: Tensor) -> tuple[Tensor, Tensor]:
        score_AHPM = self.matmul_bt(self.heads(q_BND * self.scale), self.heads(k_BMD))
        probability_AHPM = self.softmax(score_AHPM)
        out_AHPK = self.matmul(probability_AHPM * mask_AHPM, self.heads(v_BMD))
        return self.tokens(out_AHPK, q_BND.shape), probability_AHPM

    def bprop(self, q_BND, k_BMD, v_BMD, mask_AHPM, out, grads):
        (out_BND, probability_AHPM), grad_BND = out, grads[0]
        grad_AHPK = self.heads(grad_BND)
        grad_probability_AHPM = self.matmul_bt(grad_AHPK, self.heads(v_BMD)) * mask_AHPM
        grad_score_AHPM = probability_AHPM * (grad_probability_AHPM - self.delta(grad_BND, out_BND))
        return (
            *self.query_and_key_gradients(q_BND, k_BMD, grad_score_AHPM),
            self.tokens(self.matmul_at(probability_AHPM * mask_AHPM, grad_AHPK), v_BMD.shape),
            ops.zeros_like(mask_AHPM),
        )


class SoftmaxAttention(nn.Cell):
    """``softmax(scale q k') v`` of each head, https://arxiv.org/abs/1706.03762 eq. 1, with scale = 1 / sqrt(K).

    ``(B, N, D), (B, M, D), (B, M, D) -> (B, N, D)``; a mask (A, H, P, M) may multiply the probabilities. With a window
    size W the tokens are a square map and attend inside of its windows of W x W, row by row of windows.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int = 0):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim must be a multiple of num_heads. Received: dim {dim}, num_heads {num_heads}")
        self.num_heads, self.window_size, self.scale = num_heads, window_size, (dim // num_heads) ** -0.5
        self.composed = current_form() == "composed"
        self.attention = _AttentionFunction(num_heads, self.scale, window_size)
        self.dropped_attention = _DroppedAttentionFunction(num_heads, self.scale, window_size)
        self.matmul = ops.BatchMatMul()
        self.matmul_bt = ops.BatchMatMul(transpose_b=True)
        # A cell, so that half precision may leave it alone.
        self.softmax = nn.Softmax(-1)

    def mask_shape(self, q_BND: Tensor, k_BMD: Tensor) -> tuple[int, int, int, int]:
        """(A, H, P, M)."""
        B, N, _ = q_BND.shape
        P = self.window_size**2 or N
        return B * N // P, self.num_heads, P, self.window_size**2 or k_BMD.shape[1]

    def probabilities(self, q_BND: Tensor, k_BMD: Tensor) -> Tensor:
        """What `construct` weighs the values by, for those who want to see it: (A, H, P, M), whose rows sum to 1."""
        if self.composed:
            # They do not depend on the values.
            return self.attention(q_BND, k_BMD, k_BMD)[1]
        return self.softmax(self.matmul_bt(self.heads(q_BND) * self.scale, self.heads(k_BMD)))

    def construct(self, q_BND: Tensor, k_BMD: Tensor, v_BMD: Tensor, mask_AHPM: Tensor | None = None) -> Tensor:
        if self.composed:
            if mask_AHPM is None:
                return self.attention(q_BND, k_BMD, v_BMD)[0]
            return self.dropped_attention(q_BND, k_BMD, v_BMD, mask_AHPM)[0]
        q_AHPK, k_AHMK, v_AHMK = self.heads(q_BND), self.heads(k_BMD), self.heads(v_BMD)
        if self.scale != 1.0:
            q_AHPK = q_AHPK * self.scale
        probability_AHPM = self.softmax(self.matmul_bt(q_AHPK, k_AHMK))
        if mask_AHPM is not None:
            probability_AHPM = probability_AHPM * mask_AHPM
        return self.tokens(self.matmul(probability_AHPM, v_AHMK), q_BND.shape)

    def heads(self, x_BND: Tensor) -> Tensor:
        """(B, N, D) -> (A, H, P, K), by transposition."""
        _, N, D = x_BND.shape
        H, W = self.num_heads, self.window_size
        part_APD = x_BND
        if W:
            n = _windows_per_side(N, W)
            part_APD = x_BND.reshape(-1, n, W, n, W, D).transpose(0, 1, 3, 2, 4, 5).reshape(-1, W * W, D)
        return part_APD.reshape(-1, W * W or N, H, D // H).transpose(0, 2, 1, 3)

    def tokens(self, x_AHPK: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """(A, H, P, K) -> (B, N, D), the shape that is given, by transposition."""
        _, N, D = shape
        W = self.window_size
        part_APD = x_AHPK.transpose(0, 2, 1, 3).reshape(-1, W * W or N, D)
        if not W:
            return part_APD
        n = _windows_per_side(N, W)
        return part_APD.reshape(-1, n, n, W, W, D).transpose(0, 1, 3, 2, 4, 5).reshape(-1, N, D)
