"""From the workers' answers to the printed table."""

import pytest

from src.benchmark.cases import CASES, chosen_cases
from src.benchmark.runner import check_equal, summarise
from src.benchmark.table import format_table
from src.errors import ConfigError, NumbersError
from src.models import MODELS

CASE = CASES["cct_2_3x2_32"]


def answer(*milliseconds: float, mb: float) -> dict:
    return {"seconds": [value / 1e3 for value in milliseconds], "peak_memory_mb": mb}


@pytest.fixture
def measurement():
    rounds = [
        [answer(10, 12, 11, mb=500), answer(22, mb=900)],
        [answer(20, mb=600), answer(30, mb=1000)],
        [answer(10, mb=600), answer(40, mb=1000)],
    ]
    return summarise(CASE, 64, rounds, "timm 1", {"own": {}, "peer": {}})


def test_ratio_is_the_median_of_the_rounds_ratios(measurement):
    # A machine that slows down slows both: 2.0, 1.5 and 4.0, not the ratio of the medians 30 and 11.
    assert measurement.ratio == pytest.approx(2.0)
    assert (measurement.own_ms, measurement.peer_ms) == pytest.approx((11.0, 30.0))


def test_memory_is_the_peak_at_the_end(measurement):
    assert (measurement.own_mb, measurement.peer_mb) == (600, 1000)
    assert measurement.memory_ratio == pytest.approx(0.6)


def test_table_lines_up_and_shows_memory_for_training_only(measurement):
    for mode, shows_memory in (("infer", False), ("train", True)):
        header, line = format_table(mode, [measurement]).splitlines()
        assert header.startswith(mode)
        assert line.startswith("cct_2_3x2_32 ")
        assert header.rindex("  peer") == line.index("  timm 1")
        assert line.split()[1:5] == ["64", "11.0", "30.0", "2.00"]
        assert (line.split()[5:8] == ["600", "1000", "0.60"]) == shows_memory


def test_different_networks_are_not_compared():
    check_equal(CASE, 5, 5)
    with pytest.raises(NumbersError, match=r"cct_2_3x2_32: both sides .*Received: 5 here, 6 there"):
        check_equal(CASE, 5, 6)


def test_cases_by_name():
    assert chosen_cases("all", "timm") == list(CASES.values())
    assert [case.name for case in chosen_cases("all", "zoo")] == ["tnt_s_patch16_224"]
    assert [case.name for case in chosen_cases("cct_7_3x1_32, vit_tiny_patch16_224", "timm")] == [
        "cct_7_3x1_32",
        "vit_tiny_patch16_224",
    ]
    with pytest.raises(ConfigError, match=r"--arch: no such case for --peer timm. Received: vit_giant. Known: all"):
        chosen_cases("cct_7_3x1_32,vit_giant", "timm")


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_every_case_is_one_of_ours(case):
    assert case.arch in MODELS
    assert set(case.sizes) <= set(MODELS[case.arch].sizes)
