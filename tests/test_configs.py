"""The shipped recipes: each loads, says where it comes from, and builds its model or says that it cannot yet."""

import re

import pytest
from mindspore.nn.utils import no_init_parameters

from src.config import leaf_sections, load_config, require_built
from src.errors import ConfigError
from src.models import MODELS, PLANNED_FAMILIES, build_configured_model, canonical_arch, model_entry, resolved
from src.schema import BUILT_FOR_TRAINING, Config
from tests.oracles import PROJECT
from tests.test_model_sizes import COUNTS

CONFIGS = sorted((PROJECT / "configs").glob("*.yaml"))
# What the zoo's own files set, where it is not what these recipes have in common.
ZOO = {
    "cct_14-7x2_imagenet": {
        "arch": "cct_14_7x2_224",
        "interpolation": "random",
        "crop_pct": 0.9,
        "warmup_lr": 1e-6,
        "min_lr": 1e-5,
        "warmup_length": 10,
        "epochs": 310,
        "amp_level": "O2",
    },
    "twin_s": {
        "arch": "pcpvt_small_v0",
        "crop_pct": 0.875,
        "base_lr": 1e-3,
        "warmup_lr": 1e-6,
        "min_lr": 1e-5,
        "warmup_length": 20,
        "epochs": 300,
        "amp_level": "O1",
        "drop_path_rate": 0.1,
    },
    "deit_small_patch16_224": {
        "arch": "deit_small_patch16_224",
        "crop_pct": 0.9,
        "warmup_lr": 1e-6,
        "min_lr": 1e-6,
        "warmup_length": 5,
        "epochs": 300,
        "cooldown_epochs": 10,
        "amp_level": "O1",
        "lr_scale_base": 512,
        "with_ema": False,
    },
    "tnt_s_patch16_224": {
        "arch": "tnt_s_patch16_224",
        "warmup_lr": 7e-8,
        "min_lr": 6e-6,
        "warmup_length": 20,
        "epochs": 300,
        "amp_level": "O2",
        "lr_scale_base": 512,
    },
}
ZOO_COMMON = {
    "set": "ImageNet",
    "num_classes": 1000,
    "image_size": 224,
    "mix_up": 0.8,
    "cutmix": 1.0,
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "re_prob": 0.25,
    "optimizer": "adamw",
    "weight_decay": 0.05,
    "label_smoothing": 0.1,
    "clip_global_norm_value": 5.0,
    "batch_size": 128,
    "device_target": "Ascend",
}


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def path(request):
    return request.param


def load(path) -> Config:
    return load_config("train", ["--config", str(path)])


def leaf(config: Config, key: str) -> object:
    return getattr(getattr(config, leaf_sections()[key]), key)


def test_the_five_recipes_and_the_demo_are_there():
    assert {*ZOO, "vit_base_cifar10", "cct_2_3x2_digits"} <= {path.stem for path in CONFIGS}


def test_loads_without_a_warning(path, capsys):
    load(path)
    assert capsys.readouterr().err == ""


def test_header_says_source_command_devices_and_accuracy(path):
    header = re.match(r"(?:#.*\n)+", path.read_text(encoding="utf-8"))[0]
    fields = re.findall(r"^# (Source|Command|Devices|Accuracy) +(\S.*)$", header, re.MULTILINE)
    assert [name for name, _ in fields] == ["Source", "Command", "Devices", "Accuracy"]
    told = dict(fields)
    assert f"--config configs/{path.name}" in told["Command"]
    assert "http" in told["Source"]
    # A number of someone else is marked as such.
    assert "%" not in told["Accuracy"] or "not measured here" in told["Accuracy"]


def test_builds_its_model_or_says_that_it_cannot_yet(path):
    config = load(path)
    arch = canonical_arch(config.model.arch)
    if arch not in MODELS:
        assert arch.startswith(PLANNED_FAMILIES)
        with pytest.raises(ConfigError, match=f"^arch: this family is not built yet. Received: {arch}"):
            resolved(config)
        assert "not built yet" in path.read_text(encoding="utf-8").split("\n\n")[0]
        return
    config = resolved(config)
    with no_init_parameters():
        net = build_configured_model(config.model)
    assert len(list(net.get_parameters())) == COUNTS[arch][1]
    assert net.trainable_params()[-1].shape[0] == config.model.num_classes


def test_resolved_has_no_gaps(path):
    config = load(path)
    if canonical_arch(config.model.arch) in MODELS:
        config = resolved(config)
        own = model_entry(config.model.arch).default_cfg
        assert config.data.mean == (load(path).data.mean or own.mean)
        values = [config.model.num_classes, config.model.image_size, config.data.crop_pct, config.data.std]
        assert None not in [*values, config.data.interpolation]
        assert resolved(config) == config


@pytest.mark.parametrize("stem", ZOO)
def test_recipes_hold_the_values_of_the_zoo(stem):
    config = load(PROJECT / "configs" / f"{stem}.yaml")
    wanted = {**ZOO_COMMON, **ZOO[stem]}
    assert {key: leaf(config, key) for key in wanted} == wanted


def test_vit_recipe_holds_the_values_of_the_zoo_for_two_devices():
    config = load(PROJECT / "configs" / "vit_base_cifar10.yaml")
    wanted = {
        "arch": "vit_base_patch16_224",
        "set": "CIFAR10",
        "num_classes": 10,
        "base_lr": 0.013,
        "optimizer": "momentum",
        "weight_decay": 1e-4,
        "batch_size": 32,
        "epochs": 60,
        "warmup_length": 0,
        "label_smoothing": 0.0,
        "std": (0.2023, 0.1994, 0.2010),
    }
    assert {key: leaf(config, key) for key in wanted} == wanted


def test_the_demo_recipe_can_be_trained_today():
    config = load(PROJECT / "configs" / "cct_2_3x2_digits.yaml")
    require_built(config, BUILT_FOR_TRAINING)
    assert (config.run.device_target, config.data.set) == ("CPU", "digits")


@pytest.mark.parametrize("name", ["./src/configs/cct_14-7x2_imagenet.yaml", "./src/configs/twin_s.yaml.yaml"])
def test_paths_of_the_zoo_find_ours_with_a_hint(name, capsys):
    stem = name.split("/")[-1].split(".")[0]
    assert load(name) == load(PROJECT / "configs" / f"{stem}.yaml")
    assert f"warning: {name} is now configs/{stem}.yaml\n" in capsys.readouterr().err


def test_an_unknown_name_offers_the_nearest():
    words = r"^--config: no such file. Received: tnt_s_patch16.yaml. Known: .*tnt_s_patch16_224"
    with pytest.raises(ConfigError, match=words):
        load("tnt_s_patch16.yaml")
