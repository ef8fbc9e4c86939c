"""Losses. One form of label in training: a distribution over the classes.

Shape letters: B batch, K classes.
"""

from __future__ import annotations

from mindspore import Tensor, nn, ops


class SoftTargetCrossEntropy(nn.Cell):
    """Mean over the batch of ``-sum(target * log_softmax(logits))``; of two heads, of their mean."""

    def __init__(self):
        super().__init__()
        self.log_softmax = nn.LogSoftmax(-1)

    def construct(self, logits_BK: Tensor | tuple[Tensor, Tensor], target_BK: Tensor) -> Tensor:
        if isinstance(logits_BK, tuple):
            logits_BK = (logits_BK[0] + logits_BK[1]) * 0.5
        return -ops.mean(ops.sum(target_BK * self.log_softmax(logits_BK), -1))
