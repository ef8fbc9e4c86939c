"""Update rules, each as one graph over all weights: adamw, adam_weight_decay, momentum, sgd, lamb, lion, muon.

The learning rate and what depends on the step are computed in float64 outside the graph (`Optimizer.rates`); they
enter as one small float32 vector. MindSpore's fused operators are used where they are right on 2.10: ops.Adam with
its own corrections switched off, ops.ApplyMomentum. Its optimizers (nn.AdamWeightDecay, nn.Momentum, nn.Lamb) are
not, since they take their rates from a schedule inside of the graph; mint.optim has no CPU kernels.
"""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from src.models.kernels import GlobalNorm
from src.schema import OptimConfig
from src.trainers.parameter_groups import Member, freeze, members_of


def build_optimizer(net: nn.Cell, config: OptimConfig) -> Optimizer:
    """The optimizer of a recipe over the trainable parameters of a network; freezes what ``config.freeze`` names.

    Raises:
        ConfigError: a pattern to freeze that matches nothing, or all.
    """
    freeze(net, config.freeze)
    return OPTIMIZERS[config.optimizer](members_of(net, config), config)


class Optimizer(nn.Cell):
    """``(gradients, rates_n) -> done``: updates the weights and moments in place, by `update` of each weight.

    Args:
        members: what is trained; its order is that of the gradients.
        config: the recipe's constants.
        slots: what each weight's moments are called.

    Attributes:
        weights: what gradients are to be taken of.
        moments: zeros like the weights, named ``SLOT.WEIGHT``, for each slot.
    """

    def __init__(self, members: list[Member], config: OptimConfig, slots: tuple[str, ...]):
        # Without auto_prefix the parameters keep the network's own names.
        super().__init__(auto_prefix=False)
        self.config = config
        self.names = tuple(member.name for member in members)
        self.weights = ParameterTuple([member.parameter for member in members])
        self.is_decayed = tuple(member.is_decayed for member in members)
        # A rate per distinct scale enters the graph; a weight knows which one is its own.
        self.scales = tuple(sorted({member.scale for member in members}))
        self.layer = tuple(self.scales.index(member.scale) for member in members)
        self.num_layers = len(self.scales)
        self.moments = tuple(
            ParameterTuple([_zeros(f"{slot}.{member.name}", member.parameter) for member in members]) for slot in slots
        )
        # A loop over hundreds of weights exceeds the compiler's depth of calls.
        self.map = ops.HyperMap()

    def rates(self, step: int, learning_rate: float) -> np.ndarray:
        """What `update` needs in one update, counted from 0: a float32 vector."""
        raise NotImplementedError

    def still(self) -> np.ndarray:
        """Such a vector with which gradients of zero leave weights and moments exactly as they are."""
        raise NotImplementedError

    def state(self) -> dict[str, Parameter]:
        """Moments by name, for checkpoints."""
        return {moment.name: moment for moments in self.moments for moment in moments}

    def layer_rates(self, learning_rate: float) -> np.ndarray:
        """Learning rate of each distinct scale, in float64."""
        return learning_rate * np.array(self.scales)

    def construct(self, gradients: tuple[Tensor, ...], rates_n: Tensor) -> tuple:
        update = ops.partial(self.update, [rates_n[index] for index in range(rates_n.shape[0])])
        return self.map(update, self.layer, self.is_decayed, self.weights, *self.moments, gradients)


class AdamW(Optimizer):
    """Decoupled weight decay, https://arxiv.org/abs/1711.05101, step for step torch.optim.AdamW.

    The update is MindSpore's fused Adam. It takes powers of beta in float32, whose 1 - 0.999^t is off by 1e-5, and adds
    epsilon before the bias correction: so the corrections are computed in float64 by `rates` and enter through the
    learning rate and epsilon, with the kernel's own corrections switched off by powers of zero.
    """

    def __init__(self, members: list[Member], config: OptimConfig):
        super().__init__(members, config, ("moment1", "moment2"))
        self.beta1, self.beta2 = config.beta
        self.adam = ops.Adam()

    def rates(self, step: int, learning_rate: float) -> np.ndarray:
        """Bias-corrected rate of each layer, decay factor of each layer, bias-corrected epsilon, betas."""
        correction1, correction2 = self.corrections(step)
        rates = self.layer_rates(learning_rate)
        decays = 1.0 - rates * self.config.weight_decay
        constants = self.config.eps * correction2, self.beta1, self.beta2
        return np.array([*rates * correction2 / correction1, *decays, *constants], np.float32)

    def still(self) -> np.ndarray:
        """No step, no decay, and moments that forget nothing."""
        return np.array([0.0] * self.num_layers + [1.0] * self.num_layers + [self.config.eps, 1.0, 1.0], np.float32)

    def corrections(self, step: int) -> tuple[float, float]:
        """Of the first moment, and of the root of the second one."""
        return 1.0 - self.beta1 ** (step + 1), (1.0 - self.beta2 ** (step + 1)) ** 0.5

    def update(
        self,
        numbers: list[Tensor],
        layer: int,
        is_decayed: bool,
        weight: Parameter,
        moment1: Parameter,
        moment2: Parameter,
        gradient: Tensor,
    ) -> bool:
        """One weight."""
        epsilon, beta1, beta2 = numbers[2 * self.num_layers : 2 * self.num_layers + 3]
        if is_decayed:
            ops.assign(weight, weight * numbers[self.num_layers + layer])
        self.adam(weight, moment1, moment2, 0.0, 0.0, numbers[layer], beta1, beta2, epsilon, gradient)
        return True


