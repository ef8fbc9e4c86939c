"""train.py from a folder of photos to a verified model."""

import json
import shutil
from pathlib import Path

import pytest

from src.deploy.model_info import verified_model_info
from tests import small_run
from tests.command import command

CLASS_NAMES = ["<b>eins", "né & co", "三"]


@pytest.fixture
def photos(tmp_path):
    """Class folders of odd names without train and val: two images that are the same, and one that is none."""
    drawn = small_run.write_images(tmp_path / "drawn")
    for old, new in zip(small_run.CLASS_NAMES, CLASS_NAMES, strict=True):
        shutil.copytree(drawn / "train" / old, tmp_path / "photos" / new)
    shutil.copy(tmp_path / "photos" / "三" / "2.png", tmp_path / "photos" / "<b>eins" / "copy.png")
    # By its name it is one of those that are held out.
    (tmp_path / "photos" / "三" / "cut.jpg").write_text("no image")
    return tmp_path / "photos"


def arguments(photos: Path, **flags: object) -> list[str]:
    given = small_run.arguments(
        photos, Path("out"), **{"epochs": 1, "val_fraction": 0.3, "on_bad_image": "skip"} | flags
    )
    # The class count is the folders'.
    at = given.index("--num_classes")
    return given[:at] + given[at + 2 :]


def test_one_command_checks_trains_exports_verifies_and_reports(photos):
    words = arguments(photos, check_images="warn", verified_export=True, report=True)
    code, said, warned = command("train", *words)
    assert code == 0
    assert any(line.startswith("train: 9 images in 3 classes") for line in said)
    assert "finding: 1 contents under different classes of a split" in said
    assert f"warning: 2 findings in {photos}, listed above" in warned
    assert any(line.endswith("cut.jpg: not an image") for line in warned)
    assert said[-1] == "=> report in out/ckpt_0/report.html"
    verified = json.loads(Path("out/verify.json").read_text())
    assert (verified["accepted"], verified["images"]) == (True, 4)
    assert [row["backend"] for row in verified["rows"]] == ["checkpoint", "MINDIR in MindSpore", "ONNX Runtime"]
    for name in ("vit_tiny_patch16_224.mindir", "vit_tiny_patch16_224.onnx"):
        assert list(verified_model_info(Path("out") / name).class_names) == CLASS_NAMES
    shown = Path("out/ckpt_0/report.html").read_text(encoding="utf-8")
    assert "ONNX Runtime" in shown
    assert "&lt;b&gt;eins" in shown
    # Other commands count the classes by the weights.
    code, said, _ = command("eval", *arguments(photos), "--pretrained", "out/ckpt_0/best.ckpt")
    assert (code, said[-1]) == (0, "=> eval success")


def test_strict_findings_end_the_run_before_it_begins(photos):
    code, _, errors = command("train", *arguments(photos, check_images="strict"))
    assert code == 3
    assert errors[-1].startswith(f"error: {photos}: 2 findings, listed above. Received: 1 ")
    assert not Path("out").exists()


def test_images_are_looked_at_before_a_dry_run_too(photos):
    code, said, warned = command("train", *arguments(photos, check_images="warn"), "--dry_run")
    assert (code, said[-1]) == (0, "=> dry run: nothing was trained or written")
    assert f"warning: 2 findings in {photos}, listed above" in warned


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            {"verified_export": True, "do_val": False},
            "error: verified_export: compares on the images of val, which needs do_val. Received: False. Known: True",
        ),
        (
            {"check_images": "warn", "set": "synthetic"},
            "error: check_images: looks at images of your own, leave it out with the set synthetic. Received: warn. "
            "Known: none",
        ),
    ],
)
def test_what_cannot_be_is_said_before_the_run(photos, flags, line):
    code, _, errors = command("train", *arguments(photos, **flags))
    assert (code, errors) == (2, [line])


@pytest.mark.slow
def test_a_report_is_written_where_backends_differ(photos):
    words = arguments(photos, verified_export=True, report=True, tolerance=1e-30)
    code, said, errors = command("train", *words)
    assert (code, said[-1]) == (5, "=> report in out/ckpt_0/report.html")
    assert errors[-1].startswith("error: verify: differs from the checkpoint by more than 1e-30")
    # The same command with another wish goes on with the same run, and says nothing new of the images.
    code, said, _ = command("train", *arguments(photos, check_images="warn"))
    assert code == 0
    assert "=> images were looked at when the run began" in said


def test_a_folder_and_weights_that_are_not_there_are_named(photos, tmp_path):
    code, _, errors = command("train", *arguments(tmp_path / "nothing", check_images="warn"))
    assert (code, errors) == (3, [f"error: data_url: no such folder. Received: {tmp_path / 'nothing'}"])
    code, said, errors = command("train", *arguments(photos, check_images="warn"), "--pretrained", "lost.ckpt")
    assert (code, errors) == (4, ["error: lost.ckpt: no such file"])
    assert not any("images in 3 classes" in line for line in said)


def test_a_folder_without_classes_is_named(tmp_path):
    (tmp_path / "photos").mkdir()
    code, _, errors = command("train", *arguments(tmp_path / "photos"))
    assert code == 3
    assert errors == [f"error: {tmp_path / 'photos'}: must hold at least two class folders. Received: none"]
