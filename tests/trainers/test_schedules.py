"""The learning rate of every step equals the zoo's CCT curve and timm's per-update cosine with warmup_prefix."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.schema import OptimConfig, ScheduleConfig
from src.trainers.schedules import learning_rate
from tests.oracles import ORACLES, read_json, requires_oracles

# CCT's curves are the zoo's own; of the others, whose zoo code clips and shifts, timm's is the one that is right.
CURVES = {
    "cct_14_7x2_readme": "seed_cosine_lr",
    "cct_14_7x2_yaml": "seed_cosine_lr",
    "cct_7_3x1_cifar10_300_yaml": "seed_cosine_lr",
    "deit_small_readme": "timm_per_update_warmup_prefix",
    "pcpvt_small_readme": "timm_per_update_warmup_prefix",
    "tnt_s_readme": "timm_per_update_warmup_prefix",
}


def recipe(**keys) -> tuple[OptimConfig, ScheduleConfig]:
    """Split flat keys over their two sections."""
    optim = {key: keys.pop(key) for key in ("base_lr", "lr_scale_base") if key in keys}
    return OptimConfig(**optim), ScheduleConfig(**keys)


@requires_oracles
@pytest.mark.parametrize(("name", "column"), CURVES.items())
def test_curve_equals_the_stored_one(name, column):
    summary = read_json("lr/summary.json")[name]
    settings = {key: value for key, value in summary["settings"].items() if key != "cooldown_epochs"}
    # Eight devices of 128 images: a factor of 2 against the base of 512 where the zoo scales.
    scaled = {"lr_scale_base": 512} if summary["lr_factor_8x128"] == 2.0 else {}
    optim, schedule = recipe(**settings, **scaled)
    with (ORACLES / "lr" / f"{name}.csv").open(encoding="utf-8") as stream:
        theirs = [float(row[column]) for row in csv.DictReader(stream)][: schedule.epochs * 10]
    ours = [learning_rate(step, 10, optim, schedule, 1024) for step in range(len(theirs))]
    assert len(theirs) == schedule.epochs * 10
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)


@requires_oracles
def test_points_of_a_run_with_1251_steps_an_epoch():
    summary = read_json("lr/summary.json")["cct_14_7x2_yaml"]
    settings = {key: value for key, value in summary["settings"].items() if key != "cooldown_epochs"}
    optim, schedule = recipe(**settings)
    assert len(summary["points_1251_steps"]) > 8
    for step, rate in summary["points_1251_steps"].items():
        assert learning_rate(int(step), 1251, optim, schedule, 1024) == pytest.approx(rate, rel=1e-10)


def test_first_peak_and_last_step():
    optim, schedule = recipe(base_lr=5e-4, warmup_lr=1e-6, min_lr=1e-5, warmup_length=10, epochs=310)
    assert learning_rate(0, 10, optim, schedule, 1024) == 1e-6
    assert learning_rate(100, 10, optim, schedule, 1024) == 5e-4
    assert learning_rate(3099, 10, optim, schedule, 1024) == pytest.approx(1e-5, rel=1e-4)


def test_half_an_epoch_of_warmup():
    optim, schedule = recipe(base_lr=1.0, warmup_lr=0.0, warmup_length=0.5, epochs=2)
    assert [learning_rate(step, 10, optim, schedule, 1) for step in (0, 1, 4)] == pytest.approx([0.0, 0.2, 0.8])
    assert learning_rate(5, 10, optim, schedule, 1) == 1.0


def test_constant_stays_after_the_warmup():
    optim, schedule = recipe(base_lr=0.1, warmup_lr=0.0, warmup_length=1, epochs=3, lr_scheduler="constant_lr")
    assert {learning_rate(step, 10, optim, schedule, 1) for step in range(10, 30)} == {0.1}


def test_without_warmup_the_peak_comes_first():
    optim, schedule = recipe(base_lr=0.1, warmup_length=0, epochs=1)
    assert learning_rate(0, 10, optim, schedule, 1) == 0.1


def test_warmup_over_the_whole_run_divides_by_nothing():
    optim, schedule = recipe(base_lr=0.1, warmup_length=2, epochs=2)
    rates = [learning_rate(step, 3, optim, schedule, 1) for step in range(6)]
    assert rates == sorted(rates)
    assert learning_rate(6, 3, optim, schedule, 1) == pytest.approx(0.1)


@given(
    steps_per_epoch=st.integers(1, 2000),
    epochs=st.integers(1, 400),
    warmup_length=st.floats(0, 400),
    base_lr=st.floats(1e-6, 1.0),
    batch=st.integers(1, 4096),
)
def test_rates_stay_between_the_ends_and_scale_as_a_whole(steps_per_epoch, epochs, warmup_length, base_lr, batch):
    ends = {"warmup_lr": 0.0, "min_lr": base_lr / 100}
    keys = dict(base_lr=base_lr, epochs=epochs, warmup_length=warmup_length, **ends)
    plain, scaled = recipe(**keys), recipe(**keys, lr_scale_base=512)
    for step in {0, steps_per_epoch * epochs // 3, steps_per_epoch * epochs - 1}:
        rate = learning_rate(step, steps_per_epoch, *plain, batch)
        assert 0.0 <= rate <= base_lr
        assert learning_rate(step, steps_per_epoch, *scaled, batch) == pytest.approx(rate * batch / 512)
