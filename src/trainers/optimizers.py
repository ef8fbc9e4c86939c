"""AdamW and the split of parameters into decayed and not decayed ones."""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from src.schema import OptimConfig


def split_by_decay(net: nn.Cell) -> tuple[list[str], list[str]]:
    """Names of trainable parameters: (decayed, not decayed).

    Vectors (biases, norms) and what the model names in ``no_weight_decay`` are not decayed, as in timm's
    ``param_groups_weight_decay``.
    """
    skip = net.no_weight_decay()
    decayed, kept = [], []
    for name, parameter in net.parameters_and_names():
        if parameter.requires_grad:
            (kept if parameter.ndim <= 1 or name in skip else decayed).append(name)
    return decayed, kept


class AdamW(nn.Cell):
    """Decoupled weight decay, https://arxiv.org/abs/1711.05101, step for step torch.optim.AdamW.

    The update is MindSpore's fused Adam. It takes powers of beta in float32, whose 1 - 0.999^t is off by 1e-5, and adds
    epsilon before the bias correction: so the corrections are computed in float64 by `rates` and enter through the
    learning rate and epsilon, with the kernel's own corrections switched off by powers of zero.
    """

    def __init__(self, net: nn.Cell, config: OptimConfig):
        super().__init__(auto_prefix=False)
        self.config = config
        decayed = set(split_by_decay(net)[0])
        named = [(name, parameter) for name, parameter in net.parameters_and_names() if parameter.requires_grad]
        self.weights = ParameterTuple([parameter for _, parameter in named])
        self.is_decayed = tuple(name in decayed for name, _ in named)
        self.moment1 = ParameterTuple([_zeros(f"moment1.{name}", weight) for name, weight in named])
        self.moment2 = ParameterTuple([_zeros(f"moment2.{name}", weight) for name, weight in named])
        self.beta1, self.beta2 = config.beta
        self.adam = ops.Adam()
        # A loop over hundreds of weights exceeds the compiler's depth of calls.
        self.map = ops.HyperMap()

    def rates(self, step: int, learning_rate: float) -> np.ndarray:
        """What `construct` needs of one step, counted from 0: bias-corrected rate and epsilon, and the decay factor."""
        correction1 = 1.0 - self.beta1 ** (step + 1)
        correction2 = (1.0 - self.beta2 ** (step + 1)) ** 0.5
        rate = learning_rate * correction2 / correction1
        decay = 1.0 - learning_rate * self.config.weight_decay
        return np.array([rate, self.config.eps * correction2, decay], np.float32)

    def construct(self, gradients: tuple[Tensor, ...], rates_3: Tensor) -> tuple:
        update = ops.partial(self.update, rates_3[0], rates_3[1], rates_3[2])
        return self.map(update, self.is_decayed, self.weights, self.moment1, self.moment2, gradients)

    def update(
        self,
        rate: Tensor,
        epsilon: Tensor,
        decay: Tensor,
        is_decayed: bool,
        weight: Parameter,
        moment1: Parameter,
        moment2: Parameter,
        gradient: Tensor,
    ) -> bool:
        """One weight."""
        if is_decayed:
            ops.assign(weight, weight * decay)
        self.adam(weight, moment1, moment2, 0.0, 0.0, rate, self.beta1, self.beta2, epsilon, gradient)
        return True

    def state(self) -> dict[str, Parameter]:
        """Moments by name, for checkpoints."""
        return {moment.name: moment for moment in (*self.moment1, *self.moment2)}


def _zeros(name: str, like: Parameter) -> Parameter:
    return Parameter(Tensor(np.zeros(like.shape, np.float32)), name=name, requires_grad=False)
