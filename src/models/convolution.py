"""Convolution and pooling of feature maps, in the forms of `src.models.kernels`.

Shape letters: B batch, D channels in, E channels out, M rows of a matrix, C image channels, Y X rows and columns of a
map, A all axes before the one in hand, L its length. A map is BDYX in the native and export forms, BYXD in the composed
one: `MapLayout` is the only way in and out.
"""

from __future__ import annotations

from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import HeNormal, Normal, initializer

from src.models.kernels import DenseFunction, Permute, current_form


class MapLayout(nn.Cell):
    """The way into the layout of maps, and out of it to tokens."""

    def __init__(self):
        super().__init__()
        self.composed = current_form() == "composed"

    def from_image(self, image_BCYX: Tensor) -> Tensor:
        """Image to map."""
        return image_BCYX.transpose(0, 2, 3, 1) if self.composed else image_BCYX

    def to_tokens(self, feature_map: Tensor) -> Tensor:
        """Map to tokens (B, YX, D)."""
        if self.composed:
            B, Y, X, D = feature_map.shape
            return feature_map.reshape(B, Y * X, D)
        B, D, Y, X = feature_map.shape
        return feature_map.reshape(-1, D, Y * X).transpose(0, 2, 1)


def _zero_border(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Zeros before and after one axis, by concatenation: ops.pad is ten times slower on a CPU."""
    parts = [x]
    if before:
        parts = [ops.zeros(x.shape[:axis] + (before,) + x.shape[axis + 1 :], x.dtype)] + parts
    if after:
        parts = parts + [ops.zeros(x.shape[:axis] + (after,) + x.shape[axis + 1 :], x.dtype)]
    return ops.concat(parts, axis) if len(parts) > 1 else x


class MapBorder(nn.Cell):
    """Zeros below and right of a square map (B, Y, Y, D), and the map without them."""

    def __init__(self, side: int, border: int):
        super().__init__()
        self.side, self.border = side, border
        self.is_export = current_form() == "export"
        self.pad = nn.Pad(((0, 0), (0, border), (0, border), (0, 0)))

    def add(self, map_BYXD: Tensor) -> Tensor:
        """(B, Y, Y, D) -> (B, Y + border, Y + border, D)."""
        if self.is_export:
            return self.pad(map_BYXD)
        return _zero_border(_zero_border(map_BYXD, 1, 0, self.border), 2, 0, self.border)

    def remove(self, map_BYXD: Tensor) -> Tensor:
        """(B, Y + border, Y + border, D) -> (B, Y, Y, D)."""
        Y = self.side
        if self.is_export:
            return map_BYXD[:, :Y, :Y]
        return ops.slice(map_BYXD, (0, 0, 0, 0), (map_BYXD.shape[0], Y, Y, map_BYXD.shape[3]))


class _Windows(nn.Cell):
    """Map (B, Y, X, D) to the rows of its windows (B out_Y out_X, k k D), and the gradient back.

    One axis after the other: k + k slices instead of k k, and ever longer runs of memory.
    """

    def __init__(self, kernel_size: int, stride: int, padding: int):
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def out_side(self, side: int) -> int:
        """Windows along a side."""
        return (side + 2 * self.padding - self.kernel_size) // self.stride + 1

    def padded_side(self, side: int) -> int:
        """A side with its border, and with what makes it a multiple of the stride."""
        side += 2 * self.padding
        return side + -side % self.stride

    def taps(self, x_ALD: Tensor, n: int) -> list[Tensor]:
        """For each place in the window the entries (A, n, D) that it meets along a padded axis."""
        A, L, D = x_ALD.shape
        s = self.stride
        x = x_ALD.reshape(A, L // s, s * D)
        return [ops.slice(x, (0, tap // s, tap % s * D), (A, n, D)) for tap in range(self.kernel_size)]

    def from_taps(self, taps: list[Tensor], L: int) -> Tensor:
        """The transpose of `taps`: the sum of all entries where they belong, (A, L, D)."""
        A, n, D = taps[0].shape
        s = self.stride
        phases = []
        for phase in range(s):
            places = []
            for tap in range(phase, self.kernel_size, s):
                # One more zero at either end than needed: an empty piece would need a branch.
                before = ops.zeros((A, tap // s + 1, D), taps[tap].dtype)
                after = ops.zeros((A, L // s - n - tap // s + 1, D), taps[tap].dtype)
                places.append(ops.concat((before, taps[tap], after), 1))
            phases.append(ops.slice(ops.addn(places), (0, 1, 0), (A, L // s, D)))
        return ops.concat(phases, -1).reshape(A, L, D)

    def construct(self, map_BYXD: Tensor) -> Tensor:
        B, Y, X, D = map_BYXD.shape
        p, k, out_Y, out_X = self.padding, self.kernel_size, self.out_side(Y), self.out_side(X)
        L_Y, L_X = self.padded_side(Y), self.padded_side(X)
        padded = _zero_border(_zero_border(map_BYXD, 1, p, L_Y - Y - p), 2, p, L_X - X - p)
        row = ops.concat(self.taps(padded.reshape(B * L_Y, L_X, D), out_X), -1)
        taps = self.taps(row.reshape(B, L_Y, out_X * k * D), out_Y)
        return ops.concat([tap.reshape(B * out_Y * out_X, k * D) for tap in taps], -1)

    def bprop(self, map_BYXD, out, grad):
        B, Y, X, D = map_BYXD.shape
        p, k, out_Y, out_X = self.padding, self.kernel_size, self.out_side(Y), self.out_side(X)
        L_Y, L_X = self.padded_side(Y), self.padded_side(X)
        M = B * out_Y * out_X
        taps = [ops.slice(grad, (0, tap * k * D), (M, k * D)).reshape(B, out_Y, out_X * k * D) for tap in range(k)]
        row = self.from_taps(taps, L_Y).reshape(B * L_Y, out_X, k * D)
        taps = [ops.slice(row, (0, 0, tap * D), (B * L_Y, out_X, D)) for tap in range(k)]
        padded = self.from_taps(taps, L_X).reshape(B, L_Y, L_X, D)
        return (ops.slice(padded, (0, p, p, 0), (B, Y, X, D)),)


class Conv2d(nn.Cell):
    """Square convolution of a map; parameters ``weight`` (E, D, k, k), Kaiming normal at first, and ``bias``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: int,
        has_bias: bool = False,
    ):
        super().__init__()
        self.out_channels, self.has_bias = out_channels, has_bias
        if has_bias:
            self.bias = Parameter(initializer("zeros", (out_channels,)))
        self.weight = Parameter(initializer(HeNormal(), (out_channels, in_channels, kernel_size, kernel_size)))
        self.composed = current_form() == "composed"
        self.conv = ops.Conv2D(out_channels, (kernel_size, kernel_size), pad_mode="pad", pad=padding, stride=stride)
        self.bias_add = ops.BiasAdd()
        self.windows = _Windows(kernel_size, stride, padding)
        self.matmul_bt = ops.MatMul(transpose_b=True)
        self.dense = DenseFunction()

    def construct(self, feature_map: Tensor) -> Tensor:
        if not self.composed:
            out_BEYX = self.conv(feature_map, self.weight)
            return self.bias_add(out_BEYX, self.bias) if self.has_bias else out_BEYX
        B, Y, X, _ = feature_map.shape
        out_Y, out_X = self.windows.out_side(Y), self.windows.out_side(X)
        weight_ED = self.weight.transpose(0, 2, 3, 1).reshape(self.out_channels, -1)
        x_MD = self.windows(feature_map)
        out_ME = self.dense(x_MD, weight_ED, self.bias) if self.has_bias else self.matmul_bt(x_MD, weight_ED)
        return out_ME.reshape(B, out_Y, out_X, self.out_channels)


