"""One update of the weights: loss, gradients, clipping, optimizer, moving average; of one batch or of several.

Shape letters: B batch, C channels, Y X rows and columns, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from src.device import num_ranks
from src.models.kernels import GlobalNorm
from src.trainers.collective import MeanOverRanks
from src.trainers.ema import MovingAverage
from src.trainers.optimizers import Optimizer
from src.trainers.teacher import Teacher

# Below float32's largest number, 3.4e38.
_ALMOST_INFINITE = 3e38


class Control(NamedTuple):
    """Numbers of one update besides the optimizer's.

    Args:
        scale: the loss is multiplied by it, and the gradients divided.
        ema_decay: share of the moving average that stays.
        wish: 1.0 where this process was asked to stop.
    """

    scale: float = 1.0
    ema_decay: float = 0.0
    wish: float = 0.0


class Outcome(NamedTuple):
    """What came of an update, the same on every rank.

    Args:
        loss: mean over all images.
        grad_norm: global norm before clipping, without the loss scale.
        wish: above 0 where any rank was asked to stop.
    """

    loss: float
    grad_norm: float
    wish: float


class _Step(nn.Cell):
    """The two halves of an update, for graphs of one or of both.

    Args:
        net: called as ``net(image_BCYX, key_B)``.
        loss: called as ``loss(logits_BK, target_BK)``, with a teacher as ``loss(logits_BK, target_BK, theirs_BK)``.
        optimizer: holds the weights that get gradients.
        clip_norm: largest global gradient norm, None for no clipping.
        scales: whether losses are scaled at all.
        average: follows the weights, or None.
        teacher: gives the third argument of the loss, or None.
        sums: of the gradients of several batches, where an update has several.
    """

    def __init__(
        self,
        net: nn.Cell,
        loss: nn.Cell,
        optimizer: Optimizer,
        *,
        clip_norm: float | None = None,
        scales: bool = False,
        average: MovingAverage | None = None,
        teacher: Teacher | None = None,
        sums: ParameterTuple | None = None,
    ):
        # Without auto_prefix the parameters keep the network's own names.
        super().__init__(auto_prefix=False)
        self.net, self.loss, self.optimizer, self.clip_norm = net, loss, optimizer, clip_norm
        self.scales, self.average, self.teacher, self.sums = scales, average, teacher, sums
        self.num_ranks = num_ranks()
        self.value_and_grad = ops.value_and_grad(self.forward, None, optimizer.weights, has_aux=True)
        self.global_norm = GlobalNorm()
        # The loss and the wish to stop go with the gradients.
        self.mean_over_ranks = MeanOverRanks((*(weight.size for weight in optimizer.weights), 1, 1))
        self.still_n = Tensor(optimizer.still())
        # A loop over hundreds of gradients exceeds the compiler's depth of calls.
        self.map = ops.HyperMap()
        self.set_train(True)
        if teacher is not None:
            teacher.set_train(False)

    def forward(self, image_BCYX: Tensor, target_BK: Tensor, key_B: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of a batch, times ``scale`` and as it is."""
        logits_BK = self.net(image_BCYX, key_B)
        if self.teacher is None:
            loss = self.loss(logits_BK, target_BK)
        else:
            loss = self.loss(logits_BK, target_BK, self.teacher(image_BCYX))
        return (loss * scale if self.scales else loss), loss

    def update(self, loss: Tensor, gradients: tuple[Tensor, ...], rates_n: Tensor, control_3: Tensor) -> tuple:
        """Move the weights by gradients of the scaled loss; with a scale, not if they overflow."""
        scale, ema_decay, wish = control_3[0], control_3[1], control_3[2]
        if self.num_ranks > 1:
            means = self.mean_over_ranks((*gradients, loss, wish))
            gradients, loss, wish = means[:-2], means[-2], means[-1]
        norm = self.global_norm(gradients)
        if self.scales:
            norm = norm / scale
        factor = None
        if self.clip_norm is not None:
            # As torch.nn.utils.clip_grad_norm_, epsilon included.
            factor = ops.minimum(self.clip_norm / (norm + 1e-6), ops.ones_like(norm))
        if self.scales:
            # No branch of the graph: it costs 9 % on a CPU, and keeps buffers of its own for the moments.
            is_finite = ops.logical_and(ops.isfinite(norm), ops.isfinite(loss))
            factor = ops.where(is_finite, (1.0 if factor is None else factor) / scale, ops.zeros_like(norm))
            gradients = self.map(ops.partial(self.finite_part, factor), gradients)
            go = is_finite.astype(ms.float32)
            rates_n = rates_n * go + self.still_n * (1.0 - go)
            ema_decay = ema_decay * go + (1.0 - go)
        elif factor is not None:
            gradients = self.map(ops.partial(ops.mul, factor), gradients)
        updated = self.optimizer(gradients, rates_n)
        if self.average is not None:
            updated = self.average(ops.depend(ema_decay, updated))
        return ops.depend(loss, updated), norm, wish

    def finite_part(self, factor: Tensor, gradient: Tensor) -> Tensor:
        """A gradient times a factor, with zeros for what is not finite."""
        # Element by element: a Select by one condition for all ends the compiler of fused kernels.
        is_finite = ops.less(ops.abs(gradient), _ALMOST_INFINITE)
        return ops.select(is_finite, gradient, ops.zeros_like(gradient)) * factor


