"""The operators that models are made of, each in the form that its target runs well.

A form is chosen when a model is built (`current_form`), models know nothing of it:

    native    MindSpore's own operators, for Ascend and GPU.
    composed  the same mathematics in the operators that MindSpore 2.10 runs fast on a CPU. Its Conv2d is 150 times below
              its own matrix product there, its exact GELU 20 times and its soft-max gradient 6 times slower than torch's.
    export    forward only, in the operators that MindSpore Lite 2.0 and ONNX accept and compute right: no Erf (ONNX export
              has none), pooling as zero padding and a valid MaxPool (Lite refuses padded pooling).

`tests/models/test_kernels.py` holds the forms equal, values and gradients.

Shape letters: B batch, N tokens, D channels in, E channels out, M rows, H heads, K width of one head, C image channels,
Y X rows and columns of a map, P patch side. A map is BDYX in the native and export forms, BYXD in the composed one:
`MapLayout` is the only way in and out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import HeNormal, HeUniform, TruncatedNormal, initializer

FORMS = ("native", "composed", "export")
_FORM: ContextVar[str | None] = ContextVar("kernel_form", default=None)


@contextmanager
def kernel_form(form: str) -> Iterator[None]:
    """Build models in this form, whatever the target."""
    if form not in FORMS:
        raise ValueError(f"kernel form must be one of {', '.join(FORMS)}. Received: {form}")
    token = _FORM.set(form)
    try:
        yield
    finally:
        _FORM.reset(token)


def current_form() -> str:
    """The form asked for by `kernel_form`, else the one that suits the device target."""
    return _FORM.get() or ("composed" if ms.get_context("device_target") == "CPU" else "native")


def _is_composed() -> bool:
    return current_form() == "composed"


# ---------------------------------------------------------------------------------------------------------------------
# Dense


class _DenseFunction(nn.Cell):
    """x w' + b on a matrix; the bias gradient is a product with ones, six times faster than the CPU's ReduceSum."""

    def __init__(self):
        super().__init__()
        self.matmul_bt = ops.MatMul(transpose_b=True)
        self.matmul_at = ops.MatMul(transpose_a=True)
        self.matmul = ops.MatMul()
        self.bias_add = ops.BiasAdd()

    def construct(self, x_MD: Tensor, weight_ED: Tensor, bias_E: Tensor) -> Tensor:
        return self.bias_add(self.matmul_bt(x_MD, weight_ED), bias_E)

    def bprop(self, x_MD, weight_ED, bias_E, out, grad_ME):
        ones_1M = ops.ones((1, grad_ME.shape[0]), grad_ME.dtype)
        grad_bias_E = self.matmul(ones_1M, grad_ME).reshape(-1)
        return self.matmul(grad_ME, weight_ED), self.matmul_at(grad_ME, x_MD), grad_bias_E


class Dense(nn.Cell):
    """Affine map of the last axis: ``(..., D) -> (..., E)``; parameters ``weight`` (E, D) and ``bias`` (E,).

    Starts with truncated normal weights of deviation 0.02 and zero bias, as all five families' authors do.
    """

    def __init__(self, in_channels: int, out_channels: int, has_bias: bool = True):
        super().__init__()
        self.in_channels, self.out_channels, self.has_bias = in_channels, out_channels, has_bias
        self.weight = Parameter(initializer(TruncatedNormal(0.02), (out_channels, in_channels)))
        if has_bias:
            self.bias = Parameter(initializer("zeros", (out_channels,)))
        self.composed = _is_composed()
        self.dense = _DenseFunction()
        self.matmul_bt = ops.MatMul(transpose_b=True)
        self.bias_add = ops.BiasAdd()

    def construct(self, x: Tensor) -> Tensor:
        x_MD = x.reshape(-1, self.in_channels)
        if self.has_bias and self.composed:
            out_ME = self.dense(x_MD, self.weight, self.bias)
        elif self.has_bias:
            out_ME = self.bias_add(self.matmul_bt(x_MD, self.weight), self.bias)
        else:
            out_ME = self.matmul_bt(x_MD, self.weight)
        return out_ME.reshape(x.shape[:-1] + (self.out_channels,))


# ---------------------------------------------------------------------------------------------------------------------
# Layer norm


class _LayerNormFunction(nn.Cell):
    """Layer norm of matrix rows whose parameter gradients are products with ones."""

    def __init__(self, epsilon: float):
        super().__init__()
        self.epsilon = epsilon
        self.layer_norm = ops.LayerNorm(-1, -1, epsilon)
        self.matmul = ops.MatMul()
        self.row_sum = ops.ReduceSum(keep_dims=True)

    def construct(self, x_MD: Tensor, gamma_D: Tensor, beta_D: Tensor) -> Tensor:
        return self.layer_norm(x_MD, gamma_D, beta_D)[0]

    def bprop(self, x_MD, gamma_D, beta_D, out, grad_MD):
        D = x_MD.shape[-1]
        _, mean_M1, variance_M1 = self.layer_norm(x_MD, gamma_D, beta_D)
        scale_M1 = ops.rsqrt(variance_M1 + self.epsilon)
        normal_MD = (x_MD - mean_M1) * scale_M1
        scaled_MD = grad_MD * gamma_D
        mean_grad_M1 = self.row_sum(scaled_MD, -1) / D
        mean_product_M1 = self.row_sum(scaled_MD * normal_MD, -1) / D
        ones_1M = ops.ones((1, x_MD.shape[0]), x_MD.dtype)
        grad_gamma_D = self.matmul(ones_1M, grad_MD * normal_MD).reshape(-1)
        grad_beta_D = self.matmul(ones_1M, grad_MD).reshape(-1)
        return (scaled_MD - mean_grad_M1 - normal_MD * mean_product_M1) * scale_M1, grad_gamma_D, grad_beta_D


class LayerNorm(nn.Cell):
    """Layer normalisation of the last axis; parameters ``gamma`` and ``beta`` (D,)."""

    def __init__(self, channels: int, epsilon: float):
        super().__init__()
        self.channels = channels
        self.gamma = Parameter(initializer("ones", (channels,)))
        self.beta = Parameter(initializer("zeros", (channels,)))
        self.composed = _is_composed()
        self.function = _LayerNormFunction(epsilon)
        self.layer_norm = ops.LayerNorm(-1, -1, epsilon)

    def construct(self, x: Tensor) -> Tensor:
        if self.composed:
            return self.function(x.reshape(-1, self.channels), self.gamma, self.beta).reshape(x.shape)
        return self.layer_norm(x, self.gamma, self.beta)[0]


# ---------------------------------------------------------------------------------------------------------------------
# GELU

# x * sigmoid(c * P((c / 5.5)^2)) with c = clip(x, -5.5, 5.5); lowest power first, fitted against the float64 erf form:
# largest error 6.1e-7 over [-9, 9].
_GELU_LIMIT = 5.5
_GELU_POLYNOMIAL = (
    1.5957706289456086,
    2.198079024368759,
    -0.05760626763138795,
    -3.085301220205037,
    6.761805607821553,
    -6.983588539255286,
    2.926093094585389,
)
_SQRT_2_PI = 0.7978845608028654


class _SigmoidGelu(nn.Cell):
    """Exact GELU, x Phi(x), with the normal distribution function as a sigmoid of a polynomial."""

    def cumulative(self, x: Tensor) -> Tensor:
        c = ops.minimum(ops.maximum(x, -_GELU_LIMIT), _GELU_LIMIT)
        t = c * c * (1.0 / _GELU_LIMIT**2)
        polynomial = t * _GELU_POLYNOMIAL[6] + _GELU_POLYNOMIAL[5]
        for power in (4, 3, 2, 1, 0):
            polynomial = polynomial * t + _GELU_POLYNOMIAL[power]
        return ops.sigmoid(c * polynomial)

    def construct(self, x: Tensor) -> Tensor:
        return x * self.cumulative(x)

    def bprop(self, x, out, grad):
        density = ops.exp(x * x * -0.5) * (0.5 * _SQRT_2_PI)
        return (grad * (self.cumulative(x) + x * density),)


class _TanhGelu(nn.Cell):
    """0.5 x (1 + tanh(z)) written as x sigmoid(2 z): `ops.tanh` is off by up to 1e-4 on a CPU."""

    def construct(self, x: Tensor) -> Tensor:
        return x * ops.sigmoid(x * (2.0 * _SQRT_2_PI) * (x * x * 0.044715 + 1.0))


class Gelu(nn.Cell):
    """GELU, https://arxiv.org/abs/1606.08415: the exact form, or with ``tanh=True`` the zoo's and Flax's approximation."""

    def __init__(self, tanh: bool = False):
        super().__init__()
        if current_form() == "native":
            self.function = nn.GELU(approximate=tanh)
        else:
            self.function = _TanhGelu() if tanh else _SigmoidGelu()

    def construct(self, x: Tensor) -> Tensor:
        return self.function(x)


