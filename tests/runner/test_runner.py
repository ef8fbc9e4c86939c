"""The C++ runner: its logits are MindSpore's, and it writes and prints what the zoo's two runners do."""

from __future__ import annotations

import re
import subprocess

import numpy as np
import pytest

from tests.runner.cases import IMAGES, MODELS, check_error, read, run


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("arch", MODELS)
def test_logits(runner, cases, tmp_path, arch, batch):
    case = cases[arch, batch]
    done = run(runner, tmp_path, case.model, case.folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    written = {str(path.relative_to(tmp_path / "result_Files")) for path in (tmp_path / "result_Files").rglob("*.bin")}
    assert written == {f"{name}_0.bin" for name in IMAGES}
    np.testing.assert_allclose(read(tmp_path / "result_Files"), case.logits_NK, rtol=0, atol=1e-5)
    assert np.abs(case.logits_NK).max() > 1


def test_lines_and_timing_file(runner, case, tmp_path):
    done = run(runner, tmp_path, case.model, case.folder)
    *images, summary = done.stdout.splitlines()
    assert images == [f"Start predict input files:{case.folder / name}.bin" for name in sorted(IMAGES)]
    assert re.fullmatch(r"NN inference cost average time: [\d.]+ms of infer_count 5", summary)
    lines = (tmp_path / "time_Result" / "test_perform_static.txt").read_text().splitlines()
    assert re.fullmatch(r"NN inference cost average time: [\d.]+ ms of infer_count 5", lines[0])
    found = [re.findall(r"^p(\d+): ([\d.]+) ms$", line)[0] for line in lines[1:4]]
    assert [name for name, _ in found] == ["50", "90", "99"]
    assert sorted(found, key=lambda pair: float(pair[1])) == found
    assert re.fullmatch(r"images/s: [\d.e+]+", lines[4])


@pytest.mark.parametrize(
    "style",
    [
        ["--model_path", "M", "--dataset", "Cifar10", "--dataset_path", "D", "--device_id", "0"],
        ["--mindir_path=M", "--dataset_name=imagenet2012", "--input0_path=D", "--device_id=0"],
        ["-mindir_path=M", "-input0_path", "D", "-threads", "1", "--precision", "enforce_fp32", "--batch=1"],
    ],
)
def test_flags_of_both_zoo_runners(runner, case, tmp_path, style):
    values = {"M": str(case.model), "D": str(case.folder)}
    words = [re.sub(r"(^|=)([MD])$", lambda match: match[1] + values[match[2]], word) for word in style]
    folders = ["--result_dir", tmp_path / "r s", "--time_dir", tmp_path / "t/u"]
    done = subprocess.run([runner, *words, "--device_target=cpu", *folders], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_allclose(read(tmp_path / "r s"), case.logits_NK, rtol=0, atol=1e-5)
    assert (tmp_path / "t/u/test_perform_static.txt").is_file()


def test_help(runner):
    done = subprocess.run([runner, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "--mindir_path, --model_path" in done.stdout


def test_results_of_other_inputs_stay(runner, case, tmp_path):
    old = tmp_path / "result_Files" / "gone" / "old_0.bin"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    assert run(runner, tmp_path, case.model, case.folder).returncode == 0
    assert old.read_bytes() == b"old"
    assert not list(tmp_path.rglob("*.partial*"))


def test_noise_on_request_only(runner, case, tmp_path):
    quiet = run(runner, tmp_path, case.model.with_suffix(".v3.mindir"), case.folder, env={"GLOG_v": "3"})
    check_error(quiet, 4)
    loud = run(runner, tmp_path, case.model.with_suffix(".v3.mindir"), case.folder, env={"GLOG_v": "2"})
    assert loud.returncode == 4
    assert len(loud.stderr.splitlines()) > 1
