"""Every command block of README.md is run as it stands there, with short recipes and small data."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from src.data.digits import write_digits
from src.models import build_model
from src.weights.write import write_ckpt
from tests import small_run
from tests.cpp_runner import ROOT
from tests.data.images import write_cifar
from tests.networks import values
from tests.rank_tables import rank_table, write
from tests.weights.files import torch_bytes

BLOCKS = re.findall(r"^```(bash)?\n(.*?)\n```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
# What runs the tests cannot be run by them, and what installs wants the network.
LEFT_OUT = {"make test", "pip install -r requirements-serve.txt"}
SHORT = {
    "configs/cct_2_3x2_digits.yaml": {"epochs": "30", "warmup_length": "3"},
    "configs/finetune_folder.yaml": {"epochs": "20", "warmup_length": "2"},
}
# What else makes a line small: networks and data of a full size take hours here.
SMALLER = {
    "finetune_folder.yaml --data_url FOLDER": "--arch cct_2_3x2_32 --output_dir output/any",
    "deit_small_patch16_224_cifar10.yaml": "--device_target CPU --batch_size 2 --epochs 1 --warmup_length 0 --depth 1 "
    "--image_size 32",
    "--eval_set imagenet_a": "--depth 1 --device_target CPU",
}
NAMES = {"FOLDER": "photos", "WEIGHTS": "any.ckpt", "RANK_TABLE_FILE": "hccl.json"}
NAMES["CONFIG_PATH"] = "configs/cct_2_3x2_digits.yaml"


def commands() -> list[tuple[str, int]]:
    """Every line that a reader types, without the lines' ends, and the exit code that follows."""
    typed = []
    for kind, text in BLOCKS:
        text = text.replace("\\\n", " ")
        if kind:
            typed += [(line, 0) for line in text.splitlines()]
        elif text.startswith("$ "):
            line, _, said = text[2:].partition("\n")
            typed.append((line, 2 if said.startswith("error: ") else 0))
    return [(line.partition("  # ")[0].strip(), code) for line, code in typed]


def prepare(folder: Path) -> None:
    """A checkout with short recipes, and the data and weights that README names."""
    for entry in ROOT.iterdir():
        if entry.name not in {"configs", "data", "output", ".git"}:
            (folder / entry.name).symlink_to(entry)
    shutil.copytree(ROOT / "configs", folder / "configs")
    for name, keys in SHORT.items():
        text = (folder / name).read_text(encoding="utf-8")
        for key, value in keys.items():
            assert f"\n{key}: {value}\n" in text
            text = text.replace(f"\n{key}: {value}\n", f"\n{key}: {2 if key == 'epochs' else 0}\n")
        (folder / name).write_text(text, encoding="utf-8")
    write_digits(folder / "data" / "digits")
    shutil.copytree(folder / "data" / "digits" / "val", folder / "photos")
    write(folder / "hccl.json", rank_table(["127.0.0.1"], 2))
    write_ckpt(folder / "any.ckpt", values(build_model("cct_2_3x2_32")))
    small_run.write_images(folder / "imagenet-a-like")
    write_cifar(folder / "data" / "cifar10", "CIFAR10", "binary")
    write_imagenet(folder)
    shutil.copy(next((folder / "data" / "digits" / "val" / "3").iterdir()), folder / "photo.jpg")
    tensors = values(build_model("deit_small_patch16_224"))
    for name in "abc":
        write_ckpt(folder / f"{name}.ckpt", tensors)
    for size, pixels in (("tiny", 224), ("small", 32)):
        net = build_model(f"deit_{size}_patch16_224", depth=1, image_size=pixels)
        tensors = {name: np.ascontiguousarray(value) for name, value in values(net).items()}
        (folder / f"deit_{size}_patch16_224.pth").write_bytes(torch_bytes(tensors))


def write_imagenet(folder: Path) -> None:
    """The names of a thousand classes, and images of two of them."""
    for number in range(1000):
        (folder / "imagenet" / "train" / f"n{number:08d}").mkdir(parents=True)
    drawn = folder / "imagenet-a-like" / "val"
    for number, name in enumerate(small_run.CLASS_NAMES[:2]):
        shutil.copytree(drawn / name, folder / "imagenet-a" / f"n{number:08d}")


def test_blocks_are_found():
    names = {line.split()[1] for line, _ in commands() if line.startswith("python ")}
    assert names >= {f"{name}.py" for name in ("train", "eval", "predict", "export", "verify", "convert", "distribute")}
    assert {code for _, code in commands()} == {0, 2}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_command_works(tmp_path, runner):
    prepare(tmp_path)
    path = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "DEVICE_TARGET": "CPU"}
    with contextlib.ExitStack() as servers:
        for line, code in commands():
            if line in LEFT_OUT:
                continue
            smaller = " ".join(flags for part, flags in SMALLER.items() if part in line)
            line = re.sub(r"\b[A-Z_]{6,}\b", lambda name: NAMES.get(name[0], name[0]), f"{line} {smaller}")
            typed = dict(args=["bash", "-o", "pipefail", "-c", line], cwd=tmp_path, env=environment, text=True)
            if "--serve" in line:
                servers.enter_context(served(typed))
                continue
            ran = subprocess.run(**typed, capture_output=True)
            assert ran.returncode == code, f"{line}\n{ran.stdout[-1500:]}\n{ran.stderr[-1500:]}"


@contextlib.contextmanager
def served(typed: dict) -> Iterator[None]:
    """A server that says its address, and ends as it should."""
    with subprocess.Popen(**typed, stdout=subprocess.PIPE, start_new_session=True) as server:
        assert any("http://127.0.0.1:" in line for line in server.stdout)
        try:
            yield
        finally:
            os.killpg(server.pid, signal.SIGTERM)
        assert server.wait(60) == 0
