"""Losses. One form of label in training: a distribution over the classes.

Shape letters: B batch, K classes.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

Logits = Tensor | tuple[Tensor, Tensor]


class SoftTargetCrossEntropy(nn.Cell):
    """Mean over the batch of ``-sum(target * log_softmax(logits))``; of two heads, of their mean."""

    def __init__(self):
        super().__init__()
        self.log_softmax = nn.LogSoftmax(-1)

    def construct(self, logits_BK: Logits, target_BK: Tensor) -> Tensor:
        if isinstance(logits_BK, tuple):
            logits_BK = (logits_BK[0] + logits_BK[1]) * 0.5
        return -ops.mean(ops.sum(target_BK * self.log_softmax(logits_BK.astype(ms.float32)), -1))


class DistillationLoss(nn.Cell):
    """DeiT's loss with a teacher, https://arxiv.org/abs/2012.12877 eq. 2 and 3; of authors' code ``losses.py``.

    ``(1 - alpha) * cross entropy of the class head + alpha * distance of the distillation head from the teacher``. A
    network with one head uses it for both.

    Args:
        kind: hard, the cross entropy with the teacher's choice; or soft, the Kullback-Leibler divergence of the two
            distributions at a temperature, times its square, over B x K as in the authors' code.
        alpha: share of the teacher.
        tau: temperature of soft.
    """

    def __init__(self, kind: str, alpha: float, tau: float):
        super().__init__()
        self.is_hard, self.alpha, self.tau = kind == "hard", alpha, tau
        self.cross_entropy = SoftTargetCrossEntropy()
        self.log_softmax, self.softmax = nn.LogSoftmax(-1), nn.Softmax(-1)

    def construct(self, logits_BK: Logits, target_BK: Tensor, teacher_BK: Tensor) -> Tensor:
        if isinstance(logits_BK, tuple):
            class_BK, distilled_BK = logits_BK
        else:
            class_BK, distilled_BK = logits_BK, logits_BK
        distilled_BK, teacher_BK = distilled_BK.astype(ms.float32), teacher_BK.astype(ms.float32)
        own = self.cross_entropy(class_BK, target_BK)
        return own * (1.0 - self.alpha) + self.distance(distilled_BK, teacher_BK) * self.alpha

    def distance(self, logits_BK: Tensor, teacher_BK: Tensor) -> Tensor:
        """From the teacher's answers."""
        if self.is_hard:
            chosen_BK = ops.one_hot(teacher_BK.argmax(-1), teacher_BK.shape[1], Tensor(1.0), Tensor(0.0))
            return self.cross_entropy(logits_BK, chosen_BK)
        log_BK, teacher_log_BK = self.log_softmax(logits_BK / self.tau), self.log_softmax(teacher_BK / self.tau)
        divergence = ops.sum(self.softmax(teacher_BK / self.tau) * (teacher_log_BK - log_BK))
        return divergence * (self.tau**2 / (logits_BK.shape[0] * logits_BK.shape[1]))
