"""Runs from start to end, and evaluation, on a tiny model."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from src.errors import ConfigError, DataError, ModelFileError, NumbersError
from src.trainers import trainer, training_run
from src.trainers.evaluator import evaluate_checkpoint
from src.trainers.trainer import train
from src.trainers.training_run import TrainingRun
from src.weights.manifest import read_manifest
from src.weights.read import read_tensors
from tests import small_run
from tests.trainers.runs import final, history, warnings


def test_run_directory(whole_run):
    names = {path.name for path in whole_run.iterdir()}
    stem = "vit_tiny_patch16_2240"
    kept = {f"{stem}-{epoch}_3.{suffix}" for epoch in (3, 4) for suffix in ("ckpt", "json")}
    logs = {"metrics.jsonl", "metrics.csv", "tensorboard"}
    assert names == kept | logs | {"best.ckpt", "best.json", "config.yaml", ".lock"}
    lines = history(whole_run)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert [line["step"] for line in lines] == [3, 6, 9, 12]
    assert all(line["val_images"] == small_run.NUM_VAL for line in lines)
    best = max(lines, key=lambda line: line["top1"])
    assert read_manifest(whole_run / "best.ckpt").epoch == best["epoch"]
    assert int(final(whole_run)["global_step"]) == 12


def test_training_changes_every_weight(whole_run, data, tmp_path):
    # The keys' bias has no gradient: soft-max does not see it. AdamW leaves it at zero, but for rounding.
    start = trainer.build_trainer(trainer.resolved(small_run.config(data, tmp_path))).tensors()
    end = final(whole_run)
    same = [name for name in start if np.array_equal(start[name], end[name])]
    assert same == []


def test_divergence_ends_the_run_and_keeps_the_checkpoint(data, tmp_path, monkeypatch):
    monkeypatch.setattr(training_run, "learning_rate", lambda step, *_: 1e30 if step >= 3 else 1e-3)
    # The step after the one that was too long; what it made of the weights is not saved.
    with pytest.raises(NumbersError, match=r"epoch 2 step [23]: loss or gradient is not finite"):
        train(small_run.config(data, tmp_path, epochs=2))
    assert [path.name for path in (tmp_path / "ckpt_0").glob("vit*.ckpt")] == ["vit_tiny_patch16_2240-1_3.ckpt"]
    assert len(history(tmp_path / "ckpt_0")) == 1


def test_bad_images_are_left_out_on_request_and_named(tmp_path, capsys):
    data = small_run.write_images(tmp_path / "data")
    bad = [sorted((data / split).rglob("*.png"))[1] for split in ("train", "val")]
    for path in bad:
        path.write_bytes(b"no image")
    flags = dict(epochs=2, num_parallel_workers=2)
    with pytest.raises(DataError, match=r"not an image$"):
        train(small_run.config(data, tmp_path / "strict", **flags))
    capsys.readouterr()
    folder = train(small_run.config(data, tmp_path / "run", on_bad_image="skip", **flags))
    assert [line["val_images"] for line in history(folder)] == [small_run.NUM_VAL - 1] * 2
    told = [f"warning: {path}: not an image" for path in bad]
    assert warnings(capsys) == ["warning: left out, cannot be read: 2 of the images", *told]


@pytest.mark.slow
def test_what_is_left_out_is_told_after_its_epoch_and_not_again(tmp_path, capsys, monkeypatch):
    data = small_run.write_images(tmp_path / "data")
    first, last = sorted((data / "train" / "circle").iterdir())[:2]
    damaged_in = {0: first, 6: last}
    update, end_epoch, told = TrainingRun.update, TrainingRun.end_epoch, []

    def damaging(run, is_asked_to_stop):
        if run.step in damaged_in:
            damaged_in[run.step].write_bytes(b"no image")
        return update(run, is_asked_to_stop)

    def watched(run, stop):
        end_epoch(run, stop)
        told.append(warnings(capsys))

    monkeypatch.setattr(TrainingRun, "update", damaging)
    monkeypatch.setattr(TrainingRun, "end_epoch", watched)
    train(small_run.config(data, tmp_path, epochs=3, on_bad_image="skip"))
    assert told == [
        ["warning: left out, cannot be read: 1 of the images", f"warning: {first}: not an image"],
        [],
        ["warning: left out, cannot be read: 1 more of the images", f"warning: {last}: not an image"],
    ]
    assert warnings(capsys) == []


@pytest.mark.slow
def test_everything_that_training_may_do_to_images(data, tmp_path):
    keys = dict(auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.5, mix_up=0.8, cutmix=1.0, mixup_mode="elem")
    keys |= dict(aug_repeats=2, color_jitter=0.4, mixup_off_epoch=1, epochs=2)
    runs = [
        train(small_run.config(data, tmp_path / name, num_parallel_workers=workers, **keys))
        for name, workers in (("here", 0), ("workers", 2))
    ]
    tensors = [read_tensors(folder / "vit_tiny_patch16_2240-2_3.ckpt") for folder in runs]
    assert all(np.array_equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    assert history(runs[0]) == history(runs[1])


def test_features_of_later_are_refused_all_at_once(data, tmp_path):
    with pytest.raises(ConfigError) as caught:
        train(small_run.config(data, tmp_path, in_channels=1, train_url="obs://bucket"))
    assert [line.split(":")[0] for line in caught.value.lines] == ["in_channels", "train_url"]
    assert not (tmp_path / "ckpt_0").exists()


def test_cooldown_start_epoch_layers_and_freezing(data, tmp_path, capsys):
    keys = dict(epochs=2, start_epoch=1, cooldown_epochs=1, min_lr=1e-3, keep_checkpoint_max=3)
    recipe = dict(optimizer="momentum", layer_decay=0.5, freeze="patch_embed.*,blocks.*.norm?.*")
    folder = train(small_run.config(data, tmp_path, **keys, **recipe))
    assert [(line["epoch"], line["step"]) for line in history(folder)] == [(2, 6), (3, 9)]
    assert history(folder)[1]["lr"] == 1e-3
    before, after = (read_tensors(folder / f"vit_tiny_patch16_2240-{epoch}_3.ckpt") for epoch in (2, 3))
    weights = {name for name in after if not name.startswith("moments.")} - {"global_step"}
    stayed = {name for name in weights if np.array_equal(before[name], after[name])}
    frozen = {"patch_embed.proj.weight", "patch_embed.proj.bias"}
    frozen |= {f"blocks.0.norm{index}.{part}" for index in (1, 2) for part in ("gamma", "beta")}
    assert stayed == frozen
    assert {name for name in after if name.startswith("moments.")} == {f"moments.{name}" for name in weights - frozen}
    printed = capsys.readouterr().out
    assert "effective learning rate 0.01 = base_lr, for 4 images per update, not scaled\n" in printed
    assert "=> Start step: 3\n=> Total step: 9\n" in printed


def test_evaluation_gives_the_number_of_training(whole_run, data, capsys):
    best = whole_run / "best.ckpt"
    result = evaluate_checkpoint(small_run.config(data, whole_run.parent, pretrained=best)).result
    line = max(history(whole_run), key=lambda line: line["top1"])
    assert (result.counts.total, result.counts.top1_accuracy) == (small_run.NUM_VAL, line["top1"])
    assert result.loss == pytest.approx(line["val_loss"], abs=1e-6)
    assert f"=> eval results:{{'Loss': {result.loss}, 'Top1-Acc': {line['top1']}" in capsys.readouterr().out


def test_evaluation_refuses_other_classes(whole_run, data, tmp_path):
    other = Path(shutil.copytree(data, tmp_path / "data"))
    for split in ("train", "val"):
        (other / split / "circle").rename(other / split / "disc")
    with pytest.raises(DataError, match="circle, disc"):
        evaluate_checkpoint(small_run.config(other, tmp_path, pretrained=whole_run / "best.ckpt"))


def test_pretrained_weights_start_a_run(whole_run, data, tmp_path, capsys):
    weights = whole_run / "best.ckpt"
    train(small_run.config(data, tmp_path, epochs=1, pretrained=weights, base_lr=1e-12, warmup_lr=0, min_lr=0))
    first = read_tensors(tmp_path / "ckpt_0" / "vit_tiny_patch16_2240-1_3.ckpt")
    loaded = read_tensors(weights)
    np.testing.assert_allclose(first["head.weight"], loaded["head.weight"], atol=1e-7)
    assert f"=> loading pretrained weights from '{weights}'" in capsys.readouterr().out


def test_weights_of_other_classes_start_a_run_with_a_new_head(data, tmp_path, capsys):
    weights = small_run.write_weights(tmp_path / "weights.ckpt", num_classes=4)
    flags = dict(epochs=1, pretrained=weights, base_lr=1e-12, warmup_lr=0, min_lr=0)
    with pytest.raises(ModelFileError, match=r"2 wrong shape: head\.bias \(4,\) for \(3,\)"):
        train(small_run.config(data, tmp_path, reset_head=False, **flags))
    train(small_run.config(data, tmp_path, **flags))
    assert ", reset 2 (head.weight, head.bias)\n" in capsys.readouterr().out
    first = read_tensors(tmp_path / "ckpt_0" / "vit_tiny_patch16_2240-1_3.ckpt")
    loaded = read_tensors(weights)
    np.testing.assert_allclose(first["patch_embed.proj.weight"], loaded["patch_embed.proj.weight"], atol=1e-7)
    assert first["head.weight"].shape == (3, 16)


def test_two_heads_train_together_and_are_evaluated_by_their_mean(data, tmp_path):
    train(small_run.config(data, tmp_path, arch="deit_tiny_distilled_patch16_224", epochs=2))
    assert [row["val_images"] for row in history(tmp_path / "ckpt_0")] == [small_run.NUM_VAL] * 2


@pytest.mark.slow
def test_operator_by_operator_gives_the_same_numbers(data, tmp_path):
    import mindspore as ms

    train(small_run.config(data, tmp_path / "graph", epochs=1))
    try:
        train(small_run.config(data, tmp_path / "operators", graph_mode=1, epochs=1))
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)
    (graph,), (operators,) = (history(tmp_path / name / "ckpt_0") for name in ("graph", "operators"))
    assert operators["loss"] == pytest.approx(graph["loss"], abs=1e-5)
    assert operators["grad_norm"] == pytest.approx(graph["grad_norm"], rel=1e-4)


def test_a_file_without_a_moving_average(whole_run, data, tmp_path):
    with pytest.raises(ModelFileError, match=r"best.ckpt: holds no moving average of the weights: leave use_ema out"):
        evaluate_checkpoint(small_run.config(data, tmp_path, pretrained=whole_run / "best.ckpt", use_ema=True))


@pytest.mark.slow
def test_accumulated_batches_train_as_one_larger_batch(data, tmp_path):
    keys = dict(epochs=2, mix_up=0.8, optimizer="sgd", base_lr=0.1)
    one = train(small_run.config(data, tmp_path / "one", batch_size=4, **keys))
    several = train(small_run.config(data, tmp_path / "several", batch_size=2, accumulation_step=2, **keys))
    mine, theirs = (read_tensors(folder / "vit_tiny_patch16_2240-2_3.ckpt") for folder in (one, several))
    for name, array in mine.items():
        np.testing.assert_allclose(theirs[name], array, rtol=0, atol=2e-6, err_msg=name)


def test_overflows_without_end_stop_the_run_with_the_state_saved(data, tmp_path):
    keys = dict(amp_level="O2", is_dynamic_loss_scale=False, loss_scale=3e38, max_overflows=2)
    with pytest.raises(NumbersError, match=r"^epoch 1 step 2: 2 overflows in a row.*lower loss_scale"):
        train(small_run.config(data, tmp_path, **keys))
    assert read_manifest(tmp_path / "ckpt_0" / "vit_tiny_patch16_2240-1_2.ckpt").state["applied"] == 0


@pytest.mark.slow
def test_overflows_halve_the_scale_and_training_goes_on(data, tmp_path):
    folder = train(small_run.config(data, tmp_path, amp_level="O1", initial_loss_scale=2.0**66, epochs=2))
    state = read_manifest(folder / "vit_tiny_patch16_2240-2_3.ckpt").state
    assert 0 < state["applied"] < 6
    assert state["guards"]["overflows"] == 6 - state["applied"]
    assert state["loss_scale"]["value"] == 2.0 ** (66 - state["guards"]["overflows"])


def test_a_student_learns_from_a_teacher(whole_run, data, tmp_path, capsys):
    keys = dict(distillation_type="soft", teacher_config=whole_run / "config.yaml", epochs=1)
    with pytest.raises(ConfigError, match=r"^teacher_pretrained: must name the teacher's weights"):
        train(small_run.config(data, tmp_path / "none", **keys))
    keys["teacher_pretrained"] = whole_run / "best.ckpt"
    folder = train(small_run.config(data, tmp_path, arch="deit_tiny_distilled_patch16_224", **keys))
    assert f"=> loading teacher 'vit_tiny_patch16_224' from '{whole_run / 'best.ckpt'}'" in capsys.readouterr().out
    assert not [name for name in read_tensors(folder / "best.ckpt") if "teacher" in name]
    with pytest.raises(ConfigError, match=r"^teacher_config: the teacher must have the student's image_size"):
        train(small_run.config(data, tmp_path / "size", **{**keys, "image_size": 32}))