class TrainStep(_Step):
    """``(image_BCYX, target_BK, key_B, rates_n, control_3) -> (loss, grad_norm, wish)``: an update from one batch."""

    def construct(
        self, image_BCYX: Tensor, target_BK: Tensor, key_B: Tensor, rates_n: Tensor, control_3: Tensor
    ) -> tuple:
        (_, loss), gradients = self.value_and_grad(image_BCYX, target_BK, key_B, control_3[0])
        return self.update(loss, gradients, rates_n, control_3)


class AccumulateStep(_Step):
    """``(image_BCYX, target_BK, key_B, scale) -> loss``: adds a batch's gradients, of the scaled loss, to ``sums``."""

    def construct(self, image_BCYX: Tensor, target_BK: Tensor, key_B: Tensor, scale: Tensor) -> Tensor:
        (_, loss), gradients = self.value_and_grad(image_BCYX, target_BK, key_B, scale)
        return ops.depend(loss, self.map(ops.assign_add, self.sums, gradients))


class AccumulatedUpdate(_Step):
    """``(loss, rates_n, control_3) -> (loss, grad_norm, wish)``: an update from the sums, which are then zero again."""

    def construct(self, loss: Tensor, rates_n: Tensor, control_3: Tensor) -> tuple:
        loss, norm, wish = self.update(loss, self.sums, rates_n, control_3)
        cleared = self.map(self.clear, ops.depend(self.sums, loss))
        return ops.depend(loss, cleared), norm, wish

    def clear(self, total: Parameter) -> Tensor:
        """Set to zero."""
        return ops.assign(total, ops.zeros_like(total))


class Updates:
    """Carries out updates of one or more batches each.

    Args:
        net: as `_Step` takes it, like the next two.
        loss: with the teacher's logits, if there is one.
        optimizer: holds the weights.
        accumulation: batches of an update.
        options: what `_Step` takes by name.
    """

    def __init__(self, net: nn.Cell, loss: nn.Cell, optimizer: Optimizer, accumulation: int = 1, **options: object):
        self.accumulation = accumulation
        if accumulation == 1:
            self.whole = TrainStep(net, loss, optimizer, **options)
            return
        pairs = zip(optimizer.names, optimizer.weights, strict=True)
        options["sums"] = ParameterTuple(
            [Parameter(np.zeros(weight.shape, np.float32), f"sum.{name}", False) for name, weight in pairs]
        )
        # The gradient of a mean is the mean of gradients: each batch's loss counts one part of so many.
        self.part = AccumulateStep(net, loss, optimizer, **{**options, "scales": True})
        self.end = AccumulatedUpdate(net, loss, optimizer, **options)

    def __call__(
        self, batches: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], rates_n: np.ndarray, control: Control
    ) -> Outcome:
        """Update the weights.

        Args:
            batches: as many as ``accumulation``: images (B, 3, Y, X), targets (B, K), both float32; keys (B,) int32.
                They are not copied, and not looked at once the next one is given or this has returned.
            rates_n: of the optimizer.
            control: other numbers.
        """
        numbers = Tensor(rates_n), Tensor(np.array(control, np.float32))
        if self.accumulation == 1:
            (batch,) = batches
            return Outcome(*map(float, self.whole(*map(ms.from_numpy, batch), *numbers)))
        scale = Tensor(np.float32(control.scale / self.accumulation))
        # To read a loss is to wait until its batch is no longer needed.
        losses = [float(self.part(*map(ms.from_numpy, batch), scale)) for batch in batches]
        return Outcome(*map(float, self.end(Tensor(np.float32(np.mean(losses))), *numbers)))
