"""eval.py: what it prints and writes for the split val and other sets, alone and with several sets of weights."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from tests import small_run
from tests.command import command, python
from tests.cpp_runner import ROOT
from tests.report.evaluations import write_checkpoint


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small_run.write_images(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def weights(data, tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("weights") / "best.ckpt", data)


def evaluated(data: Path, **flags: object) -> tuple[int, list[str], list[str]]:
    return command("eval", *small_run.arguments(data, Path("out"), **flags))


def rows(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_classes_results_and_a_comparison(data, weights):
    other = write_checkpoint(Path("wide/best.ckpt"), data, embed_dim=24)
    flags = {"metrics": "per_class", "results_csv": "results.csv", "compare": other}
    code, said, warned = evaluated(data, pretrained=weights, **flags)
    assert (code, warned) == (0, [])
    first, second = rows(Path("results.csv"))
    zoo = [line for line in said if line.startswith("=> eval results:")]
    for one, line in zip((first, second), zoo, strict=True):
        assert f"'Top1-Acc': {one['top1']}, 'Top5-Acc': {one['top5']}}}" in line
    assert said[-1] == "=> eval success"
    assert (first["weights"], second["weights"], first["images"]) == (str(weights), str(other), "7")
    classes = rows(Path("out/per_class.csv"))
    assert [one["name"] for one in classes] == list(small_run.CLASS_NAMES)
    assert sum(int(one["right"]) for one in classes) == round(float(first["top1"]) * 7)
    assert any(re.match(r"tri angle +2 ", line) for line in said)
    assert sum(line.startswith(str(other)) for line in said) == 1


def test_nothing_more_is_said_than_the_zoo_says(data, weights):
    code, said, _ = evaluated(data, pretrained=weights)
    assert code == 0
    starts = ["=> begin eval", "=> eval results:{'Loss': ", "", "=> eval success"]
    assert [line.startswith(start) for line, start in zip(said[-4:], starts, strict=True)] == [True] * 4
    assert re.fullmatch(r"\d of 7 images right, 7 among the first five", said[-2])
    assert not Path("out").exists()


def test_a_set_of_fewer_classes(data, weights):
    root = Path("set")
    for name in small_run.CLASS_NAMES[::2]:
        shutil.copytree(data / "val" / name, root / name)
    code, said, warned = evaluated(root, pretrained=weights, eval_set="imagenet_r", metrics="per_class")
    assert (code, len(warned)) == (0, 1)
    assert re.fullmatch(r"\d of 5 images right, 5 among the first five, of 2 classes", said[-7])
    # Nothing is taken for the class that the set does not have.
    classes = rows(Path("out/per_class.csv"))
    assert [(one["name"], one["images"]) for one in classes] == [("circle", "3"), ("tri angle", "2")]
    assert sum(int(one["answers"]) for one in classes) == 5


def test_several_labels_for_an_image(data, weights):
    root = Path(shutil.copytree(data, "data"))
    for number, path in enumerate(sorted((root / "val").rglob("*.png")), start=1):
        path.rename(path.with_name(f"ILSVRC2012_val_{number:08d}.png"))
    flags = {"pretrained": weights, "eval_set": "imagenet_real", "real_labels": "real.json", "results_csv": "r.csv"}
    Path("real.json").write_text(json.dumps([[0, 1, 2]] * 5 + [[]] * 2))
    code, said, _ = evaluated(root, **flags)
    assert code == 0
    assert said[-3:] == [
        "=> eval results:{'Top1-Acc': 1.0}",
        "5 of 5 images right, by any of their labels",
        "=> eval success",
    ]
    assert (rows(Path("r.csv"))[0]["top1"], rows(Path("r.csv"))[0]["top5"]) == ("1.0", "")
    code, said, lines = evaluated(root, **flags, metrics="per_class")
    assert code == 2
    assert lines == ["error: metrics: needs one label for each image, imagenet_real has several. Received: per_class"]


def test_classes_that_nobody_knows_are_not_guessed(data):
    foreign = small_run.write_weights(Path("foreign.ckpt"))
    code, _, lines = evaluated(data / "val", pretrained=foreign, eval_set="imagenet_a")
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith("error: class_order: must name ImageNet's train folder")
    code, said, _ = evaluated(data / "val", pretrained=foreign, eval_set="imagenet_a", class_order=data / "train")
    assert code == 0
    assert said[-2].endswith("of 3 classes")


def test_a_damaged_checkpoint_is_named_before_anything_is_evaluated(data, weights):
    other = write_checkpoint(Path("other/best.ckpt"), data)
    other.write_bytes(other.read_bytes()[:-1])
    code, said, lines = evaluated(data, pretrained=weights, compare=other)
    assert (code, len(lines)) == (4, 1)
    assert f"{other}: is damaged" in lines[0]
    assert not any(line.startswith("=> begin eval") for line in said)


@pytest.mark.slow
def test_two_ranks_write_what_one_writes(data, weights, tmp_path):
    keys = {"pretrained": weights, "batch_size": 2, "metrics": "per_class"}
    words = [*small_run.arguments(data, tmp_path / "out", **keys), "--results_csv", tmp_path / "results.csv"]
    ran = python(ROOT / "distribute.py", "--device_num", 2, ROOT / "eval.py", *words, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    (two,) = rows(tmp_path / "results.csv")
    assert evaluated(data, **keys, results_csv="results.csv")[0] == 0
    (one,) = rows(Path("results.csv"))
    assert Path("out/per_class.csv").read_bytes() == (tmp_path / "out" / "per_class.csv").read_bytes()
    assert (one["devices"], two["devices"]) == ("1", "2")
    # An image has another place in its batch, and the last bits of a product may differ with it.
    for name in ("loss", "calibration_error"):
        assert float(one[name]) == pytest.approx(float(two[name]), rel=1e-6)
    changed = {name for name in one if one[name] != two[name]}
    assert changed <= {"date", "images_per_second", "devices", "loss", "calibration_error"}


def test_results_of_another_version_are_not_added_to(data, weights):
    Path("results.csv").write_text("accuracy\n0.5\n")
    code, _, lines = evaluated(data, pretrained=weights, results_csv="results.csv")
    assert code == 2
    assert lines[0].startswith("error: results.csv: has other columns than this version writes")
