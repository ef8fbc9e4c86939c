"""Layers that two or more model families share.

Shape letters: B batch, N tokens, M tokens that are attended to, D width, H heads, K width of one head, F hidden width
of the MLP.

Random layers draw from no generator: ``key_B`` holds one random integer in [0, 2^31) per image of this step, and a mask
is a hash of that key, the layer's salt and the element's place. So a mask depends on (seed, step, position of the image
in the global batch) alone, and a run repeats bit for bit after a restart. ``key_B=None`` means: nothing is dropped.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.models.kernels import Dense, Gelu, LayerNorm, PatchConv2d, current_form
from src.models.softmax_attention import SoftmaxAttention

_ODD_A = 0x9E3779B97F4A7C15
_ODD_B = 0xBF58476D1CE4E5B9
_ODD_C = 0x94D049BB133111EB


def exact(*values: int) -> Tensor:
    """Two or more constants modulo 2^64; a slice of one is exact, where a fused kernel holds a number in float32."""
    return Tensor(np.array([value % (1 << 64) for value in values], np.uint64).view(np.int64))


class HashIntegers(nn.Cell):
    """64-bit integers, spread over the whole signed range, from int64 keys (the multiplications wrap round)."""

    def __init__(self, salt: int):
        super().__init__()
        # Offsets of the salts lie far apart: next to each other, layers would have the same masks a few rows apart.
        self.constant_3 = exact(salt * _ODD_C, _ODD_A, _ODD_B)

    def construct(self, key: Tensor) -> Tensor:
        mixed = _fold((key + self.constant_3[:1]) * self.constant_3[1:2], 31)
        return _fold(mixed * self.constant_3[2:], 29)


def _fold(x: Tensor, shift: int) -> Tensor:
    """High bits onto low ones. The shift copies the sign, and a copied sign would cancel the sign itself."""
    high = ops.bitwise_right_shift(x, ops.full_like(x, shift))
    return ops.bitwise_xor(x, ops.bitwise_and(high, (1 << (64 - shift)) - 1))


def thresholds(drop_rate: float) -> Tensor:
    """A uniform signed 64-bit integer lies below the first with probability ``drop_rate``; the second is the same."""
    value = round(drop_rate * 2.0**64) - (1 << 63)
    return exact(value, value)


def part_keys(key_B: Tensor, count: int) -> Tensor:
    """A key of its own for each of ``count`` parts, as many per image: int64 (count,)."""
    key = key_B.astype(ms.int64)
    parts = count // key_B.shape[0]
    if parts == 1:
        return key
    return (key.reshape(-1, 1) * parts + ops.arange(parts).astype(ms.int64)).reshape(-1)


class DropPath(nn.Cell):
    """Stochastic depth, https://arxiv.org/abs/1603.09382: a branch is dropped or divided by the keep rate.

    Each entry of the first axis by itself: an image, or one of the parts into which images were cut.
    """

    def __init__(self, drop_rate: float, salt: int):
        super().__init__()
        check_rate("drop_path_rate", drop_rate)
        self.drop_rate = drop_rate
        self.hash = HashIntegers(salt)
        self.threshold_2 = thresholds(drop_rate)

    def construct(self, branch: Tensor, key_B: Tensor | None = None) -> Tensor:
        if key_B is None or self.drop_rate == 0.0:
            return branch
        keep = (self.hash(part_keys(key_B, branch.shape[0])) >= self.threshold_2[:1]).astype(branch.dtype)
        shape = (branch.shape[0],) + (1,) * (branch.ndim - 1)
        return branch * (keep / (1.0 - self.drop_rate)).reshape(shape)


def linear_rates(last: float, depth: int) -> list[float]:
    """Stochastic depth that rises from 0 in the first block to ``last`` in the last one."""
    return [float(rate) for rate in np.linspace(0, last, depth)]


class Dropout(nn.Cell):
    """Elementwise dropout, https://arxiv.org/abs/1207.0580, with a mask that is a hash of row and column numbers."""

    def __init__(self, drop_rate: float, salt: int):
        super().__init__()
        check_rate("drop_rate", drop_rate)
        self.drop_rate = drop_rate
        self.hash_row, self.hash_column = HashIntegers(salt), HashIntegers(salt + 1)
        self.threshold_2 = thresholds(drop_rate)

    def mask(self, shape: tuple, key_B: Tensor) -> Tensor:
        """Zeros and 1 / keep of this shape, whose first axis is the batch or parts of its images."""
        B, columns = shape[0], shape[-1]
        rows = int(np.prod(shape[1:-1]))
        row_key_BR = part_keys(key_B, B * rows).reshape(B, rows)
        row_BR1 = self.hash_row(row_key_BR).reshape(B, rows, 1)
        # An odd factor per column: the product is uniform over 64 bits, with two passes over the large mask.
        column_C = self.hash_column(ops.arange(columns).astype(ms.int64)) * 2 + 1
        keep = (row_BR1 * column_C >= self.threshold_2[:1]).astype(ms.float32)
        return (keep * (1.0 / (1.0 - self.drop_rate))).reshape(shape)

    def construct(self, x: Tensor, key_B: Tensor | None = None) -> Tensor:
        if key_B is None or self.drop_rate == 0.0:
            return x
        return x * self.mask(x.shape, key_B)


