"""Learning rates equal the zoo's functions and timm's schedulers step by step.

``goldens/schedules.json`` holds curves of 12 epochs of 4 steps (``settings``): of the zoo's functions (CCT, DeiT,
Twins, TNT; ViT with T_max 12) and of timm 1.0.31's cosine, with 2 epochs of cooldown where the zoo's code or timm
has them.
"""

import csv
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.errors import ConfigError
from src.schema import OptimConfig, ScheduleConfig
from src.trainers.schedules import effective_rate_line, learning_rate, run_epochs
from tests.networks import GOLDENS
from tests.oracles import ORACLES, read_json, requires_oracles

GOLDEN = json.loads((GOLDENS / "schedules.json").read_text(encoding="utf-8"))
COOLDOWN = {"cooldown_epochs": 2}
POLICIES = ("cosine_lr", "constant_lr", "multistep_lr", "exp_lr")
# The keys that give each stored curve.
CURVES = {
    **{f"cct {policy}": {"lr_scheduler": policy} for policy in POLICIES},
    **{f"deit {policy}": {"lr_scheduler": policy, "min_lr_rule": "add", **COOLDOWN} for policy in POLICIES},
    "tnt cosine_lr": {"min_lr_rule": "clip"},
    "twins cosine_lr": {"min_lr_rule": "add_clip", **COOLDOWN},
    "vit cosine_lr": {"lr_per_epoch": True, "warmup_length": 0},
    "timm timm_cosine update": {"lr_scheduler": "timm_cosine", **COOLDOWN},
    "timm timm_cosine epoch": {"lr_scheduler": "timm_cosine", "lr_per_epoch": True, **COOLDOWN},
    "timm cosine_lr update": COOLDOWN,
    "timm cosine_lr epoch": {"lr_per_epoch": True, **COOLDOWN},
}
# Columns of the oracles, and the keys that give them.
COLUMNS = {
    "timm_per_epoch": {"lr_scheduler": "timm_cosine", "lr_per_epoch": True},
    "timm_per_epoch_warmup_prefix": {"lr_per_epoch": True},
    "timm_per_update": {"lr_scheduler": "timm_cosine"},
    "timm_per_update_warmup_prefix": {},
}
ZOO = {
    "cct_14_7x2_readme": None,
    "cct_14_7x2_yaml": None,
    "cct_7_3x1_cifar10_300_yaml": None,
    "deit_small_readme": "add",
    "pcpvt_small_readme": "add_clip",
    "tnt_s_readme": "clip",
}


def recipe(**keys) -> tuple[OptimConfig, ScheduleConfig]:
    """Split flat keys over their two sections."""
    optim = {key: keys.pop(key) for key in ("base_lr", "lr_scale_base", "lr_scale_ends") if key in keys}
    return OptimConfig(**optim), ScheduleConfig(**keys)


def whole(steps_per_epoch: int, global_batch: int, **keys) -> list[float]:
    """The rates of all steps of a run."""
    optim, schedule = recipe(**keys)
    steps = range(run_epochs(schedule).stop * steps_per_epoch)
    return [learning_rate(step, steps_per_epoch, optim, schedule, global_batch) for step in steps]


def test_every_stored_curve_is_compared():
    assert CURVES.keys() == GOLDEN["curves"].keys()


@pytest.mark.parametrize(("name", "keys"), CURVES.items())
def test_curve_equals_the_zoo_and_timm(name, keys):
    ours = whole(4, 1024, **{**GOLDEN["settings"], **keys})
    np.testing.assert_allclose(ours, GOLDEN["curves"][name], rtol=1e-10)


@requires_oracles
@pytest.mark.parametrize("column", ["seed_cosine_lr", *COLUMNS])
@pytest.mark.parametrize("name", ZOO)
def test_recipe_equals_the_oracle(name, column):
    summary = read_json("lr/summary.json")[name]
    keys = {"min_lr_rule": ZOO[name]} if column == "seed_cosine_lr" else COLUMNS[column]
    # Eight devices of 128 images: a factor of 2 against the base of 512 where the zoo scales.
    scaled = {"lr_scale_base": 512} if summary["lr_factor_8x128"] == 2.0 else {}
    with (ORACLES / "lr" / f"{name}.csv").open(encoding="utf-8") as stream:
        theirs = [float(row[column]) for row in csv.DictReader(stream)]
    ours = whole(10, 1024, **summary["settings"], **scaled, **keys)
    assert len(theirs) >= 3000
    # TNT's and Twins' arrays hold no more epochs than the zoo trained.
    np.testing.assert_allclose(ours[: len(theirs)], theirs, rtol=1e-10)


@requires_oracles
def test_vit_equals_the_oracle_while_its_cosine_falls():
    # Its T_max of 50 epochs is less than the 60 that it trains: behind it the zoo's rate rises again.
    with (ORACLES / "lr" / "vit_base_cifar10.csv").open(encoding="utf-8") as stream:
        _, *rows = csv.reader(stream)
    theirs = [float(row[2]) for row in rows][:500]
    ours = whole(10, 32, base_lr=0.013, min_lr=0.0, epochs=50, lr_per_epoch=True)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@requires_oracles
