"""A run that is cut off, stopped or gone back in, and goes on, on a tiny model."""

import os
import signal

import numpy as np
import pytest

from src.errors import ConfigError, ModelFileError
from src.trainers.evaluator import evaluate_checkpoint
from src.trainers.trainer import train
from src.trainers.training_run import TrainingRun
from src.weights.manifest import read_manifest
from src.weights.read import read_tensors
from tests import small_run
from tests.trainers.runs import assert_equal_runs, final, history, warnings


class CutError(Exception):
    """Stands for a kill."""


def cut_after(monkeypatch, updates: int) -> None:
    """The process dies when this many updates are done."""
    original = TrainingRun.update

    def dying(run, is_asked_to_stop):
        if run.step == updates:
            raise CutError
        return original(run, is_asked_to_stop)

    monkeypatch.setattr(TrainingRun, "update", dying)


@pytest.mark.slow
def test_cut_off_run_goes_on_to_the_same_bits(whole_run, data, tmp_path, monkeypatch, capsys):
    config = small_run.config(data, tmp_path)
    with monkeypatch.context() as patch:
        cut_after(patch, updates=6)
        with pytest.raises(CutError):
            train(config)
    # The newest checkpoint got damaged as well: the one before it is used.
    newest = tmp_path / "ckpt_0" / "vit_tiny_patch16_2240-2_3.ckpt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    assert_equal_runs(train(config), whole_run)
    assert "resuming after epoch 1" in capsys.readouterr().out


def test_finished_run_is_left_alone(whole_run, data, capsys):
    before = {path.name: path.read_bytes() for path in whole_run.glob("*.ckpt")}
    train(small_run.config(data, whole_run.parent))
    assert {path.name: path.read_bytes() for path in whole_run.glob("*.ckpt")} == before
    assert "train success" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "error", "words"),
    [
        ({"resume": "none"}, ConfigError, "holds a run"),
        ({"epochs": 5}, ConfigError, "epochs 4 -> 5"),
        ({"seed": 7, "base_lr": 0.5}, ConfigError, "base_lr 0.01 -> 0.5; seed 0 -> 7"),
        ({"resume": "absent.ckpt"}, ModelFileError, "absent.ckpt: no such file"),
    ],
)
def test_refused_resume_names_the_reason_and_keeps_the_run(flags, error, words, whole_run, data):
    before = {path.name: path.read_bytes() for path in whole_run.iterdir() if path.is_file()}
    with pytest.raises(error, match=words):
        train(small_run.config(data, whole_run.parent, **flags))
    assert {path.name: path.read_bytes() for path in whole_run.iterdir() if path.is_file()} == before


# Whatever has a state of its own.
ALL_ON = dict(
    accumulation_step=1,
    with_ema=True,
    ema_decay=0.9,
    ema_warmup=True,
    amp_level="O2",
    initial_loss_scale=2.0**10,
    loss_scale_window=2,
    drop_path_rate=0.2,
    mix_up=0.8,
    save_steps=1,
    log_every=2,
)


@pytest.fixture(scope="module")
def whole_run_with_all(data, tmp_path_factory):
    return train(small_run.config(data, tmp_path_factory.mktemp("all"), **ALL_ON))


@pytest.mark.parametrize(
    "stop_after", [pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(7, marks=pytest.mark.slow)]
)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(stop_after, whole_run_with_all, data, tmp_path, capsys):
    """In an epoch and at its end; scale, moving average, logs and all."""
    with pytest.raises(KeyboardInterrupt):
        train(small_run.config(data, tmp_path, stop_after=stop_after, **ALL_ON))
    assert "the state is saved" in capsys.readouterr().out
    assert_equal_runs(train(small_run.config(data, tmp_path, **ALL_ON)), whole_run_with_all)
    best, other = (read_tensors(folder / "best.ckpt") for folder in (tmp_path / "ckpt_0", whole_run_with_all))
    assert all(np.array_equal(best[name], other[name]) for name in other)


