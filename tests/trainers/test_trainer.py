"""A run from start to end, cut off and gone on with, on a tiny model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from src.errors import ConfigError, DataError, ModelFileError, NumbersError
from src.trainers import trainer
from src.trainers.evaluator import evaluate_checkpoint
from src.trainers.trainer import train
from src.weights.manifest import read_manifest
from src.weights.read import read_tensors
from tests import small_run


class CutError(Exception):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small_run.write_images(tmp_path_factory.mktemp("da ta"))


@pytest.fixture(scope="module")
def whole_run(data, tmp_path_factory):
    """The directory of an uninterrupted run of four epochs."""
    return train(small_run.config(data, tmp_path_factory.mktemp("whole")))


def history(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def final(folder: Path) -> dict[str, np.ndarray]:
    return read_tensors(folder / "vit_tiny_patch16_2240-4_3.ckpt")


def assert_equal_runs(folder: Path, other: Path) -> None:
    mine, theirs = final(folder), final(other)
    assert mine.keys() == theirs.keys()
    for name in mine:
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)
    assert history(folder) == history(other)


def cut_after(monkeypatch, epochs: int) -> None:
    """The process dies at the start of the epoch after these."""
    original = trainer.train_epoch

    def dying(one, epoch, batches):
        if epoch == epochs:
            raise CutError
        return original(one, epoch, batches)

    monkeypatch.setattr(trainer, "train_epoch", dying)


def test_run_directory(whole_run):
    names = {path.name for path in whole_run.iterdir()}
    stem = "vit_tiny_patch16_2240"
    kept = {f"{stem}-{epoch}_3.{suffix}" for epoch in (3, 4) for suffix in ("ckpt", "json")}
    assert names == kept | {"best.ckpt", "best.json", "config.yaml", "metrics.jsonl", ".lock"}
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


def test_cut_off_run_goes_on_to_the_same_bits(whole_run, data, tmp_path, monkeypatch, capsys):
    config = small_run.config(data, tmp_path)
    with monkeypatch.context() as patch:
        cut_after(patch, epochs=2)
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
    before = {path.name: path.read_bytes() for path in whole_run.iterdir()}
    with pytest.raises(error, match=words):
        train(small_run.config(data, whole_run.parent, **flags))
    assert {path.name: path.read_bytes() for path in whole_run.iterdir()} == before


def test_divergence_ends_the_run_and_keeps_the_checkpoint(data, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "learning_rate", lambda step, *_: 1e30 if step >= 3 else 1e-3)
    with pytest.raises(NumbersError, match=r"epoch 2 step [23]: loss or gradient is not finite"):
        train(small_run.config(data, tmp_path, epochs=2))
    assert [path.name for path in (tmp_path / "ckpt_0").glob("vit*.ckpt")] == ["vit_tiny_patch16_2240-1_3.ckpt"]
    assert len(history(tmp_path / "ckpt_0")) == 1


def test_waiting_for_data_is_told(capsys, monkeypatch):
    monkeypatch.setattr(trainer, "num_cores", lambda: 8)
    trainer.print_data_wait(1.9, 10.0, 2)
    assert capsys.readouterr().err == ""
    trainer.print_data_wait(3.8, 10.0, 2)
    assert capsys.readouterr().err == "warning: data wait 38 % of step time: try num_parallel_workers 8\n"
    trainer.print_data_wait(3.8, 10.0, 8)
    assert capsys.readouterr().err == ("warning: data wait 38 % of step time: smaller files or more cores would help\n")


def warnings(capsys) -> list[str]:
    """What was printed on stderr, without the hint that depends on the machine."""
    return [line for line in capsys.readouterr().err.splitlines() if "data wait" not in line]


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


def test_what_is_left_out_is_told_after_its_epoch_and_not_again(tmp_path, capsys, monkeypatch):
    data = small_run.write_images(tmp_path / "data")
    first, last = sorted((data / "train" / "circle").iterdir())[:2]
    damaged_in = {0: first, 2: last}
    original, told = trainer.train_and_save_epoch, []

    def watched(one, folder, epoch, *reading):
        if epoch in damaged_in:
            damaged_in[epoch].write_bytes(b"no image")
        original(one, folder, epoch, *reading)
        told.append(warnings(capsys))

    monkeypatch.setattr(trainer, "train_and_save_epoch", watched)
    train(small_run.config(data, tmp_path, epochs=3, on_bad_image="skip"))
    assert told == [
        ["warning: left out, cannot be read: 1 of the images", f"warning: {first}: not an image"],
        [],
        ["warning: left out, cannot be read: 1 more of the images", f"warning: {last}: not an image"],
    ]
    assert warnings(capsys) == []


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
        train(small_run.config(data, tmp_path, with_ema=True, in_channels=1))
    assert [line.split(":")[0] for line in caught.value.lines] == ["with_ema", "in_channels"]
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
    result = evaluate_checkpoint(small_run.config(data, whole_run.parent, pretrained=best))
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
