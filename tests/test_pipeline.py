"""The whole way of a model: train, evaluate, export, preprocess, C++ runner, count, compare."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from src.config import load_config
from src.deploy.exporter import export_model
from src.deploy.model_info import read_model_info
from src.deploy.results import PostprocessConfig, postprocess
from src.deploy.runner_inputs import PreprocessConfig, preprocess
from src.deploy.verify import verify
from src.errors import ConfigError, DataError, ModelFileError, NumbersError
from src.files import sha256
from src.trainers.trainer import train
from tests import small_run

ARCH = "cct_2_3x2_32"
SIZES = {"arch": ARCH, "image_size": 32, "depth": 1, "epochs": 1, "patch_size": None, "embed_dim": None}


class Run:
    """A trained and exported model with its data, in a folder with a blank."""

    def __init__(self, root: Path):
        self.root = root
        self.data = small_run.write_images(root / "data")
        self.best = train(load_config("train", self.arguments())) / "best.ckpt"
        self.mindir = self.export()
        self.mindir_v1 = self.export(ir_version=1, file_name="model_v1", batch_size=2)
        self.onnx = self.export(file_format="ONNX", batch_size=3)

    def arguments(self, **flags: object) -> list[str]:
        return small_run.arguments(self.data, self.root, **{**SIZES, **flags})

    def export(self, **flags: object) -> Path:
        flags = {"pretrained": self.best, "batch_size": 1, **flags}
        return export_model(load_config("export", self.arguments(**flags)))

    def verify(self, **flags: object) -> list:
        return verify(load_config("verify", self.arguments(pretrained=self.best, **flags)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("a run"))


@pytest.fixture(scope="module")
def results(run, runner):
    """The C++ runner's result folder, from preprocess.py's files."""
    output = run.root / "preprocess_Result"
    info = run.root / "model_v1.json"
    preprocess(PreprocessConfig(data_path=str(run.data / "val"), model_info=str(info), output_path=str(output)))
    command = [runner, "--mindir_path", run.mindir_v1, "--input0_path", output / "img_data", "--device_target", "CPU"]
    ran = subprocess.run(command, cwd=run.root, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return run.root / "result_Files"


def labels(run: Run) -> Path:
    return run.root / "preprocess_Result" / "imagenet_label.json"


def test_every_backend_agrees_with_the_checkpoint(run, results, capsys):
    rows = run.verify(mindir=run.mindir, onnx=run.onnx, runner=True, result_dir=results)
    assert [row.backend for row in rows] == [
        "checkpoint",
        "MINDIR in MindSpore",
        "ONNX Runtime",
        "C++ runner (Lite)",
        "C++ runner's results",
    ]
    assert all(row.images == small_run.NUM_VAL and row.agreement == 1.0 for row in rows)
    assert max(row.max_difference for row in rows) < 1e-5
    assert rows[0].max_difference == rows[0].mean_difference == 0
    assert all(0 < row.mean_difference <= row.max_difference for row in rows[1:])
    assert rows[3].max_difference == rows[4].max_difference
    assert len({(row.top1, row.top5) for row in rows}) == 1
    assert [row.ms_per_image is not None and row.ms_per_image > 0 for row in rows] == [True] * 4 + [False]
    out = capsys.readouterr().out
    assert "5 backends agree on 7 images within 0.0001\n" in out
    assert len({len(line) for line in out.splitlines() if line.startswith(("backend", "ONNX"))}) == 1


def test_programs_can_read_the_comparison(run, results):
    rows = run.verify(mindir=run.mindir, onnx=run.onnx, runner=True, result_dir=results)
    saved = json.loads((run.root / "verify.json").read_text())
    assert [row["top1"] for row in saved["rows"]] == [row.top1 for row in rows]
    assert (saved["accepted"], saved["images"], saved["batch_size"]) == (True, small_run.NUM_VAL, 4)
    files = [run.best, run.mindir, run.onnx, run.mindir_v1]
    assert [file["sha256"] for file in saved["files"][:4]] == [sha256(path) for path in files]
    assert [file.get("batch_size") for file in saved["files"]] == [None, 1, 3, 2, None]
    assert {"mindspore", "numpy", "onnxruntime", "python"} <= saved["versions"].keys()


def test_some_images_are_the_same_ones_for_every_backend(run, results, capsys):
    rows = run.verify(mindir=run.mindir_v1, runner=True, result_dir=results, num_images=4)
    assert [row.backend for row in rows] == ["checkpoint", "C++ runner (Lite)", "C++ runner's results"]
    assert {row.images for row in rows} == {4}
    assert max(row.max_difference for row in rows) < 1e-5


def test_quantized_weights_are_judged_by_classes(run, results, tmp_path, capsys):
    for path in (run.mindir, run.root / "cct_2_3x2_32.json"):
        shutil.copy(path, tmp_path)
    described = tmp_path / "cct_2_3x2_32.json"
    info = json.loads(described.read_text())
    described.write_text(json.dumps(info | {"quantization": "int8"}))
    flags = {"mindir": tmp_path / run.mindir.name, "tolerance": 1e-12, "min_agreement": 0.5}
    rows = run.verify(**flags)
    assert [row.quantization for row in rows] == ["none", "int8"]
    assert "within 1e-12; MINDIR in MindSpore: on 50.00% of the first classes or more\n" in capsys.readouterr().out
    with pytest.raises(NumbersError, match="C\\+\\+ runner's results by"):
        run.verify(**flags, result_dir=results)
    assert not json.loads((run.root / "verify.json").read_text())["accepted"]


def test_runner_accuracy_is_the_evaluations(run, results, capsys):
    (line,) = small_run.epoch_records(run.root / "ckpt_0")
    postprocess(PostprocessConfig(result_dir=str(results), label_file=str(labels(run))))
    assert capsys.readouterr().out.startswith(f"Top1 acc:  {line['top1']}\nTop5 acc:  {line['top5']}\n\n")


def test_description_lies_beside_the_model(run):
    info = read_model_info(run.root / "model_v1.json")
    assert (info.arch, info.num_classes, tuple(info.class_names)) == (ARCH, 3, small_run.CLASS_NAMES)
    assert info.input.shape == (2, 3, 32, 32)
    assert (info.transform.image_size, info.transform.resize_size, info.ir_version) == (32, 32, 1)
    assert info.config["arch"] == ARCH


def test_a_result_that_differs_fails(run, results, tmp_path):
    changed = Path(shutil.copytree(results, tmp_path / "results"))
    path = next(changed.rglob("*_0.bin"))
    logits = np.fromfile(path, np.float32)
    (logits + np.float32(2e-4)).tofile(path)
    with pytest.raises(NumbersError, match=r"C\+\+ runner's results by 2\.0"):
        run.verify(result_dir=changed)


def test_results_that_are_missing_or_too_many(run, results, tmp_path):
    changed = Path(shutil.copytree(results, tmp_path / "results"))
    path = next(changed.rglob("*_0.bin"))
    path.rename(path.with_name("other_0.bin"))
    config = PostprocessConfig(result_dir=str(changed), label_file=str(labels(run)))
    with pytest.raises(DataError, match=f"missing: 1 of 7.*{path.name}"):
        postprocess(config)
    shutil.copy(path.with_name("other_0.bin"), path)
    with pytest.raises(DataError, match=r"other images: 1 of 8.*other_0\.bin"):
        postprocess(config)


@pytest.mark.parametrize("file", ["mindir", "onnx"])
def test_damaged_export_is_refused(file, run, tmp_path):
    exported = getattr(run, file)
    for path in run.root.glob(f"{exported.stem}.*"):
        shutil.copy(path, tmp_path)
    damaged = tmp_path / exported.name
    damaged.write_bytes(exported.read_bytes()[:-10])
    with pytest.raises(ModelFileError, match="damaged"):
        run.verify(**{f"{file}_path": damaged})


def test_other_preprocessing_is_refused(run):
    with pytest.raises(ModelFileError, match="crop_pct"):
        run.verify(mindir_path=run.mindir, crop_pct=0.5)


def test_version_1_is_not_for_mindspore(run):
    with pytest.raises(ModelFileError, match="IR version 3"):
        run.verify(mindir_path=run.mindir_v1)


def test_the_runner_wants_version_1(run, tmp_path):
    for path in (run.mindir, run.root / "cct_2_3x2_32.json"):
        shutil.copy(path, tmp_path)
    (tmp_path / "other.mindir").write_bytes(b"has no description")
    with pytest.raises(ModelFileError, match=r"cct_2_3x2_32\.mindir: has no MINDIR of IR version 1"):
        run.verify(mindir=tmp_path / run.mindir.name, runner=True)
    with pytest.raises(ConfigError, match="runner: needs mindir_path"):
        run.verify(onnx=run.onnx, runner=True)


@pytest.mark.parametrize(("key", "file"), [("onnx", "mindir"), ("mindir", "onnx")])
def test_files_in_each_others_place(key, file, run):
    with pytest.raises(ModelFileError, match=r"runs? .*Received: (MINDIR|ONNX)"):
        run.verify(**{key: getattr(run, file)})


def test_nothing_to_compare(run):
    with pytest.raises(ConfigError, match="--mindir_path"):
        run.verify()


def test_failed_export_keeps_the_good_file(run):
    before = run.mindir.read_bytes()
    with pytest.raises(ModelFileError, match="does not fit"):
        run.export(depth=2)
    with pytest.raises(ConfigError, match="Ascend"):
        run.export(file_format="AIR")
    assert run.mindir.read_bytes() == before


def test_onnx_passes_the_checker(run):
    import onnx

    onnx.checker.check_model(onnx.load(run.onnx), full_check=True)