@pytest.mark.parametrize("name", ZOO)
def test_points_of_a_run_with_1251_steps_an_epoch(name):
    summary = read_json("lr/summary.json")[name]
    scaled = {"lr_scale_base": 512} if summary["lr_factor_8x128"] == 2.0 else {}
    optim, schedule = recipe(**summary["settings"], **scaled, min_lr_rule=ZOO[name])
    assert len(summary["points_1251_steps"]) > 8
    for step, rate in summary["points_1251_steps"].items():
        assert learning_rate(int(step), 1251, optim, schedule, 1024) == pytest.approx(rate, rel=1e-10)


def test_the_cosine_is_bit_for_bit_the_published_formula():
    optim, schedule = recipe(base_lr=5e-4, warmup_lr=7e-8, min_lr=6e-6, warmup_length=2, epochs=9, lr_scale_base=512)
    for step in range(63):
        progress = (step - 14) / 49
        half = 6e-6 + (5e-4 - 6e-6) * 0.5 * (1.0 + math.cos(math.pi * progress))
        wanted = 7e-8 + (5e-4 - 7e-8) * step / 14 if step < 14 else half
        assert learning_rate(step, 7, optim, schedule, 96) == wanted * (96 / 512)


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
    rates = whole(3, 1, base_lr=0.1, warmup_length=2, epochs=2, cooldown_epochs=1, min_lr=0.2)
    assert rates[:6] == sorted(rates[:6])
    assert rates[6:] == [0.2] * 3


def test_a_lower_bound_above_base_lr_changes_nothing():
    assert set(whole(3, 1, base_lr=1e-7, min_lr=1e-5, epochs=2, lr_scheduler="constant_lr")) == {1e-7}


@pytest.mark.parametrize("scheduler", [*POLICIES, "timm_cosine"])
def test_one_rate_an_epoch_is_that_of_its_first_step(scheduler):
    keys = dict(base_lr=0.1, warmup_length=1.5, epochs=5, cooldown_epochs=1, lr_scheduler=scheduler)
    each, held = whole(4, 1, **keys), whole(4, 1, **keys, lr_per_epoch=True)
    assert held == [each[step - step % 4] for step in range(24)]


def test_scaling_of_base_lr_alone():
    keys = dict(base_lr=5e-4, warmup_lr=1e-6, min_lr=1e-5, warmup_length=1, epochs=4, cooldown_epochs=1)
    ours = whole(5, 2048, **keys, lr_scale_base=512, lr_scale_ends=False)
    assert ours == whole(5, 1, **{**keys, "base_lr": 2e-3})
    assert (ours[0], max(ours), ours[-1]) == (1e-6, 2e-3, 1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# How long a run is, and what it says


def test_a_run_ends_with_its_cooldown_and_begins_where_it_is_told():
    assert run_epochs(ScheduleConfig(epochs=7)) == range(7)
    assert run_epochs(ScheduleConfig(epochs=7, cooldown_epochs=3, start_epoch=2)) == range(2, 10)
    assert run_epochs(ScheduleConfig(epochs=7, cooldown_epochs=3, start_epoch=9)) == range(9, 10)
    with pytest.raises(ConfigError, match=r"^start_epoch: must be less than the 10 epochs of the run. Received: 10"):
        run_epochs(ScheduleConfig(epochs=7, cooldown_epochs=3, start_epoch=10))


def test_line_of_the_effective_rate():
    scaled = OptimConfig(base_lr=5e-4, lr_scale_base=512)
    assert effective_rate_line(scaled, 1024) == "effective learning rate 0.001 = base_lr 0.0005 * 1024 / 512"
    plain = "effective learning rate 0.0005 = base_lr, for 64 images per update, not scaled"
    assert effective_rate_line(OptimConfig(base_lr=5e-4), 64) == plain


@given(
    steps_per_epoch=st.integers(1, 2000),
    epochs=st.integers(1, 400),
    warmup_length=st.floats(0, 400),
    base_lr=st.floats(1e-6, 1.0),
    batch=st.integers(1, 4096),
    scheduler=st.sampled_from([*POLICIES, "timm_cosine"]),
    rule=st.sampled_from([None, "end", "clip", "add", "add_clip"]),
)
def test_rates_stay_between_the_ends_and_scale_as_a_whole(
    steps_per_epoch, epochs, warmup_length, base_lr, batch, scheduler, rule
):
    ends = {"warmup_lr": 0.0, "min_lr": base_lr / 100, "lr_scheduler": scheduler, "min_lr_rule": rule}
    keys = dict(base_lr=base_lr, epochs=epochs, warmup_length=warmup_length, **ends)
    plain, scaled = recipe(**keys), recipe(**keys, lr_scale_base=512)
    highest = base_lr * (1.01 if rule in ("add", "add_clip") else 1.0) * (1 + 1e-12)
    for step in {0, steps_per_epoch * epochs // 3, steps_per_epoch * epochs - 1}:
        rate = learning_rate(step, steps_per_epoch, *plain, batch)
        assert 0.0 <= rate <= highest
        assert learning_rate(step, steps_per_epoch, *scaled, batch) == pytest.approx(rate * batch / 512)
