"""The table of verify.py: what is compared, and what is accepted."""

import json
from pathlib import Path

import numpy as np
import pytest

from src.config import load_config
from src.deploy.backends import Answers
from src.deploy.runner_inputs import PreprocessConfig, preprocess
from src.deploy.verify import compare, format_table, verify
from src.errors import NumbersError
from src.schema import VerifyConfig
from tests import small_run
from tests.data.images import write_cifar

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
        (0.9e-4, "none", {}, True),
        (1.1e-4, "none", {}, False),
        (1.1e-4, "none", {"tolerance": 1.2e-4}, True),
        (0.3, "int8", {}, True),
        (0.3, "int8", {"tolerance": 1e-12}, True),
    ],
)
def test_the_limit_of_logits_is_for_exact_weights(offset, quantization, limits, accepted):
    row = rows(REFERENCE + np.float32(offset), quantization=quantization)[1]
    assert row.is_accepted(VerifyConfig(**limits)) == accepted


@pytest.mark.parametrize("quantization", ["none", "int8"])
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


def test_results_of_cifar_have_the_names_of_preprocess(tmp_path):
    data = write_cifar(tmp_path, "CIFAR10", "binary", 12)
    words = {"set": "CIFAR10", "num_classes": 10, "pretrained": "weights.ckpt", "result_dir": "results"}
    small_run.write_weights(Path("weights.ckpt"), num_classes=10)
    output = preprocess(PreprocessConfig(dataset_name="cifar10", data_path=str(data)))
    Path("results").mkdir()
    for path in (output / "img_data").iterdir():
        np.zeros(10, np.float32).tofile(Path("results", f"{path.stem}_0.bin"))
    with pytest.raises(NumbersError, match=r"C\+\+ runner's results by"):
        verify(load_config("verify", small_run.arguments(data, tmp_path, **words)))
    assert json.loads((tmp_path / "verify.json").read_text())["images"] == 12


def test_columns_of_the_table():
    titles, first, other = format_table(rows(REFERENCE + np.float32(0.5))).splitlines()
    assert " ".join(titles.split()) == "backend images top-1 top-5 agreement max |dlogit| mean |dlogit| ms/image"
    assert len(titles) == len(first) <= 120
    assert first.endswith("     2.500")
    assert other.split() == ["other", "6", "100.00%", "100.00%", "100.00%", "5.00e-01", "5.00e-01"]
