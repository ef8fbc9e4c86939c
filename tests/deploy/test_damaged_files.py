"""Models, descriptions, inputs, results and labels that are cut short or changed: one line, a known exit code."""

import json
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from src.deploy import verify
from tests import small_run
from tests.command import command

CCT = {"arch": "cct_2_3x2_32", "image_size": 32, "depth": 1, "patch_size": None, "embed_dim": None}
# Of each kind of damage; the long tests take all of them.
FEW, ALL = range(2), range(50)
SOME = pytest.mark.parametrize("seeds", [FEW, pytest.param(ALL, marks=pytest.mark.slow)], ids=["few", "all"])


class Folder:
    """Everything that an exported model goes through, whole: data, weights, models, inputs, results."""

    def __init__(self, root: Path, runner: Path):
        self.root, self.runner = root, runner
        self.data = small_run.write_images(root / "data")
        self.weights = small_run.write_weights(root / "net.ckpt", **CCT)
        for name, flags in {"net": [], "net_v1": ["--ir_version", 1], "net_onnx": ["--file_format", "ONNX"]}.items():
            self.call("export", *self.arguments(), "--file_name", name, *flags)
        self.call("preprocess", *self.preprocess_words())
        ran = self.infer(self.root / "net_v1.mindir")
        assert ran.returncode == 0, ran.stderr

    def arguments(self) -> list[str]:
        return small_run.arguments(self.data, self.root, **CCT, pretrained=self.weights)

    def preprocess_words(self) -> list[object]:
        info, output = self.root / "net_v1.json", self.root / "preprocess_Result"
        return ["--data_path", self.data / "val", "--model_info", info, "--output_path", output]

    def postprocess_words(self) -> list[object]:
        labels = self.root / "preprocess_Result" / "imagenet_label.json"
        return ["--result_dir", self.root / "result_Files", "--label_file", labels, "--output_dir", self.root]

    def call(self, name: str, *words: object) -> None:
        code, _, errors = command(name, *words)
        assert code == 0, errors

    def infer(self, model: Path) -> subprocess.CompletedProcess:
        words = ["--mindir_path", model, "--input0_path", "preprocess_Result/img_data", "--device_target", "CPU"]
        return subprocess.run([self.runner, *words], cwd=self.root, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, runner):
    return Folder(tmp_path_factory.mktemp("whole"), runner)


@pytest.fixture
def folder(whole, tmp_path):
    copy = Folder.__new__(Folder)
    copy.root, copy.runner = Path(shutil.copytree(whole.root, tmp_path / "copy")), whole.runner
    copy.data, copy.weights = copy.root / "data", copy.root / "net.ckpt"
    return copy


def damages(path: Path, seeds: range) -> Iterator[str]:
    """Cut a file short, then change one to eight of its bytes, for every seed; says what was done, and mends it."""
    content = path.read_bytes()
    for seed in seeds:
        rng = random.Random(seed)
        path.write_bytes(content[: rng.randrange(len(content))])
        yield f"{path.name} cut, seed {seed}"
        changed = bytearray(content)
        for place in rng.sample(range(len(content)), min(len(content), rng.choice((1, 1, 2, 8)))):
            changed[place] ^= rng.randrange(1, 256)
        path.write_bytes(changed)
        yield f"{path.name} changed, seed {seed}"
    path.write_bytes(content)


def check(damage: str, code: int, errors: list[str], allowed: set[int]) -> None:
    assert code in allowed, (damage, code, errors)
    assert [line for line in errors if re.fullmatch(r"error: .+: .+", line)] == (errors if code else []), (
        damage,
        errors,
    )
    assert len(errors) == (code != 0), (damage, errors)


@SOME
@pytest.mark.parametrize("described", [True, False])
@pytest.mark.parametrize("name", ["net", "net_v1"])
def test_runner_with_a_damaged_model(name, described, seeds, folder):
    model = folder.root / f"{name}.mindir"
    if not described:
        model.with_suffix(".json").unlink()
    for damage in damages(model, seeds):
        ran = folder.infer(model)
        check(damage, ran.returncode, ran.stderr.splitlines(), {4} if described or name == "net" else {0, 2, 3, 4, 5})


@SOME
def test_runner_with_a_damaged_description(seeds, folder):
    for damage in damages(folder.root / "net_v1.json", seeds):
        ran = folder.infer(folder.root / "net_v1.mindir")
        check(damage, ran.returncode, ran.stderr.splitlines(), {0, 4})


