"""What is known about one update once it is done."""

from __future__ import annotations

from typing import NamedTuple


class StepRecord(NamedTuple):
    """One update.

    Args:
        step: updates done in the run, this one included.
        epoch: counted from 1.
        loss: mean over the batch.
        lr: learning rate of the update.
        grad_norm: global norm before clipping, without the loss scale.
        images: in the batches of the update, of all ranks.
        seconds: from the end of the update before to the end of this one.
        data_wait: seconds of these that were spent waiting for the batch.
        loss_scale: of the update; None where none is in use.
        skipped: the gradients overflowed and the weights were left as they were.
    """

    step: int
    epoch: int
    loss: float
    lr: float
    grad_norm: float
    images: int
    seconds: float
    data_wait: float
    loss_scale: float | None = None
    skipped: bool = False