# ---------------------------------------------------------------------------------------------------------------------
# Soft-max attention


class _AttentionFunction(nn.Cell):
    """softmax(q k') v with a gradient that keeps no score matrix: the soft-max is computed again."""

    def __init__(self):
        super().__init__()
        self.matmul = ops.BatchMatMul()
        self.matmul_at = ops.BatchMatMul(transpose_a=True)
        self.matmul_bt = ops.BatchMatMul(transpose_b=True)
        self.softmax = ops.Softmax(-1)
        self.row_sum = ops.ReduceSum(keep_dims=True)
        self.concat = ops.Concat(-1)

    def construct(self, q_BHNK: Tensor, k_BHNK: Tensor, v_BHNK: Tensor) -> Tensor:
        return self.matmul(self.softmax(self.matmul_bt(q_BHNK, k_BHNK)), v_BHNK)

    def bprop(self, q_BHNK, k_BHNK, v_BHNK, out_BHNK, grad_BHNK):
        probability_BHNN = self.softmax(self.matmul_bt(q_BHNK, k_BHNK))
        delta_BHN1 = self.row_sum(grad_BHNK * out_BHNK, -1)
        # One product gives grad v' - delta: delta rides along as a column against ones.
        ones_BHN1 = ops.ones(v_BHNK.shape[:-1] + (1,), v_BHNK.dtype)
        grad_score_BHNN = probability_BHNN * self.matmul_bt(
            self.concat((grad_BHNK, -delta_BHN1)), self.concat((v_BHNK, ones_BHN1))
        )
        return (
            self.matmul(grad_score_BHNN, k_BHNK),
            self.matmul_at(grad_score_BHNN, q_BHNK),
            self.matmul_at(probability_BHNN, grad_BHNK),
        )


