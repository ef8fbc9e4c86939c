"""The operators that models are made of, each in the form that its target runs well.

A form is chosen when a model is built (`current_form`), models know nothing of it:

    native    MindSpore's own operators, for Ascend and GPU.
    composed  the same mathematics in the operators that MindSpore 2.10 runs fast on a CPU. There its Conv2d is 150
              times below its own matrix product, its GELU 20 times and its soft-max gradient 6 times slower than
              torch's. What is no matrix product is elementwise, so that graph kernel fusion makes few passes of many.
    export    forward only, in the operators that MindSpore Lite 2.0 and ONNX accept and compute right: no Erf (ONNX
              export has none), pooling as zero padding and a valid MaxPool (Lite refuses padded pooling). Nothing in
              it knows the batch: axes of that length are -1 in a reshape, so that a file may leave the batch open.

`src.models.convolution` holds convolution and pooling, `src.models.softmax_attention` attention. Tests hold the forms
equal, values and gradients.

Shape letters: B batch, N tokens, D channels in, E channels out, M rows, C image channels, Y X rows and columns of an
image, P patch side.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import HeUniform, TruncatedNormal, initializer
from mindspore.ops import constexpr

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


class DenseFunction(nn.Cell):
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
        self.dense = DenseFunction()
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
        return out_ME.reshape((-1,) + x.shape[1:-1] + (self.out_channels,))


# ---------------------------------------------------------------------------------------------------------------------
# Transposition


@constexpr
def _row_order(shape: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    """Of the rows of an entry of the first axis: which comes at each place when the axes in between are reordered."""
    places = np.arange(np.prod(shape[1:-1])).reshape(1, *shape[1:-1], 1)
    return Tensor(places.transpose(axes).ravel().astype(np.int32))


class _PermuteFunction(nn.Cell):
    """Rows gathered in their new order; `src.models.softmax_attention` says what is wrong with the CPU's Transpose."""

    def __init__(self, axes: tuple[int, ...]):
        super().__init__()
        self.axes = axes
        self.inverse = tuple(int(axis) for axis in np.argsort(axes))
        self.gather = ops.Gather()

    def moved(self, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        """A tensor with its axes in this order."""
        shape = x.shape
        rows = self.gather(x.reshape(shape[0], -1, shape[-1]), _row_order(shape, axes), 1)
        return rows.reshape(tuple([shape[axis] for axis in axes]))

    def construct(self, x: Tensor) -> Tensor:
        return self.moved(x, self.axes)

    def bprop(self, x, out, grad):
        return (self.moved(grad, self.inverse),)


class Permute(nn.Cell):
    """``transpose`` to an order of axes that leaves the first and the last in place."""

    def __init__(self, *axes: int):
        super().__init__()
        if (axes[0], axes[-1]) != (0, len(axes) - 1):
            raise ValueError(f"the first and the last axis must stay in place. Received: {axes}")
        self.axes = axes
        self.composed = _is_composed()
        self.function = _PermuteFunction(axes)

    def construct(self, x: Tensor) -> Tensor:
        return self.function(x) if self.composed else x.transpose(*self.axes)


# ---------------------------------------------------------------------------------------------------------------------
# Layer norm


class _LayerNormFunction(nn.Cell):
    """Layer norm of matrix rows; means over a row and sums over the rows are products with a constant vector.

    Returns the mean and the reciprocal deviation too, for the gradient. The CPU's own operator takes longer.
    """

    def __init__(self, channels: int, epsilon: float):
        super().__init__()
        self.epsilon = epsilon
        self.average_D1 = Tensor(np.full((channels, 1), 1.0 / channels, np.float32))
        self.matmul = ops.MatMul()
        self.matmul_at = ops.MatMul(transpose_a=True)

    def construct(self, x_MD: Tensor, gamma_D: Tensor, beta_D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean_M1 = self.matmul(x_MD, self.average_D1)
        centred_MD = x_MD - mean_M1
        scale_M1 = ops.rsqrt(self.matmul(centred_MD * centred_MD, self.average_D1) + self.epsilon)
        return centred_MD * scale_M1 * gamma_D + beta_D, mean_M1, scale_M1

    def bprop(self, x_MD, gamma_D, beta_D, out, grads):
        _, mean_M1, scale_M1 = out
        grad_MD = grads[0]
        # Without the dependence the compiler takes the normalised rows from the forward pass and keeps them until now.
        x_MD = ops.depend(x_MD, grad_MD)
        normal_MD = (x_MD - mean_M1) * scale_M1
        product_MD = grad_MD * normal_MD
        weight_D1 = gamma_D.reshape(-1, 1) * self.average_D1
        mean_grad_M1, mean_product_M1 = self.matmul(grad_MD, weight_D1), self.matmul(product_MD, weight_D1)
        grad_x_MD = (grad_MD * gamma_D - mean_grad_M1 - normal_MD * mean_product_M1) * scale_M1
        ones_M1 = ops.ones((x_MD.shape[0], 1), x_MD.dtype)
        grad_gamma_D, grad_beta_D = self.matmul_at(product_MD, ones_M1), self.matmul_at(grad_MD, ones_M1)
        return grad_x_MD, grad_gamma_D.reshape(-1), grad_beta_D.reshape(-1)


class LayerNorm(nn.Cell):
    """Layer normalisation of the last axis; parameters ``gamma`` and ``beta`` (D,)."""

    def __init__(self, channels: int, epsilon: float):
        super().__init__()
        self.channels = channels
        self.gamma = Parameter(initializer("ones", (channels,)))
        self.beta = Parameter(initializer("zeros", (channels,)))
        self.composed = _is_composed()
        self.function = _LayerNormFunction(channels, epsilon)
        self.layer_norm = ops.LayerNorm(-1, -1, epsilon)

    def construct(self, x: Tensor) -> Tensor:
        if self.composed:
            return self.function(x.reshape(-1, self.channels), self.gamma, self.beta)[0].reshape(x.shape)
        return self.layer_norm(x, self.gamma, self.beta)[0]


# ---------------------------------------------------------------------------------------------------------------------
# GELU

# The normal distribution's upper tail is P(a)^-16 for a >= 0, a form of Hastings' (Abramowitz and Stegun 26.2.19).
# Lowest power first, fitted so that GELU (within 3.2e-7 over [-9, 9]) and its derivative (1e-6) meet the erf form.
_TAIL = (
    1.04427375,
    0.0520768046,
    0.022065129,
    0.00345418727,
    1.21785097e-06,
    7.44103473e-05,
    -1.17434131e-06,
    7.51348618e-07,
)
# x sigmoid(c P((c / 5.5)^2)) with c = clip(x, -5.5, 5.5): 6.1e-7 over [-9, 9].
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


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """Horner's scheme, lowest power first."""
    value = x * coefficients[-1] + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        value = value * x + coefficient
    return value


class _TailGelu(nn.Cell):
    """Exact GELU, x Phi(x) = max(x, 0) - |x| Phi(-|x|), of arithmetic alone, which fuses into one pass.

    A fused exponential is off by 3e-4, and an exponential that is not fused splits the pass in three.
    """

    def __init__(self):
        super().__init__()
        self.slope = tuple(16.0 * power * _TAIL[power] for power in range(1, len(_TAIL)))

    def tail(self, a: Tensor, polynomial: Tensor) -> Tensor:
        """Phi(-a)."""
        square = polynomial * polynomial
        fourth = square * square
        eighth = fourth * fourth
        return 1.0 / (eighth * eighth)

    def construct(self, x: Tensor) -> Tensor:
        a = ops.maximum(x, -x)
        return ops.maximum(x, 0.0) - a * self.tail(a, _polynomial(a, _TAIL))

    def bprop(self, x, out, grad):
        # Without the dependence the compiler takes these values from the forward pass and keeps them until now.
        x = ops.depend(x, grad)
        a = ops.maximum(x, -x)
        polynomial = _polynomial(a, _TAIL)
        tail = self.tail(a, polynomial)
        below = tail - a * tail * _polynomial(a, self.slope) / polynomial
        return (grad * ops.select(x > 0.0, 1.0 - below, below),)


class _SigmoidGelu(nn.Cell):
    """Exact GELU, x Phi(x), with the normal distribution function as a sigmoid of a polynomial."""

    def construct(self, x: Tensor) -> Tensor:
        c = ops.minimum(ops.maximum(x, -_GELU_LIMIT), _GELU_LIMIT)
        t = c * c * (1.0 / _GELU_LIMIT**2)
        return x * ops.sigmoid(c * _polynomial(t, _GELU_POLYNOMIAL))


class _TanhGelu(nn.Cell):
    """0.5 x (1 + tanh(z)) written as x sigmoid(2 z): `ops.tanh` is off by up to 1e-4 on a CPU."""

    def construct(self, x: Tensor) -> Tensor:
        return x * ops.sigmoid(x * (2.0 * _SQRT_2_PI) * (x * x * 0.044715 + 1.0))


class Gelu(nn.Cell):
    """GELU, https://arxiv.org/abs/1606.08415: the exact form, or with ``tanh=True`` the zoo's and Flax's other one."""

    def __init__(self, tanh: bool = False):
        super().__init__()
        if current_form() == "native":
            self.function = nn.GELU(approximate=tanh)
        elif tanh:
            self.function = _TanhGelu()
        else:
            self.function = _TailGelu() if _is_composed() else _SigmoidGelu()

    def construct(self, x: Tensor) -> Tensor:
        return self.function(x)


# ---------------------------------------------------------------------------------------------------------------------
# Patches


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
        self.permute = Permute(0, 2, 4, 1, 3, 5)
        self.dense = DenseFunction()
        self.conv = ops.Conv2D(out_channels, (patch_size, patch_size), pad_mode="valid", stride=patch_size)
        self.bias_add = ops.BiasAdd()

    def construct(self, image_BCYX: Tensor) -> Tensor:
        B, C, Y, X = image_BCYX.shape
        P = self.patch_size
        N = (Y // P) * (X // P)
        if self.composed:
            patch_BYXCPP = self.permute(image_BCYX.reshape(B, C, Y // P, P, X // P, P))
            weight_ED = self.weight.reshape(self.out_channels, -1)
            return self.dense(patch_BYXCPP.reshape(B * N, C * P * P), weight_ED, self.bias).reshape(B, N, -1)
        map_BEYX = self.bias_add(self.conv(image_BCYX, self.weight), self.bias)
        return map_BEYX.reshape(-1, self.out_channels, N).transpose(0, 2, 1)


# ---------------------------------------------------------------------------------------------------------------------
# Norm of gradients


class GlobalNorm(nn.Cell):
    """Euclidean norm over all elements of several tensors.

    In the composed form each tensor is multiplied with itself as a vector: the CPU's square and sum take ten times as
    long. Bare operators, since those behind a tensor's methods cost the compiler 200 MB.
    """

    def __init__(self):
        super().__init__()
        self.composed = _is_composed()
        self.reshape, self.concat = ops.Reshape(), ops.Concat()
        self.matmul_bt = ops.MatMul(transpose_b=True)
        # A loop over hundreds of tensors exceeds the compiler's depth of calls.
        self.map = ops.HyperMap()

    def square_sum(self, tensor: Tensor) -> Tensor:
        """Sum of the squares of one tensor: (1, 1)."""
        if self.composed:
            row_1M = self.reshape(tensor, (1, -1))
            return self.matmul_bt(row_1M, row_1M)
        return ops.sum(ops.square(tensor)).reshape(1, 1)

    def construct(self, tensors: tuple[Tensor, ...]) -> Tensor:
        return ops.sqrt(ops.sum(self.concat(self.map(self.square_sum, tensors))))
