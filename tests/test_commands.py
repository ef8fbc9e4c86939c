"""What users type wrong: one clear line on stderr and the exit code of its kind, for every entry script."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from src import device
from src.config import load_config
from src.files import locked
from src.weights.write import write_ckpt
from tests import small_run
from tests.command import command
from tests.cpp_runner import ROOT

DIGITS = str(ROOT / "configs" / "cct_2_3x2_digits.yaml")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small_run.write_images(tmp_path_factory.mktemp("data"))


def small(data: Path, **flags: object) -> list[str]:
    return small_run.arguments(data, Path("out"), **flags)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--epoch", "2"], ["--epoch: no such flag", "--epochs"]),
        (["--epochs", "many"], ["--epochs: must be a whole number. Received: many"]),
        (["--epochs", "0"], ["--epochs: must be greater than or equal to 1. Received: 0"]),
        (["--lr_scheduler", "cos"], ["not one of the choices. Received: cos. Known: cosine_lr"]),
        (["--do_val", "maybe"], ["--do_val: must be True or False. Received: maybe"]),
        (["--beta", "0.9"], ["--beta: must be a list of 2 numbers"]),
        (["epochs=2"], ["command line: expects --key value. Received: epochs=2"]),
        (["--config", "absent.yaml"], ["--config: no such file. Received: absent.yaml"]),
        (["--arch", "cct_2_3x2_33", "--set", "digits"], ["arch: no such model", "Known: cct_2_3x2_32"]),
        (["--arch", "vit_base_patch16_224", "--image_size", "30", "--num_classes", "10"], ["multiple of patch_size"]),
        (["--arch", "cct_2_3x2_32", "--device_target", "Ascend"], ["device_target: cannot be opened"]),
        (["--in_channels", "1"], ["in_channels: not built yet. Received: 1. Known: 3"]),
        (["--start_epoch", "300"], ["start_epoch: must be less than the 300 epochs of the run. Received: 300"]),
    ],
)
def test_usage_is_exit_2(words, expected):
    code, _, lines = command("train", "--set", "digits", "--num_classes", "10", *words)
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert all(part in lines[0] for part in expected), lines


def test_all_faults_of_a_yaml_at_once(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("arch: cct_2_3x2_32\nepoch: 3\nbase_lr: fast\nbatch_sise: 4\n")
    code, _, lines = command("train", "--config", path, "--seed", "-1")
    assert code == 2
    assert [line.split(": ")[2] for line in lines[:2]] == ["epoch", "batch_sise"]
    assert sorted(line.split(" ")[1].rstrip(":") for line in lines) == ["--seed", *[f"{path}"] * 3]


@pytest.mark.parametrize(
    "text", ["arch: [", "arch: a\narch: b\n", "- 1\n", "a: &x 1\nb: *x\n", "a: !!python/none x\n", "\0"]
)
def test_broken_yaml(text, tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    code, _, lines = command("train", "--config", path)
    assert (code, len(lines)) == (2, 1)
    assert str(path) in lines[0]


def without_class(root: Path) -> None:
    for split in ("train", "val"):
        shutil.rmtree(root / split / "circle")


def damage_image(root: Path) -> None:
    path = next((root / "train" / "circle").iterdir())
    path.write_bytes(path.read_bytes()[:100])


def empty_class(root: Path) -> None:
    shutil.rmtree(root / "val" / "circle")
    (root / "val" / "circle").mkdir()


def one_class(root: Path) -> None:
    for name in small_run.CLASS_NAMES[1:]:
        shutil.rmtree(root / "train" / name)


def other_val_class(root: Path) -> None:
    (root / "val" / "circle").rename(root / "val" / "round")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (shutil.rmtree, "no such folder"),
        (lambda root: shutil.rmtree(root / "val"), "must hold a folder val"),
        (without_class, "holds 2 classes, the model has num_classes 3"),
        (one_class, "at least two class folders"),
        (empty_class, "class folders without images"),
        (other_val_class, "same class folders as train"),
    ],
)
def test_data_is_exit_3(change, expected, data, tmp_path):
    copy = Path(shutil.copytree(data, tmp_path / "copy"))
    change(copy)
    code, _, lines = command("train", *small(copy))
    assert (code, len(lines)) == (3, 1), lines
    assert expected in lines[0]
    assert not list(Path("out").rglob("*.ckpt"))


def test_an_image_at_fault_is_exit_3_and_the_run_goes_on_once_it_is_mended(data, tmp_path):
    copy = Path(shutil.copytree(data, tmp_path / "copy"))
    damage_image(copy)
    code, _, lines = command("train", *small(copy))
    assert (code, len(lines)) == (3, 1), lines
    assert "cannot be decoded" in lines[0]
    assert [path.name for path in Path("out").rglob("*.ckpt")] == ["vit_tiny_patch16_2240-1_2.ckpt"]
    shutil.copytree(data, copy, dirs_exist_ok=True)
    code, said, _ = command("train", *small(copy))
    assert code == 0
    assert any("resuming after epoch 0 and 2 of 3 steps" in line for line in said)


def test_batch_larger_than_the_data(data):
    code, _, lines = command("train", *small(data, batch_size=13))
    assert (code, len(lines)) == (3, 1)
    assert "at most the 12 training images. Received: 13" in lines[0]


@pytest.mark.parametrize("name", ["eval", "export", "verify"])
def test_weights_must_be_given(name, data):
    code, _, lines = command(name, *small(data), *(["--mindir_path", "x"] if name == "verify" else []))
    assert (code, len(lines)) == (2, 1)
    assert "pretrained: must name a weight file" in lines[0]


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b""), "holds no tensors"),
        (lambda path: path.write_bytes(b"text, not a checkpoint"), "damaged or not a MindSpore checkpoint"),
        (lambda path: write_ckpt(path, {"head.weight": np.zeros((3, 16), np.float32)}), "does not fit the model"),
    ],
)
@pytest.mark.parametrize("name", ["eval", "export"])
def test_weights_are_exit_4(write, expected, name, data):
    write(Path("weights.ckpt"))
    code, _, lines = command(name, *small(data, pretrained="weights.ckpt"))
    assert (code, len(lines)) == (4, 1)
    assert expected in lines[0]
    assert not list(Path().rglob("*.mindir"))


@pytest.mark.parametrize("name", ["eval", "export", "verify"])
def test_weights_of_other_classes_are_for_training_alone(name, data):
    weights = small_run.write_weights(Path("weights.ckpt"), num_classes=4)
    for image in (data / "val").rglob("*.png"):
        result = Path("results", image.parent.name, f"{image.stem}_0.bin")
        result.parent.mkdir(parents=True, exist_ok=True)
        np.zeros(3, np.float32).tofile(result)
    code, _, lines = command(name, *small(data, pretrained=weights, reset_head=True, result_dir="results"))
    assert (code, len(lines)) == (4, 1)
    assert "2 wrong shape: head.bias (4,) for (3,), head.weight (4, 16) for (3, 16)" in lines[0]
    assert not list(Path().rglob("*.mindir"))


def test_unknown_kind_of_weights(data):
    Path("weights.onnx").write_bytes(b"x")
    code, _, lines = command("eval", *small(data, pretrained="weights.onnx"))
    assert code == 4
    assert "unknown kind of weight file. Received: .onnx. Known: .ckpt, .safetensors, " in lines[0]


def test_output_that_cannot_be_written(data):
    Path("out").write_text("a file, not a folder")
    code, _, lines = command("train", *small(data))
    assert (code, lines) == (1, ["error: out/ckpt_0: not a directory"])
    assert Path("out").read_text() == "a file, not a folder"


def test_run_directory_in_use(data):
    with locked(Path("out/ckpt_0")):
        code, _, lines = command("train", *small(data))
    assert (code, len(lines)) == (2, 1)
    assert "another run is using this folder" in lines[0]


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        ([], 2, "--data_path: must be given"),
        (["--data_path", "absent"], 3, "data_path: no such folder. Received: absent"),
        (["--data_path", ".", "--dataset_name", "mnist"], 2, "Known: imagenet2012, folder, cifar10"),
        (["--data_path", ".", "--model_info", "absent.json"], 3, "at least two class folders"),
    ],
)
def test_preprocess(words, code, expected):
    found, _, lines = command("preprocess", *words)
    assert (found, len(lines)) == (code, 1)
    assert expected in lines[0]


def test_postprocess_with_fewer_results_than_images():
    Path("labels.json").write_text(json.dumps({"a/1.png": 0, "a/2.png": 0}))
    Path("results/a").mkdir(parents=True)
    np.zeros(3, np.float32).tofile("results/a/1_0.bin")
    code, _, lines = command("postprocess", "--result_dir", "results", "--label_file", "labels.json")
    assert (code, lines) == (3, ["error: results: results are missing: 1 of 2. Received: a/2_0.bin"])


def test_wrong_python_and_numpy(monkeypatch):
    real = device.package_version
    monkeypatch.setattr(device, "package_version", lambda name: "2.2.0" if name == "numpy" else real(name))
    code, _, lines = command("train")
    assert (code, len(lines)) == (1, 1)
    assert "numpy: MindSpore 2.10 needs numpy below 2" in lines[0]
    monkeypatch.setattr(device, "package_version", lambda name: None if name == "mindspore" else real(name))
    assert "packages are missing" in command("train")[2][0]
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert "needs 3.10, 3.11 or 3.12" in command("train")[2][0]
    # Counting results needs neither.
    assert command("postprocess", needs=("numpy",))[0] == 3


def test_interrupt_is_exit_75(monkeypatch):
    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr("train.main", interrupted)
    assert command("train") == (75, [], ["error: interrupted, run the same command to go on"])


def test_print_config_loads_back(tmp_path):
    code, lines, _ = command("train", "--config", DIGITS, "--epochs", "7", "--print_config")
    assert code == 0
    path = tmp_path / "printed.yaml"
    path.write_text("\n".join(lines))
    assert load_config("train", ["--config", str(path)]) == load_config("train", ["--config", DIGITS, "--epochs", "7"])
