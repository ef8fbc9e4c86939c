"""The C++ runner: whatever goes wrong ends in one line and an exit code."""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from mindspore.train.mind_ir_pb2 import ModelProto

from src.files import sha256
from tests.cpp_runner import ROOT, build
from tests.runner.cases import Case, check_error, read, run


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--mindr_path", "m"], ["--mindr_path", "Known: --mindir_path"]),
        (["--colour", "red"], ["--colour", "--mindir_path", "--threads"]),
        (["stray"], ["stray"]),
        (["--threads", "two"], ["--threads", "Received: two"]),
        (["--threads", "0"], ["--threads", "from 1"]),
        (["--device_id=-1"], ["--device_id"]),
        (["--batch"], ["--batch", "needs a value"]),
        (["--batch", "--threads", "2"], ["--batch", "needs a value"]),
        (["--batch", "3"], ["--batch", "fixed batch of 1", "Received: 3"]),
        (["--device_target", "TPU"], ["--device_target", "Received: TPU", "Known: Ascend, Ascend310, CPU, GPU"]),
        (["--precision", "enforce_fp16"], ["--precision", "Known: enforce_fp32"]),
        (["--dataset_name", "mnist"], ["--dataset_name", "imagenet2012"]),
        (["--config", "missing.ini"], ["--config", "missing.ini"]),
    ],
)
def test_wrong_usage(runner, case, tmp_path, flags, words):
    check_error(run(runner, tmp_path, case.model, case.folder, *flags), 2, *words)
    assert not list(tmp_path.rglob("*.bin"))


def test_needed_flags(runner):
    check_error(subprocess.run([runner], capture_output=True, text=True), 2, "--mindir_path")
    check_error(subprocess.run([runner, "--mindir_path=m"], capture_output=True, text=True), 2, "--input0_path")


def test_results_among_images(runner, case):
    done = run(runner, case.folder, case.model, case.folder)
    check_error(done, 2, "--result_dir")


