"""The C++ runner: its logits are MindSpore's, and whatever goes wrong ends in one line and an exit code."""

from __future__ import annotations

import ctypes
import json
import os
import random
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops
from mindspore.train.mind_ir_pb2 import ModelProto

from src.deploy.mindir_v1 import RULES, UNCHANGED, rewrite_file
from src.files import sha256
from src.models import build_model
from src.models.kernels import kernel_form
from tests.cpp_runner import BUILD, FETCH, ROOT, build

IMAGES = ("a/x", "a/y", "b/x", "class with blanks/ä ü", "top.1")
MODELS: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": dict(depth=1, image_size=32, patch_size=16),
    "cct_2_3x2_32": dict(depth=1),
}


@dataclass
class Case:
    """A model file, images for it, and MindSpore's logits for them."""

    model: Path
    folder: Path
    logits_NK: np.ndarray


@pytest.fixture(scope="session")
def cases(tmp_path_factory) -> dict[tuple[str, int], Case]:
    """Small networks of both families for batches of 1 and 4, and five images in folders of several kinds."""
    root = tmp_path_factory.mktemp("cases with blanks")
    folder = root / "images"
    rng = np.random.default_rng(0)
    image_NCYX = rng.standard_normal((5, 3, 32, 32)).astype(np.float32)
    for name, image_CYX in zip(IMAGES, image_NCYX, strict=True):
        path = folder / f"{name}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        image_CYX.tofile(path)
    found = {}
    for arch, sizes in MODELS.items():
        with kernel_form("export"):
            net = build_model(arch, num_classes=7, **sizes).set_train(False)
        for parameter in net.get_parameters():
            parameter.set_data(Tensor(rng.normal(0, 0.1, parameter.shape).astype(np.float32) + (parameter.ndim == 1)))
        logits_NK = net(Tensor(image_NCYX)).asnumpy()
        for batch in (1, 4):
            found[arch, batch] = Case(export(net, (batch, 3, 32, 32), root / f"{arch}_{batch}"), folder, logits_NK)
    return found


@pytest.fixture
def case(cases) -> Case:
    return cases["cct_2_3x2_32", 1]


def export(net: nn.Cell, shape: tuple[int, ...], stem: Path) -> Path:
    """Export for MindSpore Lite; the file of version 3 stays as ``stem.v3.mindir``."""
    newer, older = Path(f"{stem}.v3.mindir"), Path(f"{stem}.mindir")
    # MindSpore refuses to export to a path with blanks.
    with tempfile.TemporaryDirectory() as plain:
        exported = Path(plain) / "model.mindir"
        ms.export(net, Tensor(np.zeros(shape, np.float32)), file_name=str(exported), file_format="MINDIR")
        shutil.copy(exported, newer)
    rewrite_file(newer, older)
    return older


def run(runner: Path, tmp_path: Path, model: Path, folder: Path, *flags: str, **options) -> subprocess.CompletedProcess:
    command = [runner, "--mindir_path", model, "--input0_path", folder, "--device_target", "CPU", *flags]
    return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, **options)


def check_error(done: subprocess.CompletedProcess, code: int, *words: str) -> None:
    assert done.returncode == code, (done.returncode, done.stderr)
    assert re.fullmatch(r"error: .+: .+\n", done.stderr), done.stderr
    for word in words:
        assert word in done.stderr


def read(folder: Path, names: tuple[str, ...] = IMAGES) -> np.ndarray:
    return np.stack([np.fromfile(folder / f"{name}_0.bin", np.float32) for name in names])


# ---------------------------------------------------------------------------------------------------------------------
# What it computes


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


