"""What users of the model zoo type, as docs/migrate_from_zoo.md says, with the zoo's own YAML files and folders."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import small_run
from tests.cpp_runner import ROOT
from tests.data.images import write_cifar
from tests.oracles import SHARED, requires_oracles
from tests.rank_tables import rank_table, write

PAGE = (ROOT / "docs" / "migrate_from_zoo.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\S+)\n\n```bash\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL))
SMALL = "--epochs 1 --batch_size 2 --num_parallel_workers 0 --image_size 32 --divergence_guard_epochs 0"
# What else makes a project's network small; MindSpore Lite 2.0 computes norms of 192 columns right, smaller ones not.
SIZES = {
    "CCT": "--num_classes 3 --depth 1 --embed_dim 192",
    "TNT": "--num_classes 3 --depth 1 --embed_dim 192",
    "DeiT": "--num_classes 3 --depth 1 --embed_dim 192",
    # Its YAML names a folder beside the current one.
    "Twins": "--num_classes 3 --depths 1,1,1,1 --embed_dims 192,192,192,192 --stage_heads 1,1,1,1 "
    "--data_url data/imagenet",
    "ViT": "--depth 1 --embed_dim 192 --crop_padding 4",
}
# The seed that holds a project's YAML; ViT has none.
SEEDS = {"CCT": "000", "TNT": "004", "DeiT": "003", "Twins": "001"}


def zoo_yaml(seed: str) -> str:
    """The YAML in a README of the zoo, with its comments and tabs."""
    (path,) = (SHARED / "seeds").glob(f"{seed}_*.txt")
    blocks = re.findall(r"```(?:text|python)\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    (text,) = [block for block in blocks if "arch:" in block]
    return "".join(re.sub("^    ", "", line) for line in text.splitlines(keepends=True))


def prepare(project: str, folder: Path) -> None:
    """The zoo's layout: data, YAML, rank table."""
    write(folder / "hccl.json", rank_table(["198.51.100.9"], 2))
    if project == "ViT":
        write_cifar(folder / "dataset" / "cifar10", "CIFAR10", "binary")
        return
    small_run.write_images(folder / "data" / "imagenet")
    place = folder / re.search(r"config (\S+)", SECTIONS[project])[1]
    place.parent.mkdir(parents=True)
    place.write_text(zoo_yaml(SEEDS[project]), encoding="utf-8")


def typed(line: str, project: str) -> list[str]:
    """A line of the page for this checkout, a CPU, and a small network."""
    program, name, *words = shlex.split(line.replace("--device_target Ascend", "--device_target CPU"))
    small = [*SMALL.split(), *SIZES[project].split()]
    if name == "run_infer_310.sh":
        small = []
    if name == "export.py":
        small += ["--ir_version", "1", "--device_target", "CPU"]
    words = [str(ROOT / word) if word.startswith("configs/") else word for word in words]
    script = ROOT / name if program == "python" else ROOT / "scripts" / Path(name).name
    start = [sys.executable if program == "python" else program, str(script)]
    return [*start, *words, *small]


def test_the_page_has_all_projects():
    assert SECTIONS.keys() == SIZES.keys()


@requires_oracles
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("project", SIZES)
def test_what_was_typed_in_the_zoo_works(project, tmp_path, runner):
    prepare(project, tmp_path)
    environment = {**os.environ, "DEVICE_TARGET": "CPU", "SERVER_ID": "198.51.100.9"}
    for line in SECTIONS[project].splitlines():
        given = re.search(r"\./ckpt(?:_0)?/\S+\.ckpt", line)
        if given and not (tmp_path / given[0]).exists():
            # Users renamed the checkpoint that they had trained.
            (tmp_path / given[0]).parent.mkdir(exist_ok=True)
            shutil.copy(tmp_path / "train_standalone" / "ckpt_0" / "best.ckpt", tmp_path / given[0])
        ran = subprocess.run(typed(line, project), cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, f"{line}\n{ran.stderr}"
        if "=> eval results" in ran.stdout:
            top1 = re.search(r"'Top1-Acc': ([\d.]+)", ran.stdout)[1]
    assert f"Top1 acc:  {top1}\n" in (tmp_path / "acc.log").read_text()
    assert (tmp_path / "train_parallel0" / "ckpt_0" / "best.ckpt").is_file()