def test_bad_model(runner, case, tmp_path):
    content = case.model.read_bytes()
    for name, broken in {
        "empty": b"",
        "text": b"no model",
        "cut": content[:9000],
        "half": content[: len(content) // 2],
    }.items():
        (tmp_path / f"{name}.mindir").write_bytes(broken)
        check_error(run(runner, tmp_path, tmp_path / f"{name}.mindir", case.folder), 4, f"{name}.mindir")
    check_error(run(runner, tmp_path, tmp_path / "none.mindir", case.folder), 4, "none.mindir: is not a file")
    check_error(run(runner, tmp_path, tmp_path, case.folder), 4, "is not a file")
    check_error(run(runner, tmp_path, case.model.with_suffix(".v3.mindir"), case.folder), 4, "newer IR version")


def test_model_is_compared_with_its_description(runner, case, tmp_path):
    model = tmp_path / "m.mindir"
    content = bytearray(case.model.read_bytes())
    model.write_bytes(content)
    model.with_suffix(".json").write_text(json.dumps({"file": model.name, "sha256": sha256(model)}, indent=1))
    assert run(runner, tmp_path, model, case.folder).returncode == 0
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    check_error(run(runner, tmp_path, model, case.folder), 4, "m.mindir: is damaged", "m.json")


def damaged(content: bytes, seed: int) -> bytes:
    """A model file cut short, or with some bytes of its graph, which is what comes last in it, replaced."""
    rng = random.Random(seed)
    if seed % 3 == 0:
        return content[: rng.randrange(len(content))]
    changed = bytearray(content)
    graph = ModelProto.FromString(content).graph
    weights = [(content.find(p.raw_data), len(p.raw_data)) for p in graph.parameter if len(p.raw_data) > 200]
    for _ in range(rng.choice((1, 2, 8))):
        place = rng.randrange(len(content))
        while any(start <= place < start + size for start, size in weights):
            place = rng.randrange(len(content))
        changed[place] = rng.randrange(256)
    return bytes(changed)


def check_damaged(runner: Path, case: Case, tmp_path: Path, seeds: range) -> None:
    for seed in seeds:
        (tmp_path / "m.mindir").write_bytes(damaged(case.model.read_bytes(), seed))
        done = run(runner, tmp_path, tmp_path / "m.mindir", case.folder, timeout=60)
        if done.returncode:
            check_error(done, done.returncode)
            assert done.returncode in (2, 3, 4, 5), (seed, done.stderr)


def test_damaged_models(runner, cases, tmp_path):
    check_damaged(runner, cases["vit_tiny_patch16_224", 1], tmp_path, range(12))


@pytest.mark.slow
def test_many_damaged_models(runner, cases, tmp_path):
    check_damaged(runner, cases["vit_tiny_patch16_224", 4], tmp_path, range(100, 200))


def test_bad_images(runner, case, tmp_path):
    folder = tmp_path / "images"
    check_error(run(runner, tmp_path, case.model, folder), 3, "images", "Received: nothing")
    folder.mkdir()
    check_error(run(runner, tmp_path, case.model, folder), 3, "has no .bin file")
    (folder / "photo.jpg").write_bytes(b"jpeg")
    check_error(run(runner, tmp_path, case.model, folder), 3, "has no .bin file")
    check_error(run(runner, tmp_path, case.model, folder / "photo.jpg"), 3, "photo.jpg", "Received: a file")

    whole = (case.folder / "a/x.bin").read_bytes()
    image = folder / "z.bin"
    for content, received in ((b"", "0 bytes"), (whole[:-1], "12287 bytes"), (whole + b"0", "12289 bytes")):
        image.write_bytes(content)
        check_error(run(runner, tmp_path, case.model, folder), 3, "z.bin", "3x32x32, 12288 bytes", received)
    image.write_bytes(np.full(3072, np.nan, np.float32).tobytes())
    check_error(run(runner, tmp_path, case.model, folder), 3, "z.bin", "not finite")
    image.unlink()
    image.symlink_to("nowhere")
    check_error(run(runner, tmp_path, case.model, folder), 3, "z.bin", "cannot be read")


def test_results_that_are_not_finite(runner, case, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "huge.bin").write_bytes(np.full(3072, 3e38, np.float32).tobytes())
    check_error(run(runner, tmp_path, case.model, tmp_path / "images"), 5, "huge.bin", "not finite")
    assert not list((tmp_path / "result_Files").rglob("*"))


def test_output_that_cannot_be_written(runner, case, tmp_path):
    (tmp_path / "file").write_text("")
    blocked = str(tmp_path / "file" / "r")
    check_error(run(runner, tmp_path, case.model, case.folder, "--result_dir", blocked), 1, blocked)
    check_error(run(runner, tmp_path, case.model, case.folder, "--time_dir", blocked), 1, blocked)
    words = [runner, "--mindir_path", case.model, "--input0_path", case.folder, "--device_target", "CPU"]
    # A file size limit of nothing is a full disk for everything but the pipes.
    full = subprocess.run(
        ["bash", "-c", 'ulimit -f 0; exec "$@"', "bash", *words, "--result_dir", "full"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    check_error(full, 1, "cannot be written")
    assert not [path for path in (tmp_path / "full").rglob("*") if path.is_file()]
    with Path("/dev/full").open("w") as stdout:
        closed = subprocess.run(words, stdout=stdout, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    check_error(closed, 1, "stdout")


def test_device_that_is_not_there(runner, case, tmp_path):
    try:
        ctypes.CDLL("libascendcl.so")
    except OSError:
        done = run(runner, tmp_path, case.model, case.folder, "--device_target", "Ascend")
        check_error(done, 1, "--device_target", "libascendcl.so", "Received: Ascend")


@pytest.mark.slow
def test_memory_and_undefined_behaviour(cases, tmp_path):
    build(SANITIZE="1")
    runner = ROOT / "ascend310_infer" / "out" / "main_sanitize"
    # What MindSpore Lite keeps until the end of the process is its own affair.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=99"}
    case = cases["cct_2_3x2_32", 4]
    model = shutil.copy(case.model, tmp_path / "m.mindir")
    Path(model).with_suffix(".json").write_text(json.dumps({"sha256": sha256(Path(model))}))
    done = run(runner, tmp_path, model, case.folder, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_allclose(read(tmp_path / "result_Files"), case.logits_NK, rtol=0, atol=1e-5)

    def check(code: int, model: Path, folder: Path, *flags: str) -> None:
        check_error(run(runner, tmp_path, model, folder, *flags, env=environment), code)

    (tmp_path / "images").mkdir()
    check(3, case.model, tmp_path / "images")
    (tmp_path / "images" / "x.bin").write_bytes(b"short")
    check(3, case.model, tmp_path / "images")
    (tmp_path / "images" / "x.bin").write_bytes(np.full(3072, 3e38, np.float32).tobytes())
    check(5, case.model, tmp_path / "images")
    check(4, tmp_path / "images" / "x.bin", case.folder)
    for flags in (["--mindr_path=x"], ["--=", "x"], ["-"], [""], ["--threads", "9" * 30], ["--batch"]):
        check(2, case.model, case.folder, *flags)
    (tmp_path / "file").write_text("")
    check(1, case.model, case.folder, "--result_dir", str(tmp_path / "file"))