class _DroppedAttentionFunction(_AttentionFunction):
    """The same with dropped probabilities; mask_BHNN holds 0 and 1 / keep and gets no gradient."""

    def construct(self, q_BHNK: Tensor, k_BHNK: Tensor, v_BHNK: Tensor, mask_BHNN: Tensor) -> Tensor:
        return self.matmul(self.softmax(self.matmul_bt(q_BHNK, k_BHNK)) * mask_BHNN, v_BHNK)

    def bprop(self, q_BHNK, k_BHNK, v_BHNK, mask_BHNN, out_BHNK, grad_BHNK):
        probability_BHNN = self.softmax(self.matmul_bt(q_BHNK, k_BHNK))
        delta_BHN1 = self.row_sum(grad_BHNK * out_BHNK, -1)
        grad_score_BHNN = probability_BHNN * (self.matmul_bt(grad_BHNK, v_BHNK) * mask_BHNN - delta_BHN1)
        return (
            self.matmul(grad_score_BHNN, k_BHNK),
            self.matmul_at(grad_score_BHNN, q_BHNK),
            self.matmul_at(probability_BHNN * mask_BHNN, grad_BHNK),
            ops.zeros_like(mask_BHNN),
        )


class SoftmaxAttention(nn.Cell):
    """``softmax(scale q k') v``, https://arxiv.org/abs/1706.03762 eq. 1; an optional mask multiplies the probabilities."""

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale
        self.composed = _is_composed()
        self.attention = _AttentionFunction()
        self.dropped_attention = _DroppedAttentionFunction()
        self.matmul = ops.BatchMatMul()
        self.matmul_bt = ops.BatchMatMul(transpose_b=True)
        self.softmax = ops.Softmax(-1)

    def construct(self, q_BHNK: Tensor, k_BHNK: Tensor, v_BHNK: Tensor, mask_BHNN: Tensor | None = None) -> Tensor:
        q_BHNK = q_BHNK * self.scale
        if self.composed:
            if mask_BHNN is None:
                return self.attention(q_BHNK, k_BHNK, v_BHNK)
            return self.dropped_attention(q_BHNK, k_BHNK, v_BHNK, mask_BHNN)
        probability_BHNN = self.softmax(self.matmul_bt(q_BHNK, k_BHNK))
        if mask_BHNN is not None:
            probability_BHNN = probability_BHNN * mask_BHNN
        return self.matmul(probability_BHNN, v_BHNK)


