"""Targets and losses. One form of label in training: a distribution over the classes.

Shape letters: B batch, K classes.
"""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn, ops


def smoothed_targets(label_B: np.ndarray, num_classes: int, smoothing: float) -> np.ndarray:
    """Labels as float32 (B, K) rows that sum to 1; ``smoothing`` is spread over all K classes, as timm and torch do."""
    target_BK = np.full((len(label_B), num_classes), smoothing / num_classes, np.float32)
    target_BK[np.arange(len(label_B)), label_B] += np.float32(1.0 - smoothing)
    return target_BK


class SoftTargetCrossEntropy(nn.Cell):
    """Mean over the batch of ``-sum(target * log_softmax(logits))``; of two heads, of their mean."""

    def __init__(self):
        super().__init__()
        self.log_softmax = nn.LogSoftmax(-1)

    def construct(self, logits_BK: Tensor | tuple[Tensor, Tensor], target_BK: Tensor) -> Tensor:
        if isinstance(logits_BK, tuple):
            logits_BK = (logits_BK[0] + logits_BK[1]) * 0.5
        return -ops.mean(ops.sum(target_BK * self.log_softmax(logits_BK), -1))
