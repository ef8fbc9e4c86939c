"""The run directory alone, with made-up tensors: what counts, what is kept, what is refused."""

from pathlib import Path

import numpy as np
import pytest

from src.errors import ConfigError, ModelFileError, NumbersError
from src.models import resolved
from src.trainers.checkpoints import RunFolder, best_epoch
from src.weights.manifest import manifest_path, read_manifest, verified_manifest
from tests import small_run

CLASSES = ("cat", "dog")


def open_folder(path: Path, steps_per_epoch: int = 5, update_size: int = 4, **flags: object) -> RunFolder:
    config = resolved(small_run.config(path / "data", path, **flags))
    return RunFolder(path / "ckpt_0", config, CLASSES, steps_per_epoch, update_size)


def run_epochs(folder: RunFolder, accuracies: dict[int, float]) -> None:
    epochs = []
    for epoch, top1 in accuracies.items():
        epochs.append({"epoch": epoch, "top1": top1})
        folder.save({"weight": np.full((2, 3), epoch, np.float32)}, 5 * epoch, {"applied": 5 * epoch}, epochs)


@pytest.fixture
def folder(tmp_path):
    opened = open_folder(tmp_path)
    assert opened.find_resume() is None
    assert opened.begin(None) == (0, {})
    run_epochs(opened, {1: 0.5, 2: 0.75, 3: 0.75, 4: 0.25})
    return opened


def epochs_in(folder: RunFolder) -> list[int]:
    paths = [path for path in folder.path.glob("*.ckpt") if path.name != "best.ckpt"]
    return sorted(read_manifest(path).epoch for path in paths)


def test_newest_and_first_best_are_kept(folder):
    assert epochs_in(folder) == [3, 4]
    assert verified_manifest(folder.path / "best.ckpt").epoch == 2


def test_resume_takes_the_newest_by_step_not_by_time(folder, tmp_path):
    newest = folder.path / "vit_tiny_patch16_2240-4_5.ckpt"
    (folder.path / "vit_tiny_patch16_2240-3_5.ckpt").touch()
    assert open_folder(tmp_path).find_resume().path == newest