class AdamWeightDecay(AdamW):
    """The zoo's AdamW: MindSpore's nn.AdamWeightDecay, which has no bias correction; its first steps are longer."""

    def corrections(self, step: int) -> tuple[float, float]:
        """None."""
        return 1.0, 1.0


class Momentum(Optimizer):
    """Stochastic gradient descent with momentum, step for step torch.optim.SGD and MindSpore's nn.Momentum.

    g = gradient + weight_decay * w;  m = momentum * m + g;  w = w - rate * m, or w - rate * (g + momentum * m) with
    ``nesterov``. So the decay is L2 regularisation, as in the zoo's ViT: it passes through the momentum.
    """

    def __init__(self, members: list[Member], config: OptimConfig):
        super().__init__(members, config, ("moments",))
        self.nesterov = config.nesterov
        self.apply_momentum = ops.ApplyMomentum()

    def rates(self, step: int, learning_rate: float) -> np.ndarray:
        """Rate of each layer, weight decay, momentum."""
        rates = self.layer_rates(learning_rate)
        return np.array([*rates, self.config.weight_decay, self.config.momentum], np.float32)

    def still(self) -> np.ndarray:
        """No step, and a sum that neither forgets nor takes in the decay."""
        return np.array([0.0] * self.num_layers + [0.0, 1.0], np.float32)

    def update(
        self,
        numbers: list[Tensor],
        layer: int,
        is_decayed: bool,
        weight: Parameter,
        accumulation: Parameter,
        gradient: Tensor,
    ) -> bool:
        """One weight."""
        weight_decay, momentum = numbers[self.num_layers :]
        if is_decayed:
            gradient = gradient + weight_decay * weight
        if self.nesterov:
            # The fused operator has a flag for this, which has no effect on a CPU.
            moment = momentum * accumulation + gradient
            ops.assign(weight, weight - numbers[layer] * (gradient + momentum * moment))
            ops.assign(accumulation, moment)
        else:
            self.apply_momentum(weight, accumulation, numbers[layer], gradient, momentum)
        return True


class Lamb(Optimizer):
    """https://arxiv.org/abs/1904.00962 algorithm 2 with Adam's bias correction, step for step timm's Lamb.

    As there and in apex, weights without decay move as with Adam, by no ratio of norms. That both clip the global norm
    to 1 is the key ``clip_global_norm_value`` here.
    """

    def __init__(self, members: list[Member], config: OptimConfig):
        super().__init__(members, config, ("moment1", "moment2"))
        self.beta1, self.beta2 = config.beta
        self.weight_decay, self.eps = config.weight_decay, config.eps
        self.norm = GlobalNorm()

    def rates(self, step: int, learning_rate: float) -> np.ndarray:
        """Rate of each layer, reciprocals of the corrections of moment 1 and of the root of moment 2, betas."""
        correction1, correction2 = 1.0 - self.beta1 ** (step + 1), (1.0 - self.beta2 ** (step + 1)) ** 0.5
        constants = 1.0 / correction1, 1.0 / correction2, self.beta1, self.beta2
        return np.array([*self.layer_rates(learning_rate), *constants], np.float32)

    def still(self) -> np.ndarray:
        """No step, and moments that forget nothing."""
        return np.array([0.0] * self.num_layers + [1.0] * 4, np.float32)

    def update(
        self,
        numbers: list[Tensor],
        layer: int,
        is_decayed: bool,
        weight: Parameter,
        moment1: Parameter,
        moment2: Parameter,
        gradient: Tensor,
    ) -> bool:
        """One weight."""
        scale1, scale2, beta1, beta2 = numbers[self.num_layers :]
        mean = beta1 * moment1 + (1.0 - beta1) * gradient
        square = beta2 * moment2 + (1.0 - beta2) * (gradient * gradient)
        direction = mean * scale1 / (ops.sqrt(square) * scale2 + self.eps)
        if is_decayed and self.weight_decay > 0.0:
            direction = direction + self.weight_decay * weight
            direction = direction * self.trust_ratio(weight, direction)
        ops.assign(weight, weight - numbers[layer] * direction)
        ops.assign(moment1, mean)
        ops.assign(moment2, square)
        return True

    def trust_ratio(self, weight: Tensor, direction: Tensor) -> Tensor:
        """Norm of the weight over that of the step; 1 where one of them is 0."""
        weight_norm, step_norm = self.norm((weight,)), self.norm((direction,))
        both = ops.logical_and(weight_norm > 0.0, step_norm > 0.0)
        return ops.select(both, weight_norm / step_norm, ops.ones_like(weight_norm))


