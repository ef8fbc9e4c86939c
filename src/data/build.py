"""The batches that a configuration describes."""

from __future__ import annotations

from src.data.image_source import Source
from src.data.loader import EvalBatches, TrainBatches
from src.data.mixup import Mixup
from src.data.sources import open_split
from src.data.transforms import EvalTransform, TrainTransform
from src.schema import AugmentConfig, Config


def train_batches_of(config: Config, rank: int = 0, num_ranks: int = 1) -> TrainBatches:
    """The training split of a resolved config, with its augmentation; what one of several ranks sees of it.

    Raises:
        DataError: images that are missing or do not fit.
        ConfigError: an augmentation that cannot be.
    """
    model, data, augment = config.model, config.data, config.augment
    return TrainBatches(
        open_split(data, "train", model.num_classes),
        TrainTransform.from_config(data, augment, model.image_size),
        mixup_of(augment, model.num_classes),
        data.batch_size,
        config.run.seed,
        aug_repeats=augment.aug_repeats,
        mixup_off_epoch=augment.mixup_off_epoch,
        on_bad_image=data.on_bad_image,
        rank=rank,
        num_ranks=num_ranks,
        accumulation=config.optim.accumulation_step,
    )


def eval_batches_of(config: Config, images: Source, rank: int = 0, num_ranks: int = 1) -> EvalBatches:
    """All images of a source as a resolved config evaluates them; what one of several ranks sees of them."""
    data = config.data
    transform = EvalTransform.from_config(data, config.model.image_size)
    given = dict(on_bad_image=data.on_bad_image, rank=rank, num_ranks=num_ranks)
    return EvalBatches(images, transform, data.batch_size, **given)


def mixup_of(augment: AugmentConfig, num_classes: int) -> Mixup:
    """What the keys say of mixing."""
    return Mixup(
        mixup_alpha=augment.mix_up,
        cutmix_alpha=augment.cutmix,
        cutmix_minmax=augment.cutmix_minmax,
        prob=augment.mixup_prob,
        switch_prob=augment.switch_prob,
        mode=augment.mixup_mode,
        label_smoothing=augment.label_smoothing,
        num_classes=num_classes,
    )
