"""The table of verify.py: what is compared, and what is accepted."""

import numpy as np
import pytest

from src.deploy.backends import Answers
from src.deploy.verify import compare, format_table
from src.errors import NumbersError
from src.schema import VerifyConfig

LABELS = np.array([0, 1, 2, 3, 4, 5])
REFERENCE = np.eye(6, dtype=np.float32)


def rows(logits_NK: np.ndarray, **facts: object) -> list:
    return compare({"checkpoint": Answers(REFERENCE, 2.5), "other": Answers(logits_NK, **facts)}, LABELS)


def test_a_row_by_hand():
    changed = REFERENCE.copy()
    changed[0, 0], changed[0, 1] = 0, 1
    changed[1] += 0.25
    first, other = rows(changed)
    assert (first.top1, first.agreement, first.max_difference, first.ms_per_image) == (1, 1, 0, 2.5)
    assert (other.images, other.top1, other.top5, other.agreement) == (6, 5 / 6, 1, 5 / 6)
    assert other.max_difference == 1
    assert other.mean_difference == pytest.approx((2 + 6 * 0.25) / 36)
    assert other.ms_per_image is None


@pytest.mark.parametrize(
    ("offset", "quantization", "limits", "accepted"),
    [
        (0.9e-4, None, {}, True),
        (1.1e-4, None, {}, False),
        (1.1e-4, None, {"tolerance": 1.2e-4}, True),
        (0.3, "int8", {}, True),
        (0.3, "int8", {"tolerance": 1e-12}, True),
    ],
)
def test_the_limit_of_logits_is_for_exact_weights(offset, quantization, limits, accepted):
    row = rows(REFERENCE + np.float32(offset), quantization=quantization)[1]
    assert row.is_accepted(VerifyConfig(**limits)) == accepted


@pytest.mark.parametrize("quantization", [None, "int8"])
@pytest.mark.parametrize(("least", "accepted"), [(1.0, False), (0.84, False), (0.83, True)])
def test_the_limit_of_classes_is_for_all(quantization, least, accepted):
    changed = REFERENCE.copy()
    changed[3] = REFERENCE[4]
    row = rows(changed, quantization=quantization)[1]
    assert row.is_accepted(VerifyConfig(tolerance=2, min_agreement=least)) == accepted


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none(value):
    changed = REFERENCE.copy()
    changed[2, 2] = value
    with pytest.raises(NumbersError, match=r"other: must give finite logits. Received: others for 1 of 6 images"):
        rows(changed)


def test_another_number_of_classes():
    with pytest.raises(NumbersError, match=r"other: must give \(6, 6\) logits"):
        rows(REFERENCE[:, :5])


def test_columns_of_the_table():
    titles, first, other = format_table(rows(REFERENCE + np.float32(0.5))).splitlines()
    assert " ".join(titles.split()) == "backend images top-1 top-5 agreement max |dlogit| mean |dlogit| ms/image"
    assert len(titles) == len(first) <= 120
    assert first.endswith("     2.500")
    assert other.split() == ["other", "6", "100.00%", "100.00%", "100.00%", "5.00e-01", "5.00e-01"]