def test_zoo_name_and_global_facts(folder):
    manifest = verified_manifest(folder.path / "vit_tiny_patch16_2240-4_5.ckpt")
    assert (manifest.epoch, manifest.step, manifest.steps_per_epoch) == (4, 20, 5)
    assert manifest.class_names == list(CLASSES)
    assert manifest.shapes == {"weight": [2, 3]}
    assert manifest.config["base_lr"] == 1e-2
    assert {"python", "mindspore", "commit"} <= manifest.versions.keys()


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damaged_newest_falls_back(damage, folder, tmp_path):
    newest = folder.path / "vit_tiny_patch16_2240-4_5.ckpt"
    content = bytearray(newest.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
    newest.write_bytes(content[: len(content) - (damage == "truncate")])
    if damage == "remove":
        manifest_path(newest).unlink()
    assert open_folder(tmp_path).find_resume().path.name == "vit_tiny_patch16_2240-3_5.ckpt"


def test_what_a_run_goes_on_with(folder, tmp_path):
    manifest_path(folder.path / "vit_tiny_patch16_2240-4_5.ckpt").unlink()
    again = open_folder(tmp_path)
    assert again.begin(again.find_resume()) == (15, {"applied": 15, "update_size": 4, "branch": 0, "origin": ""})


def test_a_checkpoint_inside_an_epoch(folder, tmp_path):
    epochs = [{"epoch": epoch, "top1": 0.9} for epoch in (1, 2, 3, 4)]
    target = folder.save({"weight": np.zeros((2, 3), np.float32)}, 22, {}, epochs)
    assert target.name == "vit_tiny_patch16_2240-5_2.ckpt"
    assert (read_manifest(target).epoch, read_manifest(target).step) == (4, 22)
    assert verified_manifest(folder.path / "best.ckpt").epoch == 2
    again = open_folder(tmp_path)
    assert again.find_resume().path == target
    assert again.begin(again.find_resume())[0] == 22


def test_updates_of_another_size(folder, tmp_path):
    """Twenty images: 4 epochs of 5 updates of 4 are 4 of 2 updates of 8 and of 10 updates of 2."""
    for steps, size, step in ((2, 8, 8), (10, 2, 40)):
        again = open_folder(tmp_path, steps_per_epoch=steps, update_size=size)
        assert again.begin(again.find_resume())[0] == step
    epochs = [{"epoch": epoch, "top1": 0.1} for epoch in (1, 2, 3, 4)]
    folder.save({"weight": np.zeros((2, 3), np.float32)}, 23, {}, epochs)
    for steps, size, step in ((2, 8, 9), (10, 2, 46)):
        again = open_folder(tmp_path, steps_per_epoch=steps, update_size=size)
        assert again.begin(again.find_resume())[0] == step
    # Four of five updates would be the whole of an epoch of two: the last one is done again.
    folder.save({"weight": np.zeros((2, 3), np.float32)}, 24, {}, epochs)
    again = open_folder(tmp_path, steps_per_epoch=2, update_size=8)
    assert again.begin(again.find_resume())[0] == 9
    with pytest.raises(ConfigError, match=r"^data_url: holds other data.*3 updates of 8 images.*5 updates of 4 images"):
        open_folder(tmp_path, steps_per_epoch=3, update_size=8).find_resume()


def test_damaged_checkpoints_of_later_updates_do_not_push_out_new_ones(folder, tmp_path):
    for epoch in (3, 4):
        (folder.path / f"vit_tiny_patch16_2240-{epoch}_5.ckpt").write_bytes(b"damaged")
    again = open_folder(tmp_path)
    assert again.find_resume() is None
    run_epochs(again, {1: 0.5, 2: 0.25, 3: 0.25})
    assert open_folder(tmp_path).find_resume().path.name == "vit_tiny_patch16_2240-3_5.ckpt"
    assert epochs_in(again) == [2, 3, 4]
    run_epochs(again, {1: 0.5, 2: 0.25, 3: 0.25, 4: 0.25})
    assert epochs_in(again) == [3, 4]


def test_the_newest_of_updates_of_two_sizes_is_the_one_that_has_come_furthest(folder, tmp_path):
    larger = open_folder(tmp_path, steps_per_epoch=2, update_size=10, batch_size=10)
    assert larger.begin(larger.find_resume())[0] == 8
    saved = larger.save({"weight": np.zeros((2, 3), np.float32)}, 9, {}, [])
    assert larger.find_resume().path == saved
    assert sorted(path.name for path in larger.path.glob("vit*.ckpt")) == [
        f"vit_tiny_patch16_2240-{name}.ckpt" for name in ("4_5", "5_1")
    ]


def test_settings_may_change_where_the_checkpoint_is_named(folder, tmp_path, capsys):
    newest = folder.path / "vit_tiny_patch16_2240-4_5.ckpt"
    with pytest.raises(ConfigError, match=r"base_lr 0.01 -> 0.5"):
        open_folder(tmp_path, base_lr=0.5).find_resume()
    assert open_folder(tmp_path, base_lr=0.5, resume=newest).find_resume().path == newest
    assert capsys.readouterr().err == "warning: going on with another setting: base_lr 0.01 -> 0.5\n"


def test_keys_of_other_commands_change_no_run(folder, tmp_path):
    newest = folder.path / "vit_tiny_patch16_2240-4_5.ckpt"
    free = {"metrics": "per_class", "tolerance": 0.5, "report": True, "verified_export": True, "check_images": "warn"}
    assert open_folder(tmp_path, **free).find_resume().path == newest


def test_a_run_that_went_back_goes_on_from_there(folder, tmp_path):
    """What had come further is neither taken for the newest nor a reason to drop what is saved now."""
    epochs = [{"epoch": 1, "top1": 0.5}, {"epoch": 2, "top1": 0.75}]
    named = folder.path / "vit_tiny_patch16_2240-3_5.ckpt"
    flags = dict(resume=named, keep_checkpoint_max=1)
    again = open_folder(tmp_path, **flags)
    assert again.begin(again.find_resume())[0] == 15
    target = again.save({"weight": np.zeros((2, 3), np.float32)}, 16, {}, epochs)
    assert target.exists()
    assert open_folder(tmp_path).find_resume().path == target
    # The same command goes on, and does not begin at the file again.
    third = open_folder(tmp_path, **flags)
    assert third.find_resume().path == target
    assert third.begin(again.find_resume())[0] == 16
    assert third.branch == again.branch == 1


def test_a_run_that_went_back_and_lost_its_own_begins_there_again(folder, tmp_path, capsys):
    named = folder.path / "vit_tiny_patch16_2240-3_5.ckpt"
    flags = dict(resume=named, keep_checkpoint_max=3)
    again = open_folder(tmp_path, **flags)
    again.begin(again.find_resume())
    target = again.save({"weight": np.zeros((2, 3), np.float32)}, 16, {}, [])
    target.write_bytes(b"damaged")
    third = open_folder(tmp_path, **flags)
    assert third.find_resume().path == named
    assert "is damaged" in capsys.readouterr().err
    assert third.begin(third.find_resume())[0] == 15
    assert third.branch == 2


def test_an_epoch_that_was_not_evaluated_is_not_the_best(folder):
    epochs = [
        {"epoch": 1, "top1": 0.1},
        {"epoch": 2, "top1": 0.2},
        {"epoch": 3, "top1": 0.3},
        {"epoch": 4, "top1": 0.9},
    ]
    before = read_manifest(folder.path / "best.ckpt").sha256
    folder.save({"weight": np.ones((2, 3), np.float32)}, 25, {"is_open": True}, epochs)
    assert read_manifest(folder.path / "best.ckpt").sha256 == before


def test_the_best_epoch_is_the_first_with_the_highest_top1_or_that_of_the_average():
    epochs = [{"epoch": 1, "top1": 0.5}, {"epoch": 2, "top1": 0.75}, {"epoch": 3, "top1": 0.75}, {"epoch": 4}]
    assert best_epoch([]) is None
    assert best_epoch([{"epoch": 1}]) is None
    assert best_epoch(epochs) == 2
    averaged = [{"epoch": n, "top1": 1 / n, "ema_top1": n / 10} for n in (1, 2, 3)]
    assert best_epoch(averaged) == 3
    assert best_epoch([{"epoch": 1, "top1": 0.9, "ema_top1": 0.0}, {"epoch": 2, "top1": 0.1, "ema_top1": 0.1}]) == 2


def test_leftovers_of_a_kill_are_swept(folder, tmp_path):
    leftover = folder.path / ".partial-0123456789ab-x.ckpt"
    leftover.write_bytes(b"half")
    again = open_folder(tmp_path)
    found = again.find_resume()
    # To look for a checkpoint changes nothing; to begin does.
    assert leftover.exists()
    again.begin(found)
    assert not leftover.exists()


def test_kill_between_the_renames_of_the_best(folder, tmp_path):
    run_epochs(folder, {4: 0.25, 5: 0.9})
    newest, best = folder.path / "vit_tiny_patch16_2240-5_5.ckpt", folder.path / "best.ckpt"
    # best.ckpt is new, best.json still of epoch 2.
    stale = read_manifest(best).model_copy(update={"epoch": 2, "sha256": "0" * 64})
    manifest_path(best).write_text(stale.model_dump_json())
    assert verified_manifest(best).epoch == 5
    again = open_folder(tmp_path)
    again.begin(again.find_resume())
    again.mend_best([{"epoch": 4, "top1": 0.25}, {"epoch": 5, "top1": 0.9}])
    assert read_manifest(best).sha256 == read_manifest(newest).sha256


def test_weights_that_are_not_finite_are_not_saved(folder):
    with pytest.raises(NumbersError, match="weight"):
        folder.save({"weight": np.array([[np.nan]], np.float32)}, 25, {}, [{"epoch": 5, "top1": 1.0}])
    assert epochs_in(folder) == [3, 4]


def test_failed_write_keeps_what_was_there(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = {path.name: path.read_bytes() for path in folder.path.glob("*.ckpt")}
    monkeypatch.setattr("src.files._sync", full)
    with pytest.raises(OSError, match="No space left"):
        run_epochs(folder, {5: 1.0})
    assert {path.name: path.read_bytes() for path in folder.path.glob("*.ckpt")} == before
    assert not list(folder.path.glob(".partial-*"))


def test_checkpoint_of_no_run_is_not_resumed(folder, tmp_path):
    foreign = tmp_path / "foreign.ckpt"
    foreign.write_bytes((folder.path / "best.ckpt").read_bytes())
    with pytest.raises(ModelFileError, match="use --pretrained"):
        open_folder(tmp_path, resume=foreign).find_resume()


def test_configuration_is_kept_and_loads_back(folder, tmp_path):
    from src.config import load_config

    text = (folder.path / "config.yaml").read_text()
    assert "# mindspore 2.10" in text
    assert load_config("train", ["--config", str(folder.path / "config.yaml")]) == folder.config
