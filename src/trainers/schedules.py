"""Learning rate as a pure function of the step, and how long a run is."""

from __future__ import annotations

import math

from src.errors import ConfigError
from src.schema import OptimConfig, ScheduleConfig


def run_epochs(schedule: ScheduleConfig) -> range:
    """The epochs of a run, counted from 0: from ``start_epoch`` to the end of the cool-down.

    Raises:
        ConfigError: no epoch is left.
    """
    total = schedule.epochs + schedule.cooldown_epochs
    if schedule.start_epoch >= total:
        raise ConfigError("start_epoch", f"must be less than the {total} epochs of the run", schedule.start_epoch)
    return range(schedule.start_epoch, total)


def learning_rate(
    step: int, steps_per_epoch: int, optim: OptimConfig, schedule: ScheduleConfig, global_batch: int
) -> float:
    """The rate of one update, counted from 0 at the start of epoch 0, whatever ``start_epoch`` is.

    1. During ``warmup_length`` epochs it rises linearly from ``warmup_lr`` towards ``base_lr``; multistep_lr has none.
    2. Then it is ``base_lr`` times the curve of `_shape`, with ``min_lr`` as ``min_lr_rule`` says:

       ========  ===========================================================================
       end       the curve ends at min_lr instead of 0 (CCT's cosine; timm)
       clip      no rate is below min_lr, the warm-up's included (TNT; CCT's other curves)
       add       min_lr is added after the warm-up (DeiT)
       add_clip  both (Twins)
       ========  ===========================================================================

    3. After ``epochs`` it is ``min_lr``.
    4. With ``lr_scale_base`` rates are multiplied by ``global_batch / lr_scale_base``: all, or ``base_lr`` alone.
    5. With ``lr_per_epoch`` all steps of an epoch have the rate of its first.

    cosine_lr with ``end`` is also timm's cosine with ``warmup_prefix``, whose epochs do not count the warm-up.

    Args:
        step: update of the run.
        steps_per_epoch: updates.
        optim: base_lr and its scaling.
        schedule: the curve.
        global_batch: images of one update, over all devices.
    """
    scale = _scale(optim, global_batch)
    base_lr = optim.base_lr if optim.lr_scale_ends else optim.base_lr * scale
    min_lr = schedule.min_lr
    if schedule.lr_per_epoch:
        step -= step % steps_per_epoch
    warmup_steps = 0.0 if schedule.lr_scheduler == "multistep_lr" else schedule.warmup_length * steps_per_epoch
    rule = schedule.min_lr_rule or ("end" if "cosine" in schedule.lr_scheduler else "clip")
    if step >= schedule.epochs * steps_per_epoch:
        rate = min_lr
    elif step < warmup_steps:
        rate = schedule.warmup_lr + (base_lr - schedule.warmup_lr) * step / warmup_steps
    else:
        shape = _shape(step, warmup_steps, steps_per_epoch, schedule)
        rate = min_lr + (base_lr - min_lr) * shape if rule == "end" else base_lr * shape
        rate += min_lr if rule.startswith("add") else 0.0
    if rule.endswith("clip"):
        rate = max(rate, min(min_lr, base_lr))
    return rate * scale if optim.lr_scale_ends else rate


def effective_rate_line(optim: OptimConfig, global_batch: int) -> str:
    """One line that says how ``base_lr`` becomes the peak's rate."""
    if optim.lr_scale_base is None:
        return f"effective learning rate {optim.base_lr:g} = base_lr, for {global_batch} images per update, not scaled"
    effective = optim.base_lr * _scale(optim, global_batch)
    return f"effective learning rate {effective:g} = base_lr {optim.base_lr:g} * {global_batch} / {optim.lr_scale_base}"


def _scale(optim: OptimConfig, global_batch: int) -> float:
    return global_batch / optim.lr_scale_base if optim.lr_scale_base else 1.0


def _shape(step: int, warmup_steps: float, steps_per_epoch: int, schedule: ScheduleConfig) -> float:
    """Share of base_lr after the warm-up: 1 at its highest.

    cosine_lr     half a cosine from the end of the warm-up to that of the last epoch
    timm_cosine   half a cosine over all epochs, whose beginning the warm-up hides (timm without warmup_prefix)
    exp_lr        lr_gamma to the power of the epochs so far
    multistep_lr  lr_gamma to the power of epochs / lr_adjust, without steps: the zoo's
    """
    total_steps = schedule.epochs * steps_per_epoch
    if schedule.lr_scheduler == "cosine_lr":
        progress = (step - warmup_steps) / max(1.0, total_steps - warmup_steps)
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    if schedule.lr_scheduler == "timm_cosine":
        return 0.5 * (1.0 + math.cos(math.pi * step / total_steps))
    if schedule.lr_scheduler == "exp_lr":
        return schedule.lr_gamma ** (step / steps_per_epoch)
    if schedule.lr_scheduler == "multistep_lr":
        return schedule.lr_gamma ** (step / steps_per_epoch / schedule.lr_adjust)
    return 1.0