class OperatorForms(nn.Cell):
    """Every operator that the rewriter lets pass, in the forms in which they are exported."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(1)

        def weight(*shape: int) -> Parameter:
            return Parameter(Tensor(rng.standard_normal(shape).astype(np.float32)))

        self.conv = nn.Conv2d(4, 6, 3, pad_mode="pad", padding=1, has_bias=True)
        self.strided_conv = nn.Conv2d(4, 6, 7, 2, pad_mode="pad", padding=3)
        self.patch_conv = nn.Conv2d(4, 6, 4, 4, pad_mode="valid", has_bias=True)
        self.depth_conv = nn.Conv2d(4, 4, 3, pad_mode="pad", padding=1, group=4)
        self.batch_norm = nn.BatchNorm2d(4, gamma_init="uniform", beta_init="uniform")
        self.layer_norm = nn.LayerNorm((16,), epsilon=1e-6)
        self.gamma_D, self.beta_D = weight(16), weight(16)
        self.norm = ops.LayerNorm(-1, -1, 1e-5)
        self.dense = nn.Dense(16, 12)
        self.weight_1_DD, self.weight_2_DD, self.weight_3_DD = weight(16, 16), weight(16, 16), weight(16, 16)
        self.weight_BND = weight(1, 64, 16)
        self.matmul, self.matmul_bt = ops.MatMul(), ops.MatMul(transpose_b=True)
        self.bmm, self.bmm_bt = ops.BatchMatMul(), ops.BatchMatMul(transpose_b=True)
        self.bmm_at = ops.BatchMatMul(transpose_a=True)
        self.bias_add = ops.BiasAdd()
        self.pad = nn.Pad(((0, 0), (0, 0), (1, 2), (0, 1)))
        self.pool = ops.MaxPool(kernel_size=3, strides=2, pad_mode="valid")
        self.pool_same = ops.MaxPool(kernel_size=2, strides=2, pad_mode="same")
        self.split, self.softmax = ops.Split(-1, 2), ops.Softmax(-1)
        self.mean, self.sum = ops.ReduceMean(keep_dims=True), ops.ReduceSum()
        self.max, self.divide = ops.ReduceMax(), ops.RealDiv()

    def construct(self, x_BCYX):
        x_BND = x_BCYX.reshape(1, 64, 16)
        x_ND = x_BCYX.reshape(64, 16)
        maps = (
            self.conv(x_BCYX),
            self.strided_conv(x_BCYX),
            self.patch_conv(x_BCYX),
            self.depth_conv(x_BCYX),
            self.batch_norm(x_BCYX),
            self.pool(self.pad(x_BCYX)),
            self.pool_same(x_BCYX),
        )
        dense = (
            self.layer_norm(x_BND),
            self.norm(x_BND, self.gamma_D, self.beta_D)[0],
            self.dense(x_BND),
            self.bias_add(self.matmul(x_ND, self.weight_1_DD), self.beta_D).reshape(1, 64, 16),
            self.matmul_bt(x_ND, self.weight_2_DD).reshape(1, 64, 16),
            self.bmm(x_BCYX, x_BCYX),
            self.bmm_bt(x_BCYX, x_BCYX),
            self.bmm_at(x_BCYX, x_BCYX),
            ops.matmul(x_BCYX, x_BCYX),
            ops.matmul(x_ND, self.weight_3_DD).reshape(1, 64, 16),
            self.softmax(x_BCYX),
            self.mean(x_BND, -1),
            self.sum(x_BND, 1),
            self.max(x_BND, 1),
        )
        shapes = (
            x_BND.transpose(0, 2, 1),
            self.split(x_BND)[1],
            ops.concat((ops.tile(self.weight_BND, (1, 2, 1)), x_BND), 1),
            ops.broadcast_to(x_BND[:, :1], (-1, 3, 16)),
            ops.expand_dims(x_BND, 1),
            ops.squeeze(x_BND, 0).reshape(1, 1024),
            ops.slice(x_BND, (0, 3, 0), (1, 4, 8)),
            x_BND[:, 0],
            x_BND[:, 1:],
            ops.stack((x_BND, self.weight_BND), 1),
            ops.unstack(x_BCYX, 1)[2],
            ops.cast(ops.cast(x_BND * 3, ms.int32), ms.float32),
        )
        positive_BND = ops.abs(x_BND) + 0.5
        elements = (
            x_BND + self.weight_BND,
            x_BND - self.weight_BND,
            x_BND * self.gamma_D,
            x_BND / positive_BND,
            self.divide(x_BND, positive_BND),
            2.0 - x_BND,
            x_BND - 2.0,
            x_BND + 1,
            x_BND / 3.0,
            x_BND * 0.3 + 1.5,
            ops.minimum(ops.maximum(x_BND, -0.5), 0.5),
            ops.pow(positive_BND, 3.0),
            x_BND * 0.5 * (1.0 + ops.erf(x_BND * 0.70710678)),
            x_BND * ops.sigmoid(x_BND),
            -x_BND,
            ops.exp(x_BND),
            ops.relu(x_BND),
            ops.sqrt(positive_BND),
            ops.square(x_BND),
            ops.tanh(x_BND),
        )
        return maps + dense + shapes + elements


def test_every_operator_form(runner, tmp_path):
    net = OperatorForms().set_train(False)
    x_BCYX = np.random.default_rng(2).standard_normal((1, 4, 16, 16)).astype(np.float32)
    model = export(net, x_BCYX.shape, tmp_path / "forms")
    exported = ModelProto()
    exported.ParseFromString(model.with_suffix(".v3.mindir").read_bytes())
    operators = {primitive.op_type for primitive in exported.primitives}
    assert {*RULES, *UNCHANGED} - operators == set(), "operators that the rewriter knows and this test does not"

    (tmp_path / "images").mkdir()
    x_BCYX.tofile(tmp_path / "images" / "x.bin")
    done = run(runner, tmp_path, model, tmp_path / "images")
    assert done.returncode == 0, done.stderr
    for index, output in enumerate(net(Tensor(x_BCYX))):
        expected = output.asnumpy().ravel()
        received = np.fromfile(tmp_path / "result_Files" / f"x_{index}.bin", np.float32)
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5, err_msg=f"output {index}")


# ---------------------------------------------------------------------------------------------------------------------
# What goes wrong


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


# ---------------------------------------------------------------------------------------------------------------------
# How it is built


def test_build_is_reused(runner):
    before = runner.stat().st_mtime_ns
    done = subprocess.run(["bash", BUILD], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    assert runner.stat().st_mtime_ns == before


def test_build_without_lite(tmp_path):
    missing = subprocess.run(["bash", BUILD], capture_output=True, text=True, env={**os.environ, "LITE_HOME": "/none"})
    check_error(missing, 2, "LITE_HOME", "/none")
    empty = subprocess.run(
        ["bash", BUILD], capture_output=True, text=True, env={**os.environ, "LITE_HOME": str(tmp_path)}
    )
    check_error(empty, 2, "LITE_HOME", str(tmp_path))
    shutil.copytree(BUILD.parent, tmp_path / "project" / "infer", ignore=shutil.ignore_patterns("build", "out"))
    environment = {name: value for name, value in os.environ.items() if name != "LITE_HOME"}
    script = tmp_path / "project" / "infer" / "build.sh"
    alone = subprocess.run(["bash", script], capture_output=True, text=True, env=environment)
    check_error(alone, 2, "LITE_HOME: is not set", "fetch_mindspore_lite.sh")


def fetch(project: Path, tools: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run a copy of the fetch script in a project of its own, with stand-ins for some programs."""
    (project / "scripts").mkdir(parents=True, exist_ok=True)
    script = Path(shutil.copy(FETCH, project / "scripts"))
    tools.mkdir(exist_ok=True)
    known = {name: value for name, value in os.environ.items() if name != "LITE_HOME"}
    path = f"{tools}:{os.environ['PATH']}"
    return subprocess.run(["bash", script], capture_output=True, text=True, env={**known, "PATH": path, **environment})