@pytest.mark.parametrize("updates", [4, pytest.param(11, marks=pytest.mark.slow)])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(updates, whole_run_with_all, data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        cut_after(patch, updates)
        with pytest.raises(CutError):
            train(small_run.config(data, tmp_path, **ALL_ON))
    assert_equal_runs(train(small_run.config(data, tmp_path, **ALL_ON)), whole_run_with_all)


@pytest.mark.slow
def test_a_kill_in_the_evaluation_goes_on_to_the_same_bits(whole_run_with_all, data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        original = TrainingRun.evaluation

        def dying(run, stop):
            if run.step == 6:
                run.save()
                raise CutError
            return original(run, stop)

        patch.setattr(TrainingRun, "evaluation", dying)
        with pytest.raises(CutError):
            train(small_run.config(data, tmp_path, **ALL_ON))
    assert_equal_runs(train(small_run.config(data, tmp_path, **ALL_ON)), whole_run_with_all)


@pytest.mark.slow
def test_a_signal_in_the_evaluation_of_the_average_saves_the_weights_themselves(
    whole_run_with_all, data, tmp_path, monkeypatch
):
    original, seen = TrainingRun.eval_batches, []

    def asking(run, stop):
        seen.append(run.step)
        for batch in original(run, stop):
            # The fourth evaluation is that of the second epoch's moving average.
            if len(seen) == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch
            if len(seen) == 4:
                assert stop.is_made

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "eval_batches", asking)
        with pytest.raises(KeyboardInterrupt):
            train(small_run.config(data, tmp_path, **ALL_ON))
    assert seen == [3, 3, 6, 6]
    manifest = read_manifest(tmp_path / "ckpt_0" / "vit_tiny_patch16_2240-2_3.ckpt")
    assert manifest.state["is_open"]
    assert_equal_runs(train(small_run.config(data, tmp_path, **ALL_ON)), whole_run_with_all)


def test_what_is_in_a_checkpoint(whole_run_with_all):
    manifest = read_manifest(whole_run_with_all / "vit_tiny_patch16_2240-4_3.ckpt")
    assert manifest.step == manifest.state["applied"] == 12
    assert manifest.state["loss_scale"] == {"value": 2.0**16, "quiet": 0}
    assert not manifest.state["is_open"]
    names = set(final(whole_run_with_all))
    weights = {name for name in names if not name.startswith(("moment", "ema.", "global_step"))}
    assert {f"ema.{name}" for name in weights} <= names
    line = history(whole_run_with_all)[-1]
    assert {"ema_top1", "ema_top5", "ema_val_loss"} <= line.keys()


def test_the_moving_average_is_evaluated_on_request(whole_run_with_all, data, tmp_path):
    best = whole_run_with_all / "best.ckpt"
    line = next(line for line in history(whole_run_with_all) if line["epoch"] == read_manifest(best).epoch)
    for use_ema, prefix in ((False, ""), (True, "ema_")):
        result = evaluate_checkpoint(small_run.config(data, tmp_path, pretrained=best, use_ema=use_ema)).result
        assert result.counts.top1_accuracy == line[f"{prefix}top1"]
        assert result.loss == pytest.approx(line[f"{prefix}val_loss"], abs=1e-6)


@pytest.mark.slow
def test_a_checkpoint_goes_on_with_another_number_of_images_per_update(data, tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        train(small_run.config(data, tmp_path, stop_after=4))
    folder = train(small_run.config(data, tmp_path, batch_size=2))
    assert (
        "going on with 2 images per update in place of 4: update 4 of the run is now update 8"
        in capsys.readouterr().out
    )
    assert [line["epoch"] for line in history(folder)] == [1, 2, 3, 4]
    assert read_manifest(folder / "vit_tiny_patch16_2240-4_6.ckpt").step == 24


@pytest.mark.slow
def test_another_setting_goes_on_where_the_checkpoint_is_named(whole_run, data, tmp_path, capsys):
    named = whole_run / "vit_tiny_patch16_2240-3_3.ckpt"
    train(small_run.config(data, tmp_path, resume=named, base_lr=1e-3))
    assert "warning: going on with another setting: base_lr 0.01 -> 0.001" in warnings(capsys)
    assert read_manifest(tmp_path / "ckpt_0" / "vit_tiny_patch16_2240-4_3.ckpt").step == 12


@pytest.mark.slow
def test_every_few_epochs_a_checkpoint_stays(data, tmp_path):
    folder = train(small_run.config(data, tmp_path, keep_every=2, keep_checkpoint_max=1, epochs=5))
    kept = {read_manifest(path).epoch for path in folder.glob("vit*.ckpt")}
    assert kept == {2, 4, 5}
