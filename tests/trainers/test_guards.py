"""When a run is given up, and that it is given up at the same update after a resume."""

import json
import math

import pytest

from src.config import load_config
from src.errors import NumbersError
from src.trainers.guards import Guards
from src.trainers.step_record import StepRecord

STEPS_PER_EPOCH = 4
CHANCE = math.log(1000)


def guards(state: dict | None = None, **flags: object) -> Guards:
    values = {"num_classes": 1000, "base_lr": 1e-3, "divergence_guard_epochs": 2, "max_overflows": 3, **flags}
    argv = [word for key, value in values.items() for word in (f"--{key}", str(value))]
    return Guards(load_config("train", argv), STEPS_PER_EPOCH, state)


def feed(guard: Guards, *losses: float, first: int = 1, **numbers: object) -> None:
    """Updates from a step on; one whose loss is not finite overflows."""
    for step, loss in enumerate(losses, first):
        epoch = (step - 1) // STEPS_PER_EPOCH + 1
        values = dict(lr=1e-3, grad_norm=2.0, images=8, seconds=0.1, data_wait=0.0, **numbers)
        guard.check(StepRecord(step=step, epoch=epoch, loss=loss, **values), finite=math.isfinite(loss))


def refusal(guard: Guards, *losses: float, **numbers: object) -> str:
    with pytest.raises(NumbersError) as caught:
        feed(guard, *losses, **numbers)
    assert caught.value.exit_code == 5
    (line,) = caught.value.lines
    return line


INF, NAN = math.inf, math.nan


# ---------------------------------------------------------------------------------------------------------------------
# Not finite


def test_the_first_infinity_ends_a_run_without_a_loss_scale():
    assert refusal(guards(), 1.0, 2.0, 1.0, 1.0, 1.0, NAN) == (
        "epoch 2 step 2: loss or gradient is not finite, the last checkpoint is kept; lower base_lr (0.001) or set "
        "clip_global_norm_value (5 is common). Received: loss nan, gradient norm 2, LR 0.001, loss scale none"
    )


@pytest.mark.parametrize(
    ("finite", "loss", "norm"), [(False, 1.0, 1.0), (True, INF, 1.0), (True, 1.0, NAN), (True, 1.0, INF)]
)
def test_loss_gradients_and_norm_count_each(finite, loss, norm):
    record = StepRecord(step=1, epoch=1, loss=loss, lr=0.1, grad_norm=norm, images=1, seconds=1, data_wait=0)
    with pytest.raises(NumbersError, match="epoch 1 step 1: loss or gradient is not finite"):
        guards().check(record, finite)
    guard = guards()
    guard.check(record._replace(loss_scale=8.0), finite)
    assert guard.overflows == 1


def test_advice_fits_the_run():
    assert "lengthen warmup_length" in refusal(guards(clip_global_norm_value=5.0), 1.0, NAN)
    assert "look at the images, mean and std" in refusal(guards(), NAN)
    fixed = guards(is_dynamic_loss_scale=False, loss_scale=4096)
    assert "lower loss_scale (4096) or set is_dynamic" in refusal(fixed, 1.0, NAN, NAN, NAN, loss_scale=4096.0)


def test_overflows_are_borne_until_too_many_come_in_a_row():
    guard = guards()
    feed(guard, INF, NAN, 1.0, INF, INF, loss_scale=1024.0)
    assert guard.overflows == 4
    line = refusal(guard, INF, first=6, loss_scale=256.0)
    assert line.startswith("epoch 2 step 2: 3 overflows in a row, the last checkpoint is kept; lower base_lr (0.001)")
    assert line.endswith("Received: loss inf, gradient norm 2, LR 0.001, loss scale 256")


def test_the_default_bears_the_search_for_a_scale_from_the_largest_start():
    guard = guards(max_overflows=load_config("train", []).run.max_overflows)
    for halvings in range(25):
        feed(guard, INF, first=halvings + 1, loss_scale=2.0 ** (24 - halvings))


# ---------------------------------------------------------------------------------------------------------------------
# Guessing


def test_a_loss_of_guessing_ends_the_run_after_its_epochs():
    guard = guards()
    feed(guard, *[CHANCE + 0.01] * 7)
    assert refusal(guard, CHANCE, first=8) == (
        "epoch 2 step 4: the epoch's mean loss 6.9153 is no better than guessing among 1000 classes (6.9078), the last "
        "checkpoint is kept; lower base_lr (0.001) or set clip_global_norm_value (5 is common); "
        "divergence_guard_epochs 0 goes on all the same. Received: loss 6.90776, gradient norm 2, LR 0.001, "
        "loss scale none"
    )


def test_epochs_count_from_the_end_of_the_warm_up_and_0_is_never():
    feed(guards(divergence_guard_epochs=0), *[CHANCE] * 400)
    guard = guards(warmup_length=1.5)
    feed(guard, *[CHANCE] * 15)
    assert refusal(guard, CHANCE, first=16).startswith("epoch 4 step 4: ")


def test_a_late_collapse_is_noticed_and_a_bad_start_forgotten():
    guard = guards()
    feed(guard, *[20.0] * 4, *[6.8] * 4, *[2.0] * 40)
    assert refusal(guard, *[CHANCE] * 4, first=49).startswith("epoch 13 step 4: ")


def smallest_loss(classes: int, smoothing: float) -> float:
    shares = [1 - smoothing + smoothing / classes] + [smoothing / classes] * (classes - 1)
    return -sum(share * math.log(share) for share in shares)


@pytest.mark.parametrize(("classes", "smoothing"), [(1000, 0.1), (10, 0.9), (2, 0.5)])
def test_a_network_that_learns_goes_on_however_strong_the_smoothing(classes, smoothing):
    chance, least = math.log(classes), smallest_loss(classes, smoothing)
    keys = dict(num_classes=classes, label_smoothing=smoothing)
    feed(guards(**keys), *[least] * 8)
    feed(guards(**keys), *[chance - 0.01 * (chance - least)] * 8)
    assert "no better than guessing" in refusal(guards(**keys), *[chance - 0.001 * (chance - least)] * 8)


def test_mixing_two_classes_leaves_room():
    # Half of all pairs mix the classes evenly, the worst case, and all is learnt.
    feed(guards(num_classes=2, label_smoothing=0.0), *[0.5 * math.log(2)] * 8)


def test_one_class_is_no_guess():
    feed(guards(num_classes=1), *[0.0] * 20)


def test_an_epoch_of_overflows_alone_says_nothing_about_guessing():
    feed(guards(max_overflows=100), *[INF] * 20, loss_scale=2.0)


# ---------------------------------------------------------------------------------------------------------------------
# Resume


@pytest.mark.parametrize("saved", [0, 1, 3, 4, 5, 6, 7])
def test_a_resumed_run_ends_at_the_same_update(saved):
    for losses in ([1.0, 1.0, INF, 1.0, 1.0, INF, INF, INF], [1.0] * 4 + [8.0, 6.0, 6.9, 6.9]):
        whole = refusal(guards(), *losses, loss_scale=8.0)
        guard = guards()
        feed(guard, *losses[:saved], loss_scale=8.0)
        resumed = guards(json.loads(json.dumps(guard.state())))
        assert resumed.overflows == guard.overflows
        assert refusal(resumed, *losses[saved:], first=saved + 1, loss_scale=8.0) == whole
