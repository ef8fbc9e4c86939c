"""One optimizer step as one graph: loss, gradients, clipping, update.

Shape letters: B batch, C channels, Y X rows and columns, K classes.
"""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from src.models.kernels import GlobalNorm
from src.trainers.optimizers import Optimizer


class TrainStep(nn.Cell):
    """``(image_BCYX, target_BK, key_B, rates_n) -> (loss, gradient norm before clipping)``; updates the weights.

    Args:
        net: called as ``net(image_BCYX, key_B)``.
        loss: called as ``loss(logits_BK, target_BK)``.
        optimizer: holds the weights that get gradients.
        clip_norm: largest global gradient norm, None for no clipping.
    """

    def __init__(self, net: nn.Cell, loss: nn.Cell, optimizer: Optimizer, clip_norm: float | None):
        # Without auto_prefix the parameters keep the network's own names.
        super().__init__(auto_prefix=False)
        self.net, self.loss, self.optimizer, self.clip_norm = net, loss, optimizer, clip_norm
        self.value_and_grad = ops.value_and_grad(self.forward, None, optimizer.weights)
        self.global_norm = GlobalNorm()
        # A loop over hundreds of gradients exceeds the compiler's depth of calls.
        self.map = ops.HyperMap()
        self.set_train(True)

    def forward(self, image_BCYX: Tensor, target_BK: Tensor, key_B: Tensor) -> Tensor:
        """Loss of a batch."""
        return self.loss(self.net(image_BCYX, key_B), target_BK)

    def construct(self, image_BCYX: Tensor, target_BK: Tensor, key_B: Tensor, rates_n: Tensor) -> tuple:
        loss, gradients = self.value_and_grad(image_BCYX, target_BK, key_B)
        norm = self.global_norm(gradients)
        if self.clip_norm is not None:
            # As torch.nn.utils.clip_grad_norm_, epsilon included.
            scale = ops.minimum(self.clip_norm / (norm + 1e-6), ops.ones_like(norm))
            gradients = self.map(ops.partial(ops.mul, scale), gradients)
        updated = self.optimizer(gradients, rates_n)
        return ops.depend(loss, updated), norm