# ---------------------------------------------------------------------------------------------------------------------
# Patches, convolution, pooling


class PatchConv2d(nn.Cell):
    """Convolution whose kernel is its stride, as tokens: ``(B, C, Y, X) -> (B, YX / PP, E)``.

    Starts with torch's default for convolutions, uniform within 1 / sqrt(CPP), and zero bias.
    """

    def __init__(self, in_channels: int, out_channels: int, patch_size: int):
        super().__init__()
        self.patch_size, self.out_channels = patch_size, out_channels
        shape = (out_channels, in_channels, patch_size, patch_size)
        self.weight = Parameter(initializer(HeUniform(5**0.5), shape))
        self.bias = Parameter(initializer("zeros", (out_channels,)))
        self.composed = _is_composed()
        self.dense = _DenseFunction()
        self.conv = ops.Conv2D(out_channels, (patch_size, patch_size), pad_mode="valid", stride=patch_size)
        self.bias_add = ops.BiasAdd()

    def construct(self, image_BCYX: Tensor) -> Tensor:
        B, C, Y, X = image_BCYX.shape
        P = self.patch_size
        N = (Y // P) * (X // P)
        if self.composed:
            patch_BYXCPP = image_BCYX.reshape(B, C, Y // P, P, X // P, P).transpose(0, 2, 4, 1, 3, 5)
            weight_ED = self.weight.reshape(self.out_channels, -1)
            return self.dense(patch_BYXCPP.reshape(B * N, C * P * P), weight_ED, self.bias).reshape(B, N, -1)
        map_BEYX = self.bias_add(self.conv(image_BCYX, self.weight), self.bias)
        return map_BEYX.reshape(B, self.out_channels, N).transpose(0, 2, 1)


class MapLayout(nn.Cell):
    """The way into the layout of maps, and out of it to tokens."""

    def __init__(self):
        super().__init__()
        self.composed = _is_composed()

    def from_image(self, image_BCYX: Tensor) -> Tensor:
        """Image to map."""
        return image_BCYX.transpose(0, 2, 3, 1) if self.composed else image_BCYX

    def to_tokens(self, feature_map: Tensor) -> Tensor:
        """Map to tokens (B, YX, D)."""
        if self.composed:
            B, Y, X, D = feature_map.shape
            return feature_map.reshape(B, Y * X, D)
        B, D, Y, X = feature_map.shape
        return feature_map.reshape(B, D, Y * X).transpose(0, 2, 1)


def _zero_border(map_BYXD: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Zeros around a map by concatenation: ops.pad is ten times slower on a CPU."""
    B, Y, X, D = map_BYXD.shape
    rows = [ops.zeros((B, n, X, D), map_BYXD.dtype) for n in (top, bottom)]
    parts = ([rows[0]] if top else []) + [map_BYXD] + ([rows[1]] if bottom else [])
    map_BYXD = ops.concat(parts, 1) if len(parts) > 1 else map_BYXD
    columns = [ops.zeros((B, Y + top + bottom, n, D), map_BYXD.dtype) for n in (left, right)]
    parts = ([columns[0]] if left else []) + [map_BYXD] + ([columns[1]] if right else [])
    return ops.concat(parts, 2) if len(parts) > 1 else map_BYXD


class Conv2d(nn.Cell):
    """Square convolution of a map, no bias; parameter ``weight`` (E, D, kernel, kernel), starts Kaiming normal."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int):
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.out_channels = out_channels
        self.weight = Parameter(initializer(HeNormal(), (out_channels, in_channels, kernel_size, kernel_size)))
        self.composed = _is_composed()
        self.conv = ops.Conv2D(out_channels, (kernel_size, kernel_size), pad_mode="pad", pad=padding, stride=stride)
        self.matmul_bt = ops.MatMul(transpose_b=True)

    def construct(self, feature_map: Tensor) -> Tensor:
        if not self.composed:
            return self.conv(feature_map, self.weight)
        B, Y, X, D = feature_map.shape
        k, s, p = self.kernel_size, self.stride, self.padding
        out_Y, out_X = (Y + 2 * p - k) // s + 1, (X + 2 * p - k) // s + 1
        # Rows and columns beyond the last window only make both sides a multiple of the stride.
        padded = _zero_border(feature_map, p, p + (-Y - 2 * p) % s, p, p + (-X - 2 * p) % s)
        _, rows, columns, _ = padded.shape
        phase_SSBYXD = padded.reshape(B, rows // s, s, columns // s, s, D).transpose(2, 4, 0, 1, 3, 5)
        windows = []
        for i in range(k):
            for j in range(k):
                start = (i % s, j % s, 0, i // s, j // s, 0)
                windows.append(ops.slice(phase_SSBYXD, start, (1, 1, B, out_Y, out_X, D)))
        window_MD = ops.concat(windows, -1).reshape(B * out_Y * out_X, k * k * D)
        weight_ED = self.weight.transpose(0, 2, 3, 1).reshape(self.out_channels, -1)
        return self.matmul_bt(window_MD, weight_ED).reshape(B, out_Y, out_X, self.out_channels)


class MaxPool2d(nn.Cell):
    """3x3 stride 2 pooling of a map that holds nothing below zero (it comes out of a ReLU).

    Zero padding is then the same as no padding. ``first`` rows and columns go before the map: 1 is the authors' and
    torch's ``padding=1``, 0 the zoo's ``pad_mode="same"`` on even sides, whose windows lie one pixel further.
    """

    def __init__(self, first: int = 1):
        super().__init__()
        self.first = first
        self.composed = _is_composed()
        self.pool = ops.MaxPool(kernel_size=3, strides=2, pad_mode="valid")

    def construct(self, feature_map: Tensor) -> Tensor:
        Y, X = feature_map.shape[1:3] if self.composed else feature_map.shape[2:]
        # Each side needs 2 * ceil(n / 2) + 1 entries.
        first_Y, first_X = (self.first, self.first)
        first_Y = 1 if Y % 2 else first_Y
        first_X = 1 if X % 2 else first_X
        last_Y, last_X = 2 * ((Y + 1) // 2) + 1 - Y - first_Y, 2 * ((X + 1) // 2) + 1 - X - first_X
        if not self.composed:
            return self.pool(nn.Pad(((0, 0), (0, 0), (first_Y, last_Y), (first_X, last_X)))(feature_map))
        padded = _zero_border(feature_map, first_Y, last_Y + 1, first_X, last_X + 1)
        return self.largest_of_three(self.largest_of_three(padded, 1), 2)

    def largest_of_three(self, x: Tensor, axis: int) -> Tensor:
        """Largest of entries 2i, 2i+1, 2i+2 along an axis of 2n+2 entries, as n entries."""
        B, Y, X, D = x.shape
        if axis == 1:
            pair = x.reshape(B, Y // 2, 2, X, D)
            even = ops.slice(pair, (0, 0, 0, 0, 0), (B, Y // 2, 1, X, D)).reshape(B, Y // 2, X, D)
            odd = ops.slice(pair, (0, 0, 1, 0, 0), (B, Y // 2 - 1, 1, X, D)).reshape(B, Y // 2 - 1, X, D)
            size = (B, Y // 2 - 1, X, D)
            first, third = ops.slice(even, (0, 0, 0, 0), size), ops.slice(even, (0, 1, 0, 0), size)
        else:
            pair = x.reshape(B, Y, X // 2, 2, D)
            even = ops.slice(pair, (0, 0, 0, 0, 0), (B, Y, X // 2, 1, D)).reshape(B, Y, X // 2, D)
            odd = ops.slice(pair, (0, 0, 0, 1, 0), (B, Y, X // 2 - 1, 1, D)).reshape(B, Y, X // 2 - 1, D)
            size = (B, Y, X // 2 - 1, D)
            first, third = ops.slice(even, (0, 0, 0, 0), size), ops.slice(even, (0, 0, 1, 0), size)
        return ops.maximum(ops.maximum(first, odd), third)
