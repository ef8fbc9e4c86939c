"""--dry_run: everything is checked and said, nothing is done."""

import hashlib
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import small_run
from tests.command import command
from tests.cpp_runner import ROOT


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def dry(data: Path, output: object = "out", **flags: object) -> tuple[int, list[str], list[str]]:
    return command("train", *small_run.arguments(data, Path(str(output)), **flags), "--dry_run")


def test_a_new_run_is_planned_and_leaves_nothing(data):
    before = contents(data)
    code, said, warned = dry(data)
    assert (code, warned) == (0, [])
    assert said[-1] == "=> dry run: nothing was trained or written"
    assert "  updates  12: 4 epochs of 3, from the beginning" in said
    assert "=> Total step: 12" in said
    assert not any("begin train" in line for line in said)
    assert not Path("out").exists()
    assert contents(data) == before


def test_a_run_that_starts_later_is_planned_from_there(data):
    code, said, _ = dry(data, start_epoch=2)
    assert code == 0
    assert "=> Start step: 6" in said


def test_the_built_in_images_are_not_written():
    code, said, _ = command("train", "--config", ROOT / "configs" / "cct_2_3x2_digits.yaml", "--dry_run")
    assert code == 0
    assert "  data     digits: 1,437 images to train, 360 held out, 10 classes" in said
    assert not list(Path().iterdir())


def test_a_run_that_exists_is_looked_at_and_not_touched(whole_run, data, tmp_path):
    copy = Path(shutil.copytree(whole_run, tmp_path / "ckpt_0"))
    (copy / ".partial-0123-left").write_text("half")
    before = contents(tmp_path)
    code, said, _ = dry(data, tmp_path)
    assert code == 0
    newest = copy / "vit_tiny_patch16_2240-4_3.ckpt"
    assert f"  updates  12: 4 epochs of 3, going on after update 12 of {newest}" in said
    assert contents(tmp_path) == before
    code, _, lines = dry(data, tmp_path, base_lr=0.5)
    assert (code, len(lines)) == (2, 1)
    assert "belongs to a run with other settings" in lines[0]
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("flags", "expected", "code"),
    [
        ({"pretrained": "absent.ckpt"}, "absent.ckpt: no such file", 4),
        ({"batch_size": 13}, "at most the 12 training images", 3),
        ({"freeze": "no.such.*"}, "freeze: matches no parameter", 2),
        ({"output_dir": "file"}, "output_dir: cannot be written", 2),
    ],
)
def test_what_would_end_the_run_ends_its_plan(flags, expected, code, data):
    Path("file").write_text("in the way")
    found, _, lines = dry(data, **flags)
    assert (found, len(lines)) == (code, 1), lines
    assert expected in lines[0]


def test_an_image_of_the_first_batch_is_read(data, tmp_path):
    copy = Path(shutil.copytree(data, tmp_path / "data"))
    for path in (copy / "val").rglob("*.png"):
        path.write_bytes(b"no image")
    code, _, lines = dry(copy)
    assert (code, len(lines)) == (3, 1)
    assert lines[0].endswith("not an image")


@pytest.mark.slow
def test_a_terminal_gets_a_summary_and_what_to_type_next(data):
    ours, theirs = pty.openpty()
    words = map(str, small_run.arguments(data, Path("out"), epochs=1))
    with subprocess.Popen([sys.executable, ROOT / "train.py", *words], stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                said += os.read(ours, 4096)
            except OSError:
                break
    os.close(ours)
    assert process.returncode == 0, said.decode()
    lines = said.decode().splitlines()
    assert "  updates  3: 1 epoch of 3, from the beginning" in lines
    assert lines.index("train success") < lines.index(
        "  python export.py --config out/ckpt_0/config.yaml --pretrained out/ckpt_0/best.ckpt"
    )
