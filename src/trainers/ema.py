"""An exponential moving average of the weights, which often generalises better than the last ones.

``average = decay * average + (1 - decay) * weight`` after every update, as timm's ModelEmaV3 and torch's
``swa_utils.get_ema_multi_avg_fn``.
"""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

PREFIX = "ema."


class MovingAverage(nn.Cell):
    """``(decay) -> ...``: moves the averages towards the weights.

    Args:
        names: of the weights.
        weights: what is followed; the averages begin with their values.
    """

    def __init__(self, names: Sequence[str], weights: ParameterTuple):
        super().__init__(auto_prefix=False)
        self.weights = weights
        pairs = zip(names, weights, strict=True)
        self.averages = ParameterTuple(
            [Parameter(weight.asnumpy(), name=f"{PREFIX}{name}", requires_grad=False) for name, weight in pairs]
        )
        # A loop over hundreds of weights exceeds the compiler's depth of calls.
        self.map = ops.HyperMap()

    def construct(self, decay: Tensor) -> tuple:
        return self.map(ops.partial(self.follow, decay), self.averages, self.weights)

    def follow(self, decay: Tensor, average: Parameter, weight: Parameter) -> Tensor:
        """One weight."""
        return ops.assign(average, average * decay + weight * (1.0 - decay))

    def restart(self) -> None:
        """Take the weights' present values."""
        for average, weight in zip(self.averages, self.weights, strict=True):
            average.set_data(Tensor(weight.asnumpy()))

    def state(self) -> dict[str, Parameter]:
        """Averages by name, for checkpoints."""
        return {average.name: average for average in self.averages}


def decay_at(update: int, decay: float, warm_up: bool) -> float:
    """The decay of an update, counted from 0.

    With a warm-up it is at most (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage: the first weights,
    which are noise, are soon forgotten.
    """
    return min(decay, (1 + update) / (10 + update)) if warm_up else decay
