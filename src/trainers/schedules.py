"""Learning rate as a pure function of the step."""

from __future__ import annotations

import math

from src.schema import OptimConfig, ScheduleConfig


def learning_rate(
    step: int, steps_per_epoch: int, optim: OptimConfig, schedule: ScheduleConfig, global_batch: int
) -> float:
    """The rate of one step, counted from 0.

    1. During ``warmup_length`` epochs it rises linearly from ``warmup_lr`` towards ``base_lr``.
    2. cosine_lr then falls to ``min_lr`` along half a cosine over the remaining epochs; constant_lr stays.
    3. With ``lr_scale_base`` all three are multiplied by ``global_batch / lr_scale_base``.

    This is the zoo's CCT curve, and timm's per-update cosine with ``warmup_prefix``.
    """
    scale = global_batch / optim.lr_scale_base if optim.lr_scale_base else 1.0
    warmup_steps = schedule.warmup_length * steps_per_epoch
    total_steps = schedule.epochs * steps_per_epoch
    if step < warmup_steps:
        rate = schedule.warmup_lr + (optim.base_lr - schedule.warmup_lr) * step / warmup_steps
    elif schedule.lr_scheduler == "constant_lr":
        rate = optim.base_lr
    else:
        progress = (step - warmup_steps) / max(1.0, total_steps - warmup_steps)
        rate = schedule.min_lr + (optim.base_lr - schedule.min_lr) * 0.5 * (1.0 + math.cos(math.pi * progress))
    return rate * scale