def check_rate(name: str, rate: float) -> None:
    """A rate is in [0, 1).

    Raises:
        ValueError: it is not.
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"{name} must be at least 0 and below 1. Received: {rate}")


class MultiHeadAttention(nn.Cell):
    """Attention behind its projections. A subclass makes those, and ``proj`` (D, D) for the result of all heads.

    With a window size W the tokens are a square map and attend inside of windows of W x W.
    """

    def __init__(
        self, dim: int, num_heads: int, attn_drop_rate: float, drop_rate: float, salt: int, window_size: int = 0
    ):
        super().__init__()
        self.num_heads = num_heads
        self.attention = SoftmaxAttention(dim, num_heads, window_size)
        self.attn_drop = Dropout(attn_drop_rate, salt)
        self.proj_drop = Dropout(drop_rate, salt + 2)

    def attend(self, q_BND: Tensor, k_BMD: Tensor, v_BMD: Tensor, key_B: Tensor | None) -> Tensor:
        """Result for each query: (B, N, D)."""
        if key_B is None or self.attn_drop.drop_rate == 0.0:
            out_BND = self.attention(q_BND, k_BMD, v_BMD)
        else:
            mask = self.attn_drop.mask(self.attention.mask_shape(q_BND, k_BMD), key_B)
            out_BND = self.attention(q_BND, k_BMD, v_BMD, mask)
        return self.proj_drop(self.proj(out_BND), key_B)


class Attention(MultiHeadAttention):
    """Self-attention with one fused projection; parameters ``qkv.*`` (3D, D) and ``proj.*`` (D, D)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qkv_bias: bool,
        attn_drop_rate: float,
        drop_rate: float,
        salt: int,
        window_size: int = 0,
    ):
        super().__init__(dim, num_heads, attn_drop_rate, drop_rate, salt, window_size)
        self.qkv = Dense(dim, 3 * dim, qkv_bias)
        self.proj = Dense(dim, dim)
        self.split = ops.Split(2, 3)

    def construct(self, x_BND: Tensor, key_B: Tensor | None = None) -> Tensor:
        q_BND, k_BND, v_BND = self.split(self.qkv(x_BND))
        return self.attend(q_BND, k_BND, v_BND, key_B)


