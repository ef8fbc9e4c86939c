"""Loss and accuracy over every image of a split exactly once.

Shape letters: B batch, K classes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from mindspore import Tensor, nn

from src.config import require_built
from src.data.build import eval_batches_of
from src.data.loader import EvalBatch, open_reader, read_eval
from src.data.sources import open_split
from src.device import num_ranks, open_device, rank
from src.errors import DataError, NumbersError
from src.metrics import TopCounts, cross_entropy_sum, top_counts
from src.models import build_configured_model, resolved
from src.schema import BUILT_FOR_EVALUATION, Config
from src.trainers.collective import sum_over_ranks
from src.weights.load import given_weights, load_given_weights
from src.weights.manifest import verified_manifest
from src.weights.numerics import with_numerics

_SHOWN = 10


@dataclass(frozen=True)
class EvalResult:
    """Mean cross entropy and counts of right answers."""

    loss: float
    counts: TopCounts


def evaluate(net: nn.Cell, batches: Iterable[EvalBatch]) -> EvalResult:
    """Run a network over all batches of this rank, and add up what all ranks found; padding is not counted.

    Raises:
        NumbersError: a logit that is not finite.
        DataError: nothing but padding.
    """
    counts, loss_sum, is_finite = TopCounts(), 0.0, True
    was_training = net.training
    net.set_train(False)
    for batch in batches:
        real_B = ~batch.is_padding_B
        logits_BK = net(Tensor(batch.image_BCYX)).asnumpy()[real_B].astype(np.float32)
        if not np.isfinite(logits_BK).all():
            # The other ranks wait for this one's counts, so it is said when they are together.
            is_finite = False
            break
        label_B = batch.label_B[real_B]
        counts += top_counts(logits_BK, label_B)
        loss_sum += cross_entropy_sum(logits_BK, label_B)
    net.set_train(was_training)
    found = sum_over_ranks(np.array([loss_sum, counts.total, counts.top1, counts.top5, not is_finite], np.float64))
    loss_sum, counts = float(found[0]), TopCounts(*map(int, found[1:4]))
    if found[4]:
        raise NumbersError("evaluation", "the network gives values that are not finite")
    if not counts.total:
        raise DataError("on_bad_image", "no image of the split val can be read")
    return EvalResult(loss_sum / counts.total, counts)


def print_left_out(left_out: Iterable[str], told: int = 0) -> None:
    """How many images could not be read, and the first few of them; without those ``told`` that were told before."""
    new = list(left_out)[told:]
    if new:
        print(f"warning: left out, cannot be read: {len(new)}{' more' * (told > 0)} of the images", file=sys.stderr)
        for line in new[:_SHOWN]:
            print(f"warning: {line}", file=sys.stderr)
        if len(new) > _SHOWN:
            print(f"warning: and {len(new) - _SHOWN} more", file=sys.stderr)


def evaluate_checkpoint(config: Config) -> EvalResult:
    """Evaluate the weights ``pretrained`` of a config on its val split, and print the zoo's lines.

    Raises:
        DataError: missing images, or classes other than the weights were trained for.
        ModelFileError: weights that are missing, damaged or of another model.
    """
    require_built(config, BUILT_FOR_EVALUATION)
    config = resolved(config)
    model, data, run = config.model, config.data, config.run
    images = open_split(data, "val", model.num_classes)
    weights = given_weights(model)
    manifest = verified_manifest(weights)
    if manifest is not None and manifest.class_names != list(images.class_names):
        differing = sorted(set(manifest.class_names) ^ set(images.class_names))
        raise DataError(images.root, f"has other classes than {weights} was trained for", ", ".join(differing[:5]))
    open_device(run)
    model = with_numerics(model, weights)
    print(f"==> Creating model '{model.arch}'")
    net = build_configured_model(model)
    print(f"=> loading pretrained weights from '{weights}'")
    print(load_given_weights(net, model))
    batches = eval_batches_of(config, images, rank(), num_ranks())
    print("=> begin eval")
    with open_reader(data.num_parallel_workers, val=batches) as reader:
        result = evaluate(net, read_eval(reader))
    print_left_out(reader.left_out)
    counts = result.counts
    named = {"Loss": result.loss, "Top1-Acc": counts.top1_accuracy, "Top5-Acc": counts.top5_accuracy}
    print(f"=> eval results:{named}")
    print(f"{counts.top1} of {counts.total} images right, {counts.top5} among the first five")
    print("=> eval success")
    return result
