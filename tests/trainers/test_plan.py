"""What is said before a run and after it: memory, and commands that work."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from mindspore.nn.utils import no_init_parameters

from src.config import load_config
from src.models import build_model, num_parameters, resolved
from src.trainers import memory
from src.trainers.memory import FACTOR, activations, memory_estimate
from src.trainers.plan import next_commands, summary_lines
from src.trainers.trainer import build_trainer
from tests import small_run
from tests.command import command
from tests.cpp_runner import ROOT

# The table in speed.md: model, batch | ... | peak MiB of training, peer |.
MEASURED = re.findall(
    r"^\| (\S+|ViT, width.*?), (\d+) \|[^|]*\|[^|]*\|[^|]*\|[^|]*\| (\d+), \d+ \| [\d.]+ \|$",
    (ROOT / "docs" / "speed.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)
NARROW = dict(embed_dim=128, depth=4, num_heads=4, patch_size=4, image_size=32)


def test_the_table_is_found():
    assert len(MEASURED) == 11


@pytest.mark.parametrize(("name", "batch_size", "peak_mib"), MEASURED)
def test_the_rule_is_within_its_factor_of_what_was_measured(name, batch_size, peak_mib):
    with no_init_parameters():
        net = build_model("vit_tiny_patch16_224", **NARROW) if name.startswith("ViT") else build_model(name)
    # As AdamW has them: weights, gradients, two moments.
    estimate = memory._PROCESS + 16 * num_parameters(net) + activations(net, int(batch_size))
    assert 1 / FACTOR < estimate / (int(peak_mib) * 2**20) < FACTOR


def trainer_of(data: Path, **flags: object):
    return build_trainer(resolved(small_run.config(data, Path("out"), **flags)))


@pytest.mark.parametrize(
    ("flags", "copies"),
    [
        ({}, 4),
        ({"with_ema": True}, 5),
        ({"accumulation_step": 2}, 5),
        ({"optimizer": "momentum"}, 3),
    ],
)
def test_parameters_are_counted_exactly(flags, copies, data):
    trainer = trainer_of(data, **flags)
    assert memory_estimate(trainer).parameters == 4 * copies * num_parameters(trainer.net)


def test_activations_grow_with_the_batch(data):
    one, two = (memory_estimate(trainer_of(data, batch_size=size)) for size in (2, 4))
    assert two.activations == 2 * one.activations > 0
    assert one.total == one.process + one.parameters + one.activations


def test_the_summary_says_what_will_run(data):
    trainer = trainer_of(data, freeze="patch_embed.*", accumulation_step=3, batch_size=4)
    lines = summary_lines(trainer, Path("out/ckpt_0"), "from the beginning")
    total = num_parameters(trainer.net)
    frozen = sum(np.prod(p.shape, dtype=int) for n, p in trainer.net.parameters_and_names() if "patch_embed" in n)
    assert (
        lines[0] == f"vit_tiny_patch16_224, {total:,} parameters, {total - frozen:,} of them trained, on 1 CPU process"
    )
    assert lines[1:5] == [
        "  data     folder: 12 images to train, 7 held out, 3 classes",
        "  updates  4: 4 epochs of 1, from the beginning",
        "  batch    12 images per update (4 per process x 3 steps)",
        "  rate     0.01 = base_lr, for 12 images per update, not scaled",
    ]
    assert lines[5].startswith("  memory   about 632 MiB a process, within a factor of 1.3 on a CPU:")
    assert lines[-1] == "  output   out/ckpt_0"
    assert max(map(len, lines)) <= 100


def test_the_next_commands_are_commands(whole_run, data):
    lines = next_commands(whole_run, small_run.config(data, whole_run.parent))
    best = max(line["top1"] for line in small_run.epoch_records(whole_run))
    assert lines[0].startswith(f"best top-1 {best:.2%}, of epoch ")
    words = [shlex.split(line) for line in lines[1:]]
    assert [one[:2] for one in words] == [["python", f"{name}.py"] for name in ("eval", "predict", "export", "verify")]
    for _, script, *arguments in words:
        if script != "predict.py":
            config = load_config(script.removesuffix(".py"), arguments)
            assert Path(config.model.pretrained).is_file()
            assert config.checkpoint.output_dir == str(whole_run.parent)
    code, said, _ = command("eval", *words[0][2:])
    assert (code, said[-1]) == (0, "=> eval success")
    assert Path("report.html").is_file()
    assert config.verify.mindir_path == str(whole_run.parent / "vit_tiny_patch16_224.mindir")


def test_the_next_commands_are_about_the_average_and_its_file(data, tmp_path):
    (tmp_path / "ckpt_0").mkdir()
    (tmp_path / "ckpt_0" / "best.ckpt").touch()
    record = {"kind": "epoch", "epoch": 1, "step": 3, "top1": 0.5, "ema_top1": 0.75}
    (tmp_path / "ckpt_0" / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    first, *lines = next_commands(tmp_path / "ckpt_0", small_run.config(data, tmp_path, file_name="pets"))
    assert first.startswith("best top-1 75.00%, of epoch 1.")
    assert all(" --use_ema True" in line for line in lines)
    assert lines[-1].endswith(f"--mindir_path {tmp_path / 'pets.mindir'}")


def test_without_weights_there_is_nothing_to_type(data, tmp_path):
    assert next_commands(tmp_path, small_run.config(data, tmp_path)) == []
