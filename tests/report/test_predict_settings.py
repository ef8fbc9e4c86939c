"""predict.py's command line: names and flags in any order, what a checkpoint says of itself, one line per fault."""

import json
import shutil
from pathlib import Path

import pytest

from src.errors import ConfigError
from src.report.predict_settings import read_command_line
from tests.command import command
from tests.oracles import PROJECT

DIGITS = str(PROJECT / "configs" / "cct_2_3x2_digits.yaml")
WEIGHTS = ["--config", DIGITS, "--pretrained", "w.ckpt"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a.png", "--top_k", "3", "b.png"], ["a.png", "b.png"]),
        (["--strict", "a.png", "--attention_inner", "True", "--attention", "maps"], ["a.png"]),
        (["--strict", "--", "-a.png", "--csv"], ["-a.png", "--csv"]),
        (["a.png", "--strict"], ["a.png"]),
        (["-5", "a b\n.png"], ["-5", "a b\n.png"]),
    ],
)
def test_names_are_what_belongs_to_no_flag(words, expected):
    request = read_command_line([*WEIGHTS, *words])
    assert list(request.words) == expected
    assert request.settings.strict == ("--strict" in words)


def test_a_yaml_is_read_as_for_eval():
    config = read_command_line([*WEIGHTS, "a.png", "--crop_pct", "0.9"]).config
    assert (config.model.arch, config.model.num_classes, config.data.batch_size) == ("cct_2_3x2_32", 10, 64)
    assert config.data.crop_pct == 0.9


@pytest.mark.parametrize("kind", ["pretrained", "mindir", "onnx"])
def test_a_file_says_what_it_is(kind, model):
    file = {"pretrained": model.weights, "mindir": model.mindir, "onnx": model.onnx}[kind]
    config = read_command_line([f"--{kind}", str(file), "a.png", "--batch_size", "5"]).config
    assert (config.model.arch, config.model.depth, config.model.num_classes) == ("cct_2_3x2_32", 1, 3)
    assert config.model.compat == "official"
    assert (config.data.crop_pct, config.data.batch_size) == (1.0, 5)
    # What the training was is no business of a prediction.
    assert config.schedule.epochs != 1
    assert config.data.data_url == "./data"


def test_flags_beat_what_the_file_says(model):
    words = ["--pretrained", str(model.weights), "--exif_orientation", "True", "--depth", "2", "a.png"]
    config = read_command_line(words).config
    assert (config.data.exif_orientation, config.model.depth, config.data.batch_size) == (True, 2, 16)


ONCE = "command line: must name what to predict with, once"
ALL = "Known: --pretrained, --mindir, --onnx"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a.png"], [f"{ONCE}. {ALL}"]),
        ([*WEIGHTS, "--onnx", "o.onnx", "a.png"], [f"{ONCE}. Received: --pretrained w.ckpt, --onnx o.onnx. {ALL}"]),
        (WEIGHTS, ["command line: must name images, folders or patterns, or say --serve"]),
        ([*WEIGHTS, "a.png", "--csv", "b.png"], ["--csv: must name a .csv file. Received: b.png"]),
        ([*WEIGHTS, "a.png", "--json", "b.csv"], ["--json: must name a .json file. Received: b.csv"]),
        ([*WEIGHTS, "a.png", "--attention_inner"], ["--attention_inner: needs --attention"]),
        ([*WEIGHTS, "a.png", "--attention", DIGITS], [f"--attention: must name a folder. Received: {DIGITS}"]),
        ([*WEIGHTS, "a.png", "--top_k", "0"], ["--top_k: must be greater than or equal to 1. Received: 0"]),
        ([*WEIGHTS, "a.png", "--tta", "turn"], ["--tta: not one of the choices. Received: turn. Known: none, flip"]),
        ([*WEIGHTS, "a.png", "--topk", "3"], ["--topk: no such flag. Known: --top_k"]),
        (["--pretrained", "absent.ckpt", "--batch_size", "0", "--top_k", "x", "a.png"], None),
    ],
)
def test_faults(words, expected):
    with pytest.raises(ConfigError) as caught:
        read_command_line(words)
    if expected is None:
        # All at once.
        expected = ["--top_k: must be a whole number. Received: x", "--batch_size: must be greater than or equal to 1"]
        assert [line[: len(text)] for line, text in zip(caught.value.lines, expected, strict=True)] == expected
    else:
        assert caught.value.lines[:1] == expected


def test_exported_files_do_not_tell_where_they_look(model):
    code, _, errors = command("predict", "--onnx", model.onnx, "a.png", "--attention", "maps")
    assert (code, len(errors)) == (2, 1)
    assert "--attention: needs --pretrained" in errors[0]


def test_files_that_say_nothing(model):
    code, _, errors = command("predict", "--pretrained", "absent.ckpt", "a.png")
    assert (code, errors) == (4, ["error: absent.ckpt: no such file"])
    shutil.copy(model.weights, "alone.ckpt")
    code, _, errors = command("predict", "--pretrained", "alone.ckpt", "a.png")
    assert (code, len(errors)) == (2, 1)
    assert "arch: must be given, as --arch NAME or --config YAML: no .json beside alone.ckpt says it" in errors[0]
    code, _, errors = command("predict", "--mindir", "absent.mindir", "a.png")
    assert (code, len(errors)) == (4, 1)
    assert "absent.json: no such file, export.py writes it beside the model" in errors[0]


@pytest.mark.parametrize("kind", ["mindir", "onnx"])
def test_keys_that_an_exported_file_was_not_made_for(kind, model):
    image = next(model.images.rglob("*.png"))
    file = getattr(model, kind)
    code, _, errors = command("predict", f"--{kind}", file, image, "--crop_pct", 0.5)
    assert (code, len(errors)) == (4, 1)
    assert (
        "was exported for another network or transform, leave these keys out. Received: {'crop_pct': 0.5}" in errors[0]
    )
    code, _, errors = command("predict", f"--{kind}", file, image, "--config", DIGITS, "--arch", "cct_4_3x2_32")
    assert (code, len(errors)) == (4, 1)
    assert "'arch': 'cct_4_3x2_32'" in errors[0]


def test_damaged_files(model):
    image = next(model.images.rglob("*.png"))
    for path in model.root.glob("*.onnx*"):
        shutil.copy(path, ".")
    Path(model.onnx.name).write_bytes(b"x")
    code, _, errors = command("predict", "--onnx", model.onnx.name, image)
    assert (code, len(errors)) == (4, 1)
    assert "is damaged" in errors[0]


def test_a_transform_that_was_recorded_is_used(model):
    for path in model.weights.parent.glob("best.*"):
        shutil.copy(path, ".")
    manifest = json.loads(Path("best.json").read_text())
    manifest["config"]["crop_pct"] = 0.5
    Path("best.json").write_text(json.dumps(manifest))
    assert read_command_line(["--pretrained", "best.ckpt", "a.png"]).config.data.crop_pct == 0.5


def test_print_config(model):
    code, lines, _ = command("predict", "--pretrained", model.weights, "a.png", "--print_config")
    assert code == 0
    assert {"arch: cct_2_3x2_32", "depth: 1", "num_classes: 3"} <= set(lines)