class TokenConv2d(nn.Cell):
    """Convolution whose kernel is its stride, on the tokens of a square map: ``(B, YX, D) -> (B, YX / PP, E)``.

    Parameters ``weight`` (E, D, P, P), starts normal with the variance 2 / fan-out, and ``bias``.
    """

    def __init__(self, in_channels: int, out_channels: int, patch_size: int, side: int):
        super().__init__()
        if side % patch_size:
            raise ValueError(f"a map's side must be a multiple of its patches'. Received: {side}, {patch_size}")
        self.patch_size, self.side, self.out_channels = patch_size, side, out_channels
        shape = (out_channels, in_channels, patch_size, patch_size)
        self.weight = Parameter(initializer(Normal((2.0 / (out_channels * patch_size**2)) ** 0.5), shape))
        self.bias = Parameter(initializer("zeros", (out_channels,)))
        self.composed = current_form() == "composed"
        self.permute = Permute(0, 1, 3, 2, 4, 5)
        self.dense = DenseFunction()
        self.conv = ops.Conv2D(out_channels, (patch_size, patch_size), pad_mode="valid", stride=patch_size)
        self.bias_add = ops.BiasAdd()

    def construct(self, x_BND: Tensor) -> Tensor:
        B, N, D = x_BND.shape
        P, Y, E = self.patch_size, self.side, self.out_channels
        if self.composed:
            patch_BYXPPD = self.permute(x_BND.reshape(B, Y // P, P, Y // P, P, D))
            weight_ED = self.weight.transpose(0, 2, 3, 1).reshape(E, -1)
            return self.dense(patch_BYXPPD.reshape(-1, P * P * D), weight_ED, self.bias).reshape(B, N // P**2, E)
        map_BDYX = x_BND.transpose(0, 2, 1).reshape(-1, D, Y, Y)
        map_BEYX = self.bias_add(self.conv(map_BDYX, self.weight), self.bias)
        return map_BEYX.reshape(-1, E, N // P**2).transpose(0, 2, 1)


class _DepthwiseFunction(nn.Cell):
    """3x3 convolution of each channel by itself: nine shifted products of a padded map (B, Y + 2, X + 2, D)."""

    def __init__(self):
        super().__init__()
        self.matmul = ops.MatMul()

    def shifted(self, map_BYXD: Tensor, tap: int) -> Tensor:
        """The entries that one of the nine weights meets."""
        B, Y, X, D = map_BYXD.shape
        return ops.slice(map_BYXD, (0, tap // 3, tap % 3, 0), (B, Y - 2, X - 2, D))

    def construct(self, map_BYXD: Tensor, weight_9D: Tensor, bias_D: Tensor) -> Tensor:
        out = bias_D
        for tap in range(9):
            out = out + self.shifted(map_BYXD, tap) * weight_9D[tap]
        return out

    def bprop(self, map_BYXD, weight_9D, bias_D, out, grad):
        D = grad.shape[3]
        # The dependence keeps the compiler from holding the slices of the forward pass until now.
        map_BYXD = ops.depend(map_BYXD, grad)
        # The gradient of a map is the same sum with the weights turned round.
        wide = _zero_border(_zero_border(grad, 1, 2, 2), 2, 2, 2)
        grad_map = self.shifted(wide, 0) * weight_9D[8]
        for tap in range(1, 9):
            grad_map = grad_map + self.shifted(wide, tap) * weight_9D[8 - tap]
        ones_1M = ops.ones((1, grad.size // D), grad.dtype)
        rows = []
        for tap in range(9):
            rows.append(self.matmul(ones_1M, (self.shifted(map_BYXD, tap) * grad).reshape(-1, D)))
        return grad_map, ops.concat(rows, 0), self.matmul(ones_1M, grad.reshape(-1, D)).reshape(-1)


class DepthwiseConv2d(nn.Cell):
    """3x3 convolution of each channel by itself, on the tokens of a square map: ``(B, YX, D) -> (B, YX, D)``.

    Parameters ``weight`` (D, 1, 3, 3), starts normal with the variance 2 / 9, and ``bias``.
    """

    def __init__(self, channels: int, side: int):
        super().__init__()
        self.side = side
        self.weight = Parameter(initializer(Normal((2.0 / 9.0) ** 0.5), (channels, 1, 3, 3)))
        self.bias = Parameter(initializer("zeros", (channels,)))
        self.composed = current_form() == "composed"
        self.function = _DepthwiseFunction()
        self.conv = ops.Conv2D(channels, (3, 3), pad_mode="pad", pad=1, group=channels)
        self.bias_add = ops.BiasAdd()

    def construct(self, x_BND: Tensor) -> Tensor:
        B, N, D = x_BND.shape
        Y = self.side
        if self.composed:
            padded_BYXD = _zero_border(_zero_border(x_BND.reshape(B, Y, Y, D), 1, 1, 1), 2, 1, 1)
            weight_9D = self.weight.reshape(D, 9).transpose(1, 0)
            return self.function(padded_BYXD, weight_9D, self.bias).reshape(B, N, D)
        map_BDYX = x_BND.transpose(0, 2, 1).reshape(-1, D, Y, Y)
        return self.bias_add(self.conv(map_BDYX, self.weight), self.bias).reshape(-1, D, N).transpose(0, 2, 1)


class _MaxOfThree(nn.Cell):
    """Largest of three neighbours at stride 2 along the middle axis, (A, 2n, D) to (A, n, D).

    No entry is below zero. The three are 2i, 2i + 1 and their neighbour, 2i - 1 if ``before``, else 2i + 2; zero stands
    beyond either end. Of equal entries one gets the gradient.
    """

    def __init__(self, before: bool):
        super().__init__()
        self.before = before

    def three(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Even, odd and neighbouring entries, each (A, n, D)."""
        A, n, D = x.shape[0], x.shape[1] // 2, x.shape[2]
        pair = x.reshape(A, n, 2 * D)
        even, odd = ops.slice(pair, (0, 0, 0), (A, n, D)), ops.slice(pair, (0, 0, D), (A, n, D))
        return even, odd, self.shift(odd, self.before) if self.before else self.shift(even, self.before)

    def shift(self, x: Tensor, later: bool) -> Tensor:
        """Entries moved by one towards the end or the start, a zero in the free place."""
        A, n, D = x.shape
        zero = ops.zeros((A, 1, D), x.dtype)
        if n == 1:
            return zero
        if later:
            return ops.concat((zero, ops.slice(x, (0, 0, 0), (A, n - 1, D))), 1)
        return ops.concat((ops.slice(x, (0, 1, 0), (A, n - 1, D)), zero), 1)

    def construct(self, x: Tensor) -> Tensor:
        even, odd, neighbour = self.three(x)
        return ops.maximum(ops.maximum(even, odd), neighbour)

    def bprop(self, x, out, grad):
        # The dependence keeps the compiler from holding the slices of the forward pass until now.
        even, odd, _ = self.three(ops.depend(x, grad))
        zeros = ops.zeros_like(grad)
        grad_even = ops.select(even >= out, grad, zeros)
        grad_odd = ops.select(odd >= out, grad - grad_even, zeros)
        grad_neighbour = self.shift(grad - grad_even - grad_odd, not self.before)
        if self.before:
            grad_odd = grad_odd + grad_neighbour
        else:
            grad_even = grad_even + grad_neighbour
        return (ops.concat((grad_even, grad_odd), -1).reshape(x.shape),)


class MaxPool2d(nn.Cell):
    """3x3 stride 2 pooling of a map that holds nothing below zero (it comes out of a ReLU).

    Zero padding is then the same as no padding. ``first`` rows and columns go before the map: 1 is the authors' and
    torch's ``padding=1``, 0 the zoo's ``pad_mode="same"`` on even sides, whose windows lie one pixel further.
    """

    def __init__(self, first: int = 1):
        super().__init__()
        self.first = first
        self.composed = current_form() == "composed"
        self.pool = ops.MaxPool(kernel_size=3, strides=2, pad_mode="valid")
        self.from_previous, self.from_next = _MaxOfThree(True), _MaxOfThree(False)

    def construct(self, feature_map: Tensor) -> Tensor:
        if self.composed:
            B, Y, X, D = feature_map.shape
            rows = self.pool_axis(_zero_border(feature_map, 1, 0, Y % 2).reshape(B, Y + Y % 2, X * D), Y)
            rows = _zero_border(rows.reshape(B, (Y + 1) // 2, X, D), 2, 0, X % 2)
            columns = self.pool_axis(rows.reshape(B * ((Y + 1) // 2), X + X % 2, D), X)
            return columns.reshape(B, (Y + 1) // 2, (X + 1) // 2, D)
        Y, X = feature_map.shape[2:]
        # Each side needs 2 * ceil(n / 2) + 1 entries; odd sides get one zero at either end.
        first_Y, first_X = (1 if Y % 2 else self.first), (1 if X % 2 else self.first)
        border = ((0, 0), (0, 0), (first_Y, 1 + Y % 2 - first_Y), (first_X, 1 + X % 2 - first_X))
        return self.pool(nn.Pad(border)(feature_map))

    def pool_axis(self, x: Tensor, side: int) -> Tensor:
        """Pool the middle axis, whose length was ``side`` before it was made even."""
        return self.from_previous(x) if self.first == 1 or side % 2 else self.from_next(x)