@SOME
def test_runner_with_a_damaged_input(seeds, folder):
    for damage in damages(folder.root / "preprocess_Result/img_data/circle/0.bin", seeds):
        ran = folder.infer(folder.root / "net_v1.mindir")
        check(damage, ran.returncode, ran.stderr.splitlines(), {3} if " cut," in damage else {0, 3, 5})


@SOME
@pytest.mark.parametrize("name", ["net.mindir", "net_v1.mindir", "net_onnx.onnx"])
def test_verify_with_a_damaged_model(name, seeds, folder):
    words = ["--mindir", folder.root / "net.mindir", "--runner", "--onnx", folder.root / "net_onnx.onnx"]
    for damage in damages(folder.root / name, seeds):
        code, _, errors = command("verify", *folder.arguments(), *words)
        check(damage, code, errors, {4})


@SOME
@pytest.mark.parametrize("name", ["net.json", "net_v1.json", "net_onnx.onnx.json"])
def test_verify_with_a_damaged_description(name, seeds, folder):
    words = ["--mindir", folder.root / "net.mindir", "--runner", "--onnx", folder.root / "net_onnx.onnx"]
    for damage in damages(folder.root / name, seeds):
        code, _, errors = command("verify", *folder.arguments(), *words)
        check(damage, code, errors, {4} if " cut," in damage else {0, 4, 5})


@SOME
def test_verify_with_a_damaged_result(seeds, folder, monkeypatch):
    compute, answers = verify._computed, []

    def once(*words: object) -> tuple:
        # The checkpoint's answers are the same every time.
        if not answers:
            answers.append(compute(*words))
        return answers[0]

    monkeypatch.setattr(verify, "_computed", once)
    for damage in damages(folder.root / "result_Files/circle/0_0.bin", seeds):
        code, _, errors = command("verify", *folder.arguments(), "--result_dir", folder.root / "result_Files")
        check(damage, code, errors, {3} if " cut," in damage else {0, 3, 5})
    assert answers


@SOME
@pytest.mark.parametrize("name", ["result_Files/circle/0_0.bin", "preprocess_Result/imagenet_label.json"])
def test_postprocess_with_a_damaged_file(name, seeds, folder):
    for damage in damages(folder.root / name, seeds):
        code, _, errors = command("postprocess", *folder.postprocess_words())
        check(damage, code, errors, {3} if " cut," in damage else {0, 3})


@SOME
def test_postprocess_with_damaged_class_names(seeds, folder):
    for damage in damages(folder.root / "preprocess_Result/class_names.json", seeds):
        code, _, errors = command("postprocess", *folder.postprocess_words())
        check(damage, code, errors, {0})


@SOME
@pytest.mark.parametrize("name", ["imagenet_label.json", "class_names.json", "preprocess.jsonl"])
def test_preprocess_over_damaged_files_of_an_earlier_call(name, seeds, folder):
    path = folder.root / "preprocess_Result" / name
    before = {file: file.read_bytes() for file in path.parent.rglob("*.bin")}
    whole = path.read_bytes()
    for damage in damages(path, seeds):
        code, _, errors = command("preprocess", *folder.preprocess_words())
        check(damage, code, errors, {0})
        assert before == {file: file.read_bytes() for file in path.parent.rglob("*.bin")}, damage
        assert name == "preprocess.jsonl" or path.read_bytes() == whole


@SOME
def test_preprocess_with_a_damaged_description(seeds, folder):
    for damage in damages(folder.root / "net_v1.json", seeds):
        code, _, errors = command("preprocess", *folder.preprocess_words())
        check(damage, code, errors, {4} if " cut," in damage else {0, 3, 4})


def test_descriptions_that_contradict_themselves(folder):
    path = folder.root / "net_v1.json"
    info = json.loads(path.read_text())
    np.testing.assert_equal(info["transform"]["resize_size"], 32)
    for section, changes in {
        "transform": [{"image_size": 0}, {"crop_pct": 0}, {"crop_pct": 0.5}, {"std": [0.2, 0, 0.2]}, {"mean": [1, 2]}],
        "input": [{"shape": [0, 3, 32, 32]}, {"shape": [1, 3, 32, 33]}, {"shape": [1, 3, 64, 64]}, {"dtype": "int8"}],
    }.items():
        for change in changes:
            path.write_text(json.dumps({**info, section: info[section] | change}))
            code, _, errors = command("preprocess", *folder.preprocess_words())
            check(str(change), code, errors, {4})
            assert "is not the description of an exported model" in errors[0]