class Mlp(nn.Cell):
    """Dense, GELU, Dense; parameters ``fc1.*`` (F, D) and ``fc2.*`` (D, F)."""

    def __init__(self, dim: int, hidden_dim: int, tanh_gelu: bool, drop_rate: float, salt: int):
        super().__init__()
        self.fc1 = Dense(dim, hidden_dim)
        self.act = Gelu(tanh_gelu)
        self.drop1 = Dropout(drop_rate, salt)
        self.fc2 = Dense(hidden_dim, dim)
        self.drop2 = Dropout(drop_rate, salt + 2)

    def construct(self, x_BND: Tensor, key_B: Tensor | None = None) -> Tensor:
        hidden_BNF = self.drop1(self.act(self.fc1(x_BND)), key_B)
        return self.drop2(self.fc2(hidden_BNF), key_B)


class PatchEmbed(nn.Cell):
    """Image to patch tokens: ``(B, C, Y, X) -> (B, N, D)``."""

    def __init__(self, image_size: int, in_channels: int, embed_dim: int, patch_size: int):
        super().__init__()
        if image_size % patch_size:
            received = f"image_size {image_size}, patch_size {patch_size}"
            raise ValueError(f"image_size must be a multiple of patch_size. Received: {received}")
        self.image_size = image_size
        self.num_patches = (image_size // patch_size) ** 2
        self.proj = PatchConv2d(in_channels, embed_dim, patch_size)

    def construct(self, image_BCYX: Tensor) -> Tensor:
        assert image_BCYX.shape[2:] == (self.image_size, self.image_size), "image size differs from the model's"
        return self.proj(image_BCYX)


class PrefixTokens(nn.Cell):
    """Tokens that go before those of the patches: ``(1, T, D), (B, N, D) -> (B, T + N, D)``."""

    def __init__(self, num_tokens: int, num_patches: int):
        super().__init__()
        self.num_tokens = num_tokens
        self.is_export = current_form() == "export"
        self.pad_patches = nn.Pad(((0, 0), (num_tokens, 0), (0, 0)))
        self.pad_tokens = nn.Pad(((0, 0), (0, num_patches), (0, 0)))

    def construct(self, token_1TD: Tensor, patch_BND: Tensor) -> Tensor:
        if self.is_export:
            return self.after_zeros(patch_BND) + self.pad_tokens(token_1TD)
        return ops.concat((ops.tile(token_1TD, (patch_BND.shape[0], 1, 1)), patch_BND), 1)

    def after_zeros(self, patch_BND: Tensor) -> Tensor:
        """The same with zeros in place of the tokens."""
        if self.is_export:
            return self.pad_patches(patch_BND)
        B, _, D = patch_BND.shape
        return ops.concat((ops.zeros((B, self.num_tokens, D), patch_BND.dtype), patch_BND), 1)


class Block(nn.Cell):
    """Pre-norm transformer block around an attention, eq. 2 and 3 of ViT's paper."""

    def __init__(
        self,
        attn: nn.Cell,
        dim: int,
        mlp_ratio: float,
        *,
        tanh_gelu: bool,
        drop_rate: float,
        drop_path_rate: float,
        salt: int,
    ):
        super().__init__()
        self.norm1 = LayerNorm(dim, 1e-6)
        self.attn = attn
        self.drop_path1 = DropPath(drop_path_rate, salt + 4)
        self.norm2 = LayerNorm(dim, 1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), tanh_gelu, drop_rate, salt + 6)
        self.drop_path2 = DropPath(drop_path_rate, salt + 10)

    def construct(self, x_BND: Tensor, key_B: Tensor | None = None) -> Tensor:
        x_BND = x_BND + self.drop_path1(self.attn(self.norm1(x_BND), key_B), key_B)
        return x_BND + self.drop_path2(self.mlp(self.norm2(x_BND), key_B), key_B)


def attention_products(num_queries: int, num_keys: int, dim: int) -> int:
    """Multiply-accumulates of all heads' scores, and of the sums of values that they weigh."""
    return 2 * num_queries * num_keys * dim


def group_by_prefix(net: nn.Cell, prefixes: list) -> list[list[str]]:
    """The parameter names of a net, one list per prefix or tuple of prefixes."""
    names = [name for name, _ in net.parameters_and_names()]
    return [[name for name in names if name.startswith(prefix)] for prefix in prefixes]
