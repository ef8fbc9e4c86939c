"""run_infer_310.sh on the CPU: it counts what eval.py counts, in any folder, with what users of the zoo type."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests import small_run
from tests.command import bash, command
from tests.cpp_runner import ROOT
from tests.data.images import write_cifar

SCRIPT = "run_infer_310.sh"
CCT: dict[str, Any] = {"arch": "cct_2_3x2_32", "image_size": 32, "depth": 1, "patch_size": None, "embed_dim": None}
# Wide enough for the layer norms of MindSpore Lite 2.0.
DEIT = {"arch": "deit_tiny_distilled_patch16_224", "image_size": 64, "patch_size": 16, "embed_dim": 192, "num_heads": 3}
PCPVT = {
    **{"arch": "pcpvt_small_v0", "image_size": 224, "depths": "1,1,1,1", "embed_dims": "64,64,64,64"},
    **{"stage_heads": "1,2,2,2", "mlp_ratios": "2,2,2,2"},
    **dict.fromkeys(("patch_size", "embed_dim", "depth", "num_heads")),
}


def accuracy(lines: list[str]) -> list[float]:
    """Top-1 and top-5 in what eval.py or the script prints."""
    found = re.findall(r"Top[15](?:-Acc'| acc): +([\d.]+)", "\n".join(lines))
    assert len(found) == 2, lines
    return [float(number) for number in found]


def exported(folder: Path, data: Path, **flags: object) -> list[float]:
    """Write ``net.mindir`` of IR version 1 with random weights; what eval.py says of them."""
    flags["pretrained"] = small_run.write_weights(folder / "net.ckpt", **flags)
    words = small_run.arguments(data, folder, **flags)
    code, lines, errors = command("eval", *words)
    assert code == 0, errors
    code, _, errors = command("export", *words, "--ir_version", 1, "--file_name", "net", "-b", 2)
    assert code == 0, errors
    return accuracy(lines)


@pytest.fixture
def folder(tmp_path, runner):
    path = tmp_path / "ein Ordner für ö"
    path.mkdir()
    return path


@pytest.mark.parametrize("sizes", [DEIT, pytest.param(PCPVT, marks=pytest.mark.slow)], ids=["deit", "pcpvt"])
def test_other_families(sizes, folder):
    data = small_run.write_images(folder / "Bilder ß")
    expected = exported(folder, data, **sizes)
    ran = bash(SCRIPT, "net.mindir", "ImageNet", "Bilder ß/val", cwd=folder)
    assert ran.returncode == 0, ran.stderr
    assert accuracy(ran.stdout.splitlines()) == expected
    assert f"dataset name: ImageNet\ndataset path: Bilder ß/val\ndevice id: 0\nTop1 acc:  {expected[0]}\n" in ran.stdout


def test_the_zoos_vit_on_cifar(folder):
    data = write_cifar(folder, "CIFAR10", "binary", 12)
    top1, top5 = exported(folder, data, **{**CCT, "set": "CIFAR10", "num_classes": 10})
    ran = bash(SCRIPT, folder / "net.mindir", "Cifar10", f"{data}/", 3, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    line = f"after allreduce eval: top1_correct={round(12 * top1)}, tot=12, acc={100 * top1:.2f}%"
    assert f"device id: 3\nTop1 acc:  {top1}\nTop5 acc:  {top5}\n{line}\nNN inference" in ran.stdout
    assert line in (folder / "acc.log").read_text().splitlines()
    # Its own way to count again.
    words = ["--label_file", folder / "preprocess_Result" / "label", "--result_path", folder / "result_Files"]
    assert line in command("postprocess", *words)[1]


def test_results_of_other_images_are_refused_before_the_work(folder):
    data = small_run.write_images(folder / "data")
    exported(folder, data, **CCT)
    mine = folder / "preprocess_Result" / "img_data" / "circle" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    assert bash(SCRIPT, "net.mindir", "folder", "data/val", cwd=folder).returncode == 0
    (data / "val" / "circle" / "0.png").unlink()
    (folder / "infer.log").unlink()
    before = {path: path.read_bytes() for path in folder.rglob("result_Files/**/*.bin")}
    ran = bash(SCRIPT, "net.mindir", "folder", "data/val", cwd=folder)
    assert ran.returncode == 3
    assert ran.stderr.endswith("Received: result_Files/circle/0_0.bin\n")
    assert ran.stderr.startswith("error: result_Files: holds results of other images")
    assert not (folder / "infer.log").exists()
    assert before == {path: path.read_bytes() for path in folder.rglob("result_Files/**/*.bin")}
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "code", "line", "stage"),
    [
        (["none.mindir", "folder", "data"], 4, "error: MINDIR_PATH: no such file. Received: none.mindir", None),
        (["x.mindir", "mnist", "data"], 2, "error: --dataset_name: not one of the choices", "preprocess dataset"),
        (["x.mindir", "folder", "none"], 3, "error: data_path: no such folder. Received: none", "preprocess dataset"),
    ],
)
def test_the_first_stage_that_fails(words, code, line, stage, tmp_path):
    (tmp_path / "x.mindir").write_bytes(b"x")
    ran = bash(SCRIPT, *words, cwd=tmp_path)
    assert ran.returncode == code
    first, *rest = ran.stderr.splitlines()
    assert first.startswith(line)
    assert rest == ([] if stage is None else [f"{stage} failed"])
    assert not (tmp_path / "build.log").exists()


def test_a_build_that_fails(folder):
    project = folder / "project"
    for name in ("scripts", "src", "ascend310_infer"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("build", "out", "__pycache__"))
    for name in ("preprocess.py", ".venv"):
        (project / name).symlink_to(ROOT / name)
    small_run.write_images(folder / "data")
    (folder / "x.mindir").write_bytes(b"x")
    script = project / "scripts" / SCRIPT
    ran = bash(str(script), "x.mindir", "folder", "data/val", cwd=folder)
    assert ran.returncode == 2
    assert "\nerror: LITE_HOME: is not set" in ran.stderr
    assert ran.stderr.endswith("\ncompile app code failed\n")
    assert not (folder / "infer.log").exists()