class Lion(Optimizer):
    """Sign of an interpolated momentum, https://arxiv.org/abs/2302.06675 algorithm 2, step for step timm's Lion."""

    def __init__(self, members: list[Member], config: OptimConfig):
        super().__init__(members, config, ("moment1",))
        self.beta1, self.beta2 = config.beta

    def rates(self, step: int, learning_rate: float) -> np.ndarray:
        """Rate of each layer, decay factor of each layer, the second beta."""
        rates = self.layer_rates(learning_rate)
        return np.array([*rates, *(1.0 - rates * self.config.weight_decay), self.beta2], np.float32)

    def still(self) -> np.ndarray:
        """No step, no decay, and a moment that forgets nothing."""
        return np.array([0.0] * self.num_layers + [1.0] * (self.num_layers + 1), np.float32)

    def update(
        self,
        numbers: list[Tensor],
        layer: int,
        is_decayed: bool,
        weight: Parameter,
        moment1: Parameter,
        gradient: Tensor,
    ) -> bool:
        """One weight."""
        beta2 = numbers[2 * self.num_layers]
        direction = ops.sign(self.beta1 * moment1 + (1.0 - self.beta1) * gradient)
        kept = weight * numbers[self.num_layers + layer] if is_decayed else weight
        ops.assign(weight, kept - numbers[layer] * direction)
        ops.assign(moment1, beta2 * moment1 + (1.0 - beta2) * gradient)
        return True


class Muon(AdamW):
    """Orthogonalised momentum for the matrices before the head, AdamW for all other tensors.

    https://kellerjordan.github.io/posts/muon/, step for step torch.optim.Muon with adjust_lr_fn "match_rms_adamw"
    (https://arxiv.org/abs/2502.16982 eq. 4: steps are as long as AdamW's, so that one rate serves both); it iterates in
    float32 instead of bfloat16. The author's settings are ``momentum`` 0.95 and ``nesterov`` true.
    """

    def __init__(self, members: list[Member], config: OptimConfig):
        super().__init__(members, config)
        self.is_matrix = tuple(member.is_matrix for member in members)
        # A matrix has one moment; its second place in the map holds the same again.
        triples = zip(self.is_matrix, *self.moments, strict=True)
        self.moments = self.moments[0], tuple(one if is_matrix else other for is_matrix, one, other in triples)
        self.nesterov = config.nesterov
        self.norm = GlobalNorm()

    def rates(self, step: int, learning_rate: float) -> np.ndarray:
        """AdamW's, then the momentum and the uncorrected rate of each layer."""
        plain = self.layer_rates(learning_rate)
        return np.concatenate([super().rates(step, learning_rate), [self.config.momentum, *plain]]).astype(np.float32)

    def still(self) -> np.ndarray:
        """As AdamW's, and a momentum that forgets nothing."""
        return np.concatenate([super().still(), [1.0], [0.0] * self.num_layers]).astype(np.float32)

    def construct(self, gradients: tuple[Tensor, ...], rates_n: Tensor) -> tuple:
        update = ops.partial(self.update_either, [rates_n[index] for index in range(rates_n.shape[0])])
        return self.map(update, self.is_matrix, self.layer, self.is_decayed, self.weights, *self.moments, gradients)

    def update_either(
        self,
        numbers: list[Tensor],
        is_matrix: bool,
        layer: int,
        is_decayed: bool,
        weight: Parameter,
        moment1: Parameter,
        moment2: Parameter,
        gradient: Tensor,
    ) -> bool:
        """One weight, by its kind."""
        if not is_matrix:
            return self.update(numbers, layer, is_decayed, weight, moment1, moment2, gradient)
        momentum, *plain = numbers[2 * self.num_layers + 3 :]
        moment = momentum * moment1 + gradient
        direction = gradient + momentum * moment if self.nesterov else moment
        rate = plain[layer] * (0.2 * max(weight.shape) ** 0.5)
        kept = weight * numbers[self.num_layers + layer] if is_decayed else weight
        ops.assign(weight, kept - rate * self.orthogonal(direction))
        ops.assign(moment1, moment)
        return True

    def orthogonal(self, x_MD: Tensor) -> Tensor:
        """About U V' of the singular value decomposition: five steps of Newton and Schulz's iteration."""
        is_tall = x_MD.shape[0] > x_MD.shape[1]
        if is_tall:
            x_MD = x_MD.T
        x_MD = x_MD / ops.maximum(self.norm((x_MD,)), 1e-7)
        for _ in range(5):
            gram_MM = ops.matmul(x_MD, x_MD.T)
            change_MM = -4.7750 * gram_MM + 2.0315 * ops.matmul(gram_MM, gram_MM)
            x_MD = 3.4445 * x_MD + ops.matmul(change_MM, x_MD)
        return x_MD.T if is_tall else x_MD


OPTIMIZERS = {
    "adamw": AdamW,
    "adam_weight_decay": AdamWeightDecay,
    "momentum": Momentum,
    "sgd": Momentum,
    "lamb": Lamb,
    "lion": Lion,
    "muon": Muon,
}


def _zeros(name: str, like: Parameter) -> Parameter:
    return Parameter(Tensor(np.zeros(like.shape, np.float32)), name=name, requires_grad=False)
