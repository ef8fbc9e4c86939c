"""Loss and accuracy over every image of a split exactly once.

Shape letters: B batch, N images, K classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mindspore import Tensor, nn

from src.config import require_built
from src.data.build import eval_batches_of
from src.data.eval_sets import EvalSet, open_eval_set
from src.data.loader import EvalBatch, open_reader, print_left_out, read_eval
from src.device import num_ranks, open_device, rank
from src.errors import DataError, NumbersError
from src.metrics import PREDICTION, TopCounts, counts_of, predictions
from src.models import build_configured_model, resolved
from src.schema import BUILT_FOR_EVALUATION, Config
from src.trainers.collective import of_all_ranks, sum_over_ranks
from src.weights.class_count import with_class_count
from src.weights.load import given_weights, load_given_weights
from src.weights.manifest import verified_manifest
from src.weights.numerics import with_numerics


@dataclass(frozen=True)
class EvalResult:
    """What a network answered.

    Attributes:
        loss: mean cross entropy.
        counts: of right answers.
        prediction_N: a `metrics.PREDICTION` for each image that could be read, in the order of the source.
        images_per_second: of all ranks, without the first batch, which a network is compiled for; None without others.
    """

    loss: float
    counts: TopCounts
    prediction_N: np.ndarray
    images_per_second: float | None


def evaluate(net: nn.Cell, batches: Iterable[EvalBatch], columns: Sequence[int] | None = None) -> EvalResult:
    """Run a network over all batches of this rank, and bring together what all ranks found; padding is not counted.

    Sums are taken over all images in their order, so that they do not depend on the number of ranks.

    Args:
        net: the network.
        batches: as `EvalBatches` gives them to this rank.
        columns: outputs that may be answers, in the order of the labels; None for all.

    Raises:
        NumbersError: a logit that is not finite.
        DataError: nothing but padding.
    """
    parts, is_finite, started = [], True, math.inf
    was_training = net.training
    net.set_train(False)
    for batch in batches:
        logits_BK = net(Tensor(batch.image_BCYX)).asnumpy()[~batch.is_padding_B].astype(np.float32)
        if columns is not None:
            logits_BK = logits_BK[:, columns]
        if not np.isfinite(logits_BK).all():
            # The other ranks wait for this one's answers, so it is said when they are together.
            is_finite = False
            break
        prediction_B = np.full(len(batch.label_B), -1, PREDICTION)
        prediction_B[~batch.is_padding_B] = predictions(logits_BK, batch.label_B[~batch.is_padding_B])
        parts.append(prediction_B)
        started = min(started, time.perf_counter())
    seconds = time.perf_counter() - started
    net.set_train(was_training)
    if sum_over_ranks(np.array([not is_finite]))[0]:
        raise NumbersError("evaluation", "the network gives values that are not finite")
    prediction_N = _of_all_images(parts)
    if not len(prediction_N):
        raise DataError("on_bad_image", "no image of the split val can be read")
    later = sum(np.count_nonzero(part["label"] >= 0) for part in parts[1:])
    rate = float(sum_over_ranks(np.array([later / seconds if later else 0.0]))[0])
    return EvalResult(float(prediction_N["loss"].mean()), counts_of(prediction_N), prediction_N, rate or None)


def _of_all_images(parts: list[np.ndarray]) -> np.ndarray:
    """The predictions of all ranks in the order of the images, without padding."""
    mine = np.concatenate(parts) if parts else np.empty(0, PREDICTION)
    # Ranks take the images in turns, and have as many rows each.
    prediction_N = np.stack(of_all_ranks(mine), 1).reshape(-1)
    prediction_N["index"] = np.where(prediction_N["label"] < 0, -1, np.arange(len(prediction_N)))
    return prediction_N[prediction_N["index"] >= 0]


@dataclass(frozen=True)
class Evaluation:
    """A set of weights on a set of images.

    Attributes:
        config: resolved, with the numerics of the weights.
        weights: their file.
        eval_set: the images, and what counted as an answer.
        result: what the network answered.
    """

    config: Config
    weights: Path
    eval_set: EvalSet
    result: EvalResult

    @property
    def is_right(self) -> np.ndarray:
        """Whether the first answer is right, (N,)."""
        prediction_N, accepted = self.result.prediction_N, self.eval_set.accepted
        if accepted is None:
            return prediction_N["rank"] == 0
        pairs = zip(prediction_N["index"].tolist(), prediction_N["first"].tolist(), strict=True)
        return np.array([first in accepted[index] for index, first in pairs])


def evaluate_checkpoint(config: Config) -> Evaluation:
    """Evaluate the weights ``pretrained`` of a config on the set that it names, and print the zoo's lines.

    Raises:
        ConfigError: weights that are not named, or do not say their classes where they must.
        DataError: missing images, or classes other than the weights were trained for.
        ModelFileError: weights that are missing, damaged or of another model.
    """
    require_built(config, BUILT_FOR_EVALUATION)
    config = resolved(with_class_count(config, by_images=config.evaluation.eval_set == "val"))
    weights = given_weights(config.model)
    manifest = verified_manifest(weights)
    eval_set = open_eval_set(config, manifest and manifest.class_names)
    open_device(config.run)
    config = config.model_copy(update={"model": with_numerics(config.model, weights)})
    print(f"==> Creating model '{config.model.arch}'")
    net = build_configured_model(config.model)
    print(f"=> loading pretrained weights from '{weights}'")
    print(load_given_weights(net, config.model))
    batches = eval_batches_of(config, eval_set.images, rank(), num_ranks())
    print("=> begin eval")
    with open_reader(config.data.num_parallel_workers, val=batches) as reader:
        result = evaluate(net, read_eval(reader), eval_set.columns)
    print_left_out(reader.left_out)
    evaluation = Evaluation(config, weights, eval_set, result)
    print_scores(evaluation)
    return evaluation


def print_scores(evaluation: Evaluation) -> None:
    """The zoo's line with the accuracies, and the counts behind them."""
    eval_set, counts = evaluation.eval_set, evaluation.result.counts
    if eval_set.accepted is not None:
        right = int(np.count_nonzero(evaluation.is_right))
        print(f"=> eval results:{{'Top1-Acc': {right / counts.total}}}")
        print(f"{right} of {counts.total} images right, by any of their labels")
        return
    named = {"Loss": evaluation.result.loss, "Top1-Acc": counts.top1_accuracy, "Top5-Acc": counts.top5_accuracy}
    print(f"=> eval results:{named}")
    among = "" if eval_set.columns is None else f", of {len(eval_set.columns)} classes"
    print(f"{counts.top1} of {counts.total} images right, {counts.top5} among the first five{among}")
