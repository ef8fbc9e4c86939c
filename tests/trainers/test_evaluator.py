"""What evaluation makes of a network's answers: every image once, in order, for any batches and ranks."""

import numpy as np
import pytest
from mindspore import nn

from src.data.loader import EvalBatch, EvalBatches
from src.data.synthetic import SyntheticImages
from src.data.transforms import EvalTransform
from src.errors import DataError, NumbersError
from src.metrics import predictions
from src.trainers import evaluator
from src.trainers.evaluator import evaluate

TRANSFORM = EvalTransform(4, 1.0, "bilinear", "shorter", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
NUM_IMAGES = 11


class FirstPixel(nn.Cell):
    """The colours of the first pixel are the scores of three classes."""

    def construct(self, image_BCYX):
        return image_BCYX[:, :, 0, 0]


def batches(batch_size: int = 4, rank: int = 0, num_ranks: int = 1, **changed: list[int]) -> list[EvalBatch]:
    """All batches of a rank; rows of ``padding`` are images that were left out."""
    found = EvalBatches(
        SyntheticImages("val", 3, NUM_IMAGES, 4, 4), TRANSFORM, batch_size, rank=rank, num_ranks=num_ranks
    )
    read = []
    for step in range(len(found)):
        arrays = tuple(np.zeros(shape, kind) for shape, kind in found.layout)
        found.fill(step, arrays)
        read.append(EvalBatch(*arrays))
    for index in changed.get("padding", ()):
        read[index // batch_size].is_padding_B[index % batch_size] = True
    return read


def reference() -> np.ndarray:
    images = SyntheticImages("val", 3, NUM_IMAGES, 4, 4)
    logits_NK = np.stack([TRANSFORM(images.read(index))[:, 0, 0] for index in range(NUM_IMAGES)])
    return predictions(logits_NK, np.array(images.labels))


@pytest.mark.parametrize("batch_size", [1, 4, 11, 20])
def test_every_image_once_in_order(batch_size):
    result = evaluate(FirstPixel(), batches(batch_size))
    np.testing.assert_array_equal(result.prediction_N, reference())
    assert result.loss == reference()["loss"].mean()
    assert (result.counts.total, result.counts.top5) == (NUM_IMAGES, NUM_IMAGES)
    assert (result.images_per_second is None) == (batch_size >= NUM_IMAGES)


def test_ranks_together_see_what_one_sees(monkeypatch):
    mine = []
    monkeypatch.setattr(evaluator, "of_all_ranks", lambda array: [mine.append(array) or array])
    for rank in (0, 1):
        evaluate(FirstPixel(), batches(4, rank, 2))
    monkeypatch.setattr(evaluator, "of_all_ranks", lambda _: mine)
    together = evaluate(FirstPixel(), batches(4, 0, 2))
    np.testing.assert_array_equal(together.prediction_N, reference())
    assert together.loss == evaluate(FirstPixel(), batches(4, 0, 2)).loss == reference()["loss"].mean()


def test_images_that_were_left_out_keep_the_others_in_place():
    result = evaluate(FirstPixel(), batches(4, padding=[0, 6]))
    kept = [index for index in range(NUM_IMAGES) if index not in (0, 6)]
    assert result.prediction_N["index"].tolist() == kept
    np.testing.assert_array_equal(result.prediction_N, reference()[kept])
    with pytest.raises(DataError, match="no image of the split val can be read"):
        evaluate(FirstPixel(), batches(4, padding=list(range(NUM_IMAGES))))


def test_scores_that_are_not_finite():
    broken = batches(4)
    broken[1].image_BCYX[0, 0] = np.inf
    with pytest.raises(NumbersError, match="values that are not finite"):
        evaluate(FirstPixel(), broken)
    # What an image holds that is not there does not matter.
    broken[1].is_padding_B[0] = True
    assert evaluate(FirstPixel(), broken).counts.total == NUM_IMAGES - 1
