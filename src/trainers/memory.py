"""How much memory a process needs to train: parameters exactly, the rest by a rule that was measured.

    total = MindSpore itself + weights, gradients, moments + batch * 4 bytes * 6.8 * outputs of the layers with weights

The two numbers are a least-squares fit to the peaks of resident memory in docs/speed.md: 11 networks of all families,
on a CPU in float32. The rule is within a factor of 1.3 of each. On other devices it was not measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mindspore import Parameter, nn

from src.models.catalog import layer_outputs
from src.trainers.training_run import Trainer

# Bytes that a process has before it has a network, and float32 numbers that are kept of each output until its gradient.
_PROCESS, _KEPT = 632 * 2**20, 6.8
FACTOR = 1.3


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one process.

    Attributes:
        process: MindSpore itself.
        parameters: weights, gradients, the optimizer's moments, moving average, teacher.
        activations: what the backward pass needs of the forward pass, and room to work in.
    """

    process: int
    parameters: int
    activations: int

    @property
    def total(self) -> int:
        """All together."""
        return self.process + self.parameters + self.activations


def memory_estimate(trainer: Trainer) -> MemoryEstimate:
    """Of a process that trains. Images are small beside it, and the processes that read them are not counted."""
    optim = trainer.config.optim
    trained = [parameter for parameter in trainer.net.get_parameters() if parameter.requires_grad]
    gradients = _bytes(trained) * (2 if optim.accumulation_step > 1 else 1)
    teacher = _bytes(trainer.teacher.get_parameters()) if trainer.teacher is not None else 0
    parameters = _bytes(trainer.parameters().values()) + gradients + teacher
    return MemoryEstimate(_PROCESS, parameters, activations(trainer.net, trainer.config.data.batch_size))


def activations(net: nn.Cell, batch_size: int) -> int:
    """Bytes that training keeps of a batch."""
    return round(batch_size * 4 * _KEPT * layer_outputs(net))


def _bytes(parameters: Iterable[Parameter]) -> int:
    return sum(parameter.size * parameter.itemsize for parameter in parameters)
