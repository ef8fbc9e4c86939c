"""The shipped recipes: each loads, says where it comes from and builds its model; every arch has one of its name."""

import re

import pytest
from mindspore.nn.utils import no_init_parameters

from src.config import dump_config, leaf_sections, load_config, require_built
from src.errors import ConfigError
from src.models import MODELS, build_configured_model, canonical_arch, model_entry, resolved
from src.schema import BUILT_FOR_TRAINING, Config
from src.strict_yaml import read_yaml
from tests.oracles import PROJECT
from tests.test_model_sizes import COUNTS

FOLDER = PROJECT / "configs"
CONFIGS = sorted(FOLDER.rglob("*.yaml"))
# What several recipes have in common, not to be run alone.
BASES = [path for path in CONFIGS if path.parent.name == "base"]
RECIPES = [path for path in CONFIGS if path not in BASES]
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
        "decay_rule": "zoo",
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
        "min_lr_rule": "add_clip",
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
        "min_lr_rule": "add",
        "amp_level": "O1",
        "lr_scale_base": 512,
        "with_ema": False,
    },
    "tnt_s_patch16_224": {
        "arch": "tnt_s_patch16_224",
        "warmup_lr": 7e-8,
        "min_lr": 6e-6,
        "min_lr_rule": "clip",
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


# What the authors' own files and commands set, where a base could hide a slip. The rates of DeiT and Twins are those
# before their scaling by images per step / 512.
AUTHORS = {
    "base/deit_imagenet": {"base_lr": 5e-4, "lr_scale_base": 512, "warmup_length": 5, "epochs": 300, "crop_pct": 0.875},
    "deit/deit_small_distilled_patch16_224": {"lr_scale_ends": False, "warmup_lr": 1e-6, "min_lr": 1e-5},
    "deit/deit3_small_patch16_224": {"optimizer": "lamb", "base_lr": 4e-3, "drop_path_rate": 0.05, "epochs": 800},
    "deit/deit3_large_patch16_192": {"base_lr": 3e-3, "drop_path_rate": 0.45, "image_size": 192, "batch_size": 64},
    "finetune/deit3_huge_patch14_224": {"base_lr": 1e-5, "weight_decay": 0.1, "epochs": 20, "drop_path_rate": 0.55},
    "finetune/deit_base_patch16_384": {"base_lr": 5e-6, "min_lr": 5e-6, "weight_decay": 1e-8, "epochs": 30},
    "finetune/deit_base_patch16_224_cifar10": {"optimizer": "sgd", "nesterov": True, "base_lr": 0.01},
    "twins/alt_gvt_large": {"drop_path_rate": 0.5, "clip_global_norm_value": 5.0, "weight_decay": 0.05, "epochs": 300},
    "tnt/tnt_b_patch16_224": {"base_lr": 1e-3, "lr_scale_base": None, "with_ema": True, "lr_scheduler": "timm_cosine"},
    "vit/vit_large_patch16_224": {"beta": (0.9, 0.95), "weight_decay": 0.3, "drop_path_rate": 0.2, "epochs": 200},
    "finetune/vit_base_patch16_384": {"optimizer": "momentum", "base_lr": 0.03, "weight_decay": 0.0, "mix_up": 0.0},
    "cct/cct_7_3x1_32": {"base_lr": 55e-5, "weight_decay": 0.06, "mixup_off_epoch": 175, "re_prob": 0.0, "epochs": 300},
    "cct/cct_7_3x1_32_sine": {"base_lr": 5e-4, "weight_decay": 0.05, "mixup_off_epoch": 0, "epochs": 5000},
    "cct/cct_7_7x2_224_sine": {"batch_size": 96, "weight_decay": 0.06, "std": (0.2966, 0.2455, 0.2698)},
    "finetune/cct_14_7x2_384": {"base_lr": 1e-5, "weight_decay": 0.0, "warmup_length": 0, "epochs": 30},
}


def name(path) -> str:
    return path.relative_to(FOLDER).with_suffix("").as_posix()


@pytest.fixture(params=RECIPES, ids=name)
def path(request):
    return request.param


def load(path) -> Config:
    return load_config("train", ["--config", str(path)])


def leaf(config: Config, key: str) -> object:
    return getattr(getattr(config, leaf_sections()[key]), key)


def header(path) -> dict[str, str]:
    """The fields of the comment that a YAML begins with, each on one line."""
    _, *lines = re.match(r"(?:#.*\n)+", path.read_text(encoding="utf-8"))[0].splitlines()
    fields: dict[str, str] = {}
    key = ""
    for line in lines:
        key = line[2:12].strip() or key
        fields[key] = f"{fields.get(key, '')} {line[12:]}".strip()
    return fields


def test_the_five_recipes_and_the_demo_are_there():
    assert {*ZOO, "vit_base_cifar10", "cct_2_3x2_digits"} <= {path.stem for path in FOLDER.glob("*.yaml")}


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_loads_without_a_warning(path, capsys):
    load(path)
    assert capsys.readouterr().err == ""


def test_header_says_source_command_devices_and_accuracy(path):
    told = header(path)
    assert [*told][:4] == ["Source", "Command", "Devices", "Accuracy"]
    assert {*told} <= {"Source", "Command", "Devices", "Accuracy", "Left out"}
    assert f"{told['Command']} ".startswith(f"python train.py --config configs/{name(path)}.yaml ")
    assert "--pretrained WEIGHTS" in told["Command"] or path.parent.name != "finetune"
    assert "http" in told["Source"]
    # A number of someone else is marked as such.
    assert "%" not in told["Accuracy"] or "not measured here" in told["Accuracy"]


@pytest.mark.parametrize("path", BASES, ids=name)
def test_header_of_a_base_says_its_source(path):
    told = header(path)
    assert {"Source"} <= {*told} <= {"Source", "Left out"}
    assert "http" in told["Source"]


def test_every_base_is_used_and_no_arch_is_in_one():
    named = {path: read_yaml(path)[0].get("base") for path in RECIPES}
    used = {(path.parent / base).resolve() for path, base in named.items() if base is not None}
    assert {path.resolve() for path in BASES} <= used <= {path.resolve() for path in CONFIGS}
    assert not [path for path in BASES if "arch" in read_yaml(path)[0]]


@pytest.mark.parametrize("arch", [arch for arch in MODELS if arch != "vit_testing"])
def test_every_arch_has_a_yaml_of_its_name(arch):
    (found,) = [path for path in RECIPES if path.stem == arch]
    model = resolved(load(found)).model
    entry = model_entry(arch)
    assert (model.arch, model.image_size, model.num_classes) == (arch, entry.image_size, entry.num_classes)


def test_no_two_are_equal():
    assert len({path.stem for path in CONFIGS}) == len(CONFIGS)
    assert len({dump_config(load(path)) for path in CONFIGS}) == len(CONFIGS)


def test_builds_its_model(path):
    config = resolved(load(path))
    with no_init_parameters():
        net = build_configured_model(config.model)
    assert len(list(net.get_parameters())) == COUNTS[canonical_arch(config.model.arch)][1]
    assert net.trainable_params()[-1].shape[0] == config.model.num_classes
    assert "not built yet" not in path.read_text(encoding="utf-8")


def test_resolved_has_no_gaps(path):
    config = resolved(load(path))
    own = model_entry(config.model.arch).default_cfg
    assert config.data.mean == (load(path).data.mean or own.mean)
    values = [config.model.num_classes, config.model.image_size, config.data.crop_pct, config.data.std]
    assert None not in [*values, config.data.interpolation]
    assert resolved(config) == config


@pytest.mark.parametrize("stem", ZOO)
def test_recipes_hold_the_values_of_the_zoo(stem):
    config = load(FOLDER / f"{stem}.yaml")
    wanted = {**ZOO_COMMON, **ZOO[stem]}
    assert {key: leaf(config, key) for key in wanted} == wanted


@pytest.mark.parametrize("which", AUTHORS)
def test_recipes_hold_the_values_of_the_authors(which):
    config = load(FOLDER / f"{which}.yaml")
    assert {key: leaf(config, key) for key in AUTHORS[which]} == AUTHORS[which]


def test_vit_recipe_holds_the_values_of_the_zoo_for_two_devices():
    config = load(FOLDER / "vit_base_cifar10.yaml")
    wanted = {
        "arch": "vit_base_patch16_224",
        "set": "CIFAR10",
        "num_classes": 10,
        "base_lr": 0.013,
        "optimizer": "momentum",
        "weight_decay": 1e-4,
        "batch_size": 32,
        "epochs": 60,
        "decay_rule": "all",
        "lr_per_epoch": True,
        "warmup_length": 0,
        "label_smoothing": 0.0,
        "std": (0.2023, 0.1994, 0.2010),
    }
    assert {key: leaf(config, key) for key in wanted} == wanted


def test_the_demo_recipe_can_be_trained_today():
    config = load(FOLDER / "cct_2_3x2_digits.yaml")
    require_built(config, BUILT_FOR_TRAINING)
    assert (config.run.device_target, config.data.set) == ("CPU", "digits")


@pytest.mark.parametrize("name", ["./src/configs/cct_14-7x2_imagenet.yaml", "./src/configs/twin_s.yaml.yaml"])
def test_paths_of_the_zoo_find_ours_with_a_hint(name, capsys):
    stem = name.split("/")[-1].split(".")[0]
    assert load(name) == load(FOLDER / f"{stem}.yaml")
    assert f"warning: {name} is now configs/{stem}.yaml\n" in capsys.readouterr().err


def test_an_unknown_name_offers_the_nearest():
    words = r"^--config: no such file. Received: tnt_s_patch16.yaml. Known: .*tnt_s_patch16_224"
    with pytest.raises(ConfigError, match=words):
        load("tnt_s_patch16.yaml")