def stand_in(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)


def test_fetch(tmp_path):
    project, tools = tmp_path / "a project", tmp_path / "tools"
    stand_in(tools / "python3", "exit 1")
    done = fetch(project, tools, LITE_HOME="/opt/lite")
    assert (done.returncode, done.stderr) == (0, "")

    stand_in(tools / "uname", "echo Plan9")
    check_error(fetch(project, tools), 1, "no wheel", "Plan9", "Known: Linux x86_64")
    stand_in(tools / "uname", "if [[ $1 == -s ]]; then echo Linux; else echo x86_64; fi")
    check_error(fetch(project, tools), 1, "cannot be downloaded")
    # pip that brings another content than the pinned one.
    stand_in(
        tools / "python3", 'if [[ $2 == pip ]]; then touch "${@: -2:1}/mindspore_lite-2.0.0-x.whl"; else echo 0; fi'
    )
    check_error(fetch(project, tools), 1, "sha256", "Received: 0")
    assert list((project / ".lite").iterdir()) == []

    (project / ".lite" / "mindspore_lite").mkdir()
    assert fetch(project, tools).returncode == 0


@pytest.mark.slow
def test_release_layouts(runner, case, tmp_path):
    """A release tarball keeps headers and libraries in runtime/, newer ones the headers in include/cxx_api."""
    wheel = Path(os.environ.get("LITE_HOME") or ROOT / ".lite" / "mindspore_lite")
    for api in ("api", "cxx_api"):
        project, lite = tmp_path / f"prüf ling {api}", tmp_path / f"lite {api}"
        shutil.copytree(BUILD.parent, project, ignore=shutil.ignore_patterns("build", "out"))
        shutil.copytree(wheel / "include", lite / "runtime" / "include")
        if api != "api":
            (lite / "runtime" / "include" / "api").rename(lite / "runtime" / "include" / api)
        for header in lite.rglob("*.h"):
            header.write_text(header.read_text().replace('"include/api/', f'"include/{api}/'))
        (lite / "runtime" / "lib").mkdir()
        for library in (wheel / "lib").iterdir():
            (lite / "runtime" / "lib" / library.name).symlink_to(library)
        (lite / "runtime" / "lib" / "libmindspore-lite.so").symlink_to(
            wheel / "lib" / "libmindspore-extendrt_python.so"
        )
        done = subprocess.run(
            ["bash", project / "build.sh"], capture_output=True, text=True, env={**os.environ, "LITE_HOME": str(lite)}
        )
        assert done.returncode == 0, done.stdout + done.stderr
        moved = run(project / "out" / "main", tmp_path, case.model, case.folder)
        assert moved.returncode == 0, moved.stderr
        np.testing.assert_allclose(read(tmp_path / "result_Files"), case.logits_NK, rtol=0, atol=1e-5)
        cache = (project / "build" / "CMakeCache.txt").read_text()
        assert f"LITE_LIBRARY:FILEPATH={lite}/runtime/lib/libmindspore-lite.so" in cache


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
