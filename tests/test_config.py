"""One configuration out of flags, YAML, its base and defaults; every fault in one go; what is dumped loads again."""

import re
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src import aliases
from src.config import dump_config, leaf_sections, load_config, load_flags, require_built, sections
from src.deploy.results import PostprocessConfig
from src.deploy.runner_inputs import PreprocessConfig
from src.errors import ConfigError
from src.schema import BUILT_FOR_EVALUATION, BUILT_FOR_TRAINING, Config
from tests.oracles import SHARED, requires_oracles


def write(name: str, text: str) -> str:
    Path(name).write_text(textwrap.dedent(text), encoding="utf-8")
    return name


def load(*argv: str, command: str = "train") -> Config:
    return load_config(command, list(argv))


def faults(*argv: str, command: str = "train") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(command, list(argv))
    assert caught.value.exit_code == 2
    return caught.value.lines


# ---------------------------------------------------------------------------------------------------------------------
# Which source counts


def test_nothing_gives_the_defaults():
    assert load() == Config()


def test_flags_beat_yaml_beats_base_beats_defaults():
    write("below.yaml", "epochs: 1\nbatch_size: 2\nseed: 3\n")
    name = write("recipe.yaml", "base: below.yaml\nbatch_size: 20\nseed: 30\n")
    config = load("--config", name, "--seed", "300")
    assert (config.schedule.epochs, config.data.batch_size, config.run.seed) == (1, 20, 300)
    assert config.schedule.warmup_length == Config().schedule.warmup_length


def test_a_base_is_found_beside_its_yaml():
    Path("deep").mkdir()
    write("deep/below.yaml", "epochs: 9\n")
    write("deep/recipe.yaml", "base: below.yaml\n")
    assert load("--config", "deep/recipe.yaml").schedule.epochs == 9


def test_a_base_has_no_base_itself():
    write("first.yaml", "epochs: 1\n")
    write("second.yaml", "base: first.yaml\n")
    name = write("third.yaml", "base: second.yaml\n")
    rule = "a base file cannot have a base itself"
    assert faults("--config", name) == [f"second.yaml: base: {rule}. Received: first.yaml"]


@pytest.mark.parametrize("flag", aliases.CONFIG_FLAGS)
def test_every_flag_that_names_a_yaml(flag):
    assert load(f"--{flag}", write("recipe.yaml", "epochs: 7\n")).schedule.epochs == 7


# ---------------------------------------------------------------------------------------------------------------------
# Aliases

SAMPLES = {
    "base_lr": ("0.25", 0.25),
    "weight_decay": ("0.125", 0.125),
    "pretrained": ("some.ckpt", "some.ckpt"),
    "run_modelarts": ("True", True),
    "in_channels": ("1", 1),
    "arch": ("vit_tiny_patch16_224", "vit_tiny_patch16_224"),
    "output_dir": ("out", "out"),
    "result_dir": ("results", "results"),
    "mindir_path": ("net.mindir", "net.mindir"),
    "onnx_path": ("net.onnx", "net.onnx"),
    "data_url": ("images", "images"),
    "num_images": ("512", 512),
    "min_lr": ("0.125", 0.125),
    "epochs": ("7", 7),
    "warmup_length": ("1.5", 1.5),
    "batch_size": ("3", 3),
    "num_parallel_workers": ("2", 2),
}


def leaf(config: Config, key: str) -> object:
    return getattr(getattr(config, leaf_sections()[key]), key)


@pytest.mark.parametrize(("alias", "key"), {**aliases.ALIASES, **aliases.SHORT_FLAGS}.items())
def test_aliases_as_flags(alias, key):
    text, value = SAMPLES[key]
    flag = f"-{alias}" if len(alias) == 1 else f"--{alias}"
    assert leaf(load(flag, text), key) == value
    if len(alias) > 1:
        assert leaf(load(f"{flag}={text}"), key) == value


@pytest.mark.parametrize(("alias", "key"), aliases.ALIASES.items())
def test_aliases_in_yaml(alias, key):
    text, value = SAMPLES[key]
    assert leaf(load("--config", write("recipe.yaml", f"{alias}: {text}\n")), key) == value


def test_an_alias_yields_to_the_key_itself(capsys):
    config = load("--config", write("recipe.yaml", "lr: 0.1\nbase_lr: 0.2\n"))
    assert config.optim.base_lr == 0.2
    assert capsys.readouterr().err == "warning: recipe.yaml: lr is ignored beside base_lr\n"


def test_words_of_the_zoo_for_the_same_choice():
    config = load("--set", "imagenet", "--lr_scheduler", "cosine_annealing")
    assert (config.data.set, config.schedule.lr_scheduler) == ("ImageNet", "cosine_lr")


def test_names_of_mindspore_for_optimizers():
    for word, name in {"Momentum": "momentum", "AdamWeightDecay": "adam_weight_decay"}.items():
        assert load("--optimizer", word).optim.optimizer == name


def test_patterns_keep_their_brackets():
    wanted = ("blocks.[0-5].*", "head.[wb]*")
    assert load("--freeze", "blocks.[0-5].*, head.[wb]*").optim.freeze == wanted
    assert load("--config", write("recipe.yaml", "freeze: ['blocks.[0-5].*', 'head.[wb]*']\n")).optim.freeze == wanted
    assert load("--config", write("again.yaml", dump_config(load("--freeze", ",".join(wanted))))).optim.freeze == wanted
    assert load("--freeze", "").optim.freeze == ()


def test_batch_size_of_export_is_another_key():
    for flag in ("--batch_size", "-b", "--export_batch_size"):
        config = load(flag, "4", command="export")
        assert (config.export.export_batch_size, config.data.batch_size) == (4, Config().data.batch_size)


def test_batch_size_of_export_may_be_dynamic():
    config = load("--batch_size", "dynamic", command="export")
    assert config.export.export_batch_size is None
    assert load("--config", write("again.yaml", dump_config(config)), command="export") == config
    for wrong in ("0", "-1", "2.5", "many"):
        with pytest.raises(ConfigError, match=rf"batch_size: must be a whole number from 1, or dynamic. .*{wrong}"):
            load("--batch_size", wrong, command="export")


# ---------------------------------------------------------------------------------------------------------------------
# Values


@pytest.mark.parametrize(
    ("argv", "key", "value"),
    [
        (["--base_lr", "5e-4"], "base_lr", 5e-4),
        (["--beta", "0.8,0.9"], "beta", (0.8, 0.9)),
        (["--beta", "[0.8, 0.9]"], "beta", (0.8, 0.9)),
        (["--mean", "0.1,0.2,0.3"], "mean", (0.1, 0.2, 0.3)),
        (["--mean", "none"], "mean", None),
        (["--auto_augment", "None"], "auto_augment", None),
        (["--depth", "null"], "depth", None),
        (["--do_val", "False"], "do_val", False),
        (["--do_val", "0"], "do_val", False),
        (["--with_ema"], "with_ema", True),
        (["--is_dynamic_loss_scale", "1"], "is_dynamic_loss_scale", True),
        (["--mixup_off_epoch", "175"], "mixup_off_epoch", 175),
    ],
)
def test_texts_become_values(argv, key, value):
    assert leaf(load(*argv), key) == value


def test_whole_floats_in_yaml_are_whole_numbers():
    config = load("--config", write("recipe.yaml", "mixup_off_epoch: 175.\nclip_global_norm_value: 5\n"))
    assert config.augment.mixup_off_epoch == 175
    assert config.optim.clip_global_norm_value == 5.0


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load().run.seed = 5


def test_leaf_names_are_unique():
    names = [name for section in sections().values() for name in section.model_fields]
    assert sorted(names) == sorted(leaf_sections())
    taken = set(names) | {"config", "base", "print_config"}
    assert not taken & {*aliases.ALIASES, *aliases.SHORT_FLAGS, *aliases.DEAD_KEYS}
    assert {*aliases.ALIASES.values(), *aliases.SHORT_FLAGS.values(), *aliases.VALUE_ALIASES} - taken <= {
        "dataset_name"
    }
    assert {*BUILT_FOR_TRAINING, *BUILT_FOR_EVALUATION} <= set(names)


# ---------------------------------------------------------------------------------------------------------------------
# Faults


def test_all_faults_at_once():
    write("recipe.yaml", "epoch: 3\nbatch_size: none\namp_level: O5\nbeta: [0.9]\nseed: -1\n")
    found = faults("--config", "recipe.yaml", "--base_lr", "fast", "--learnin_rate", "1", "--do_val", "maybe")
    assert sorted(found) == [
        "--base_lr: must be a number. Received: fast",
        "--do_val: must be True or False. Received: maybe",
        "--learnin_rate: no such flag. Known: --learning_rate, --drop_rate, --lr_init",
        "recipe.yaml: amp_level: not one of the choices. Received: O5. Known: O0, O1, O2, O3",
        "recipe.yaml: batch_size: must be a whole number. Received: none",
        "recipe.yaml: beta: must be a list of 2 numbers. Received: [0.9]",
        "recipe.yaml: epoch: no such key. Received: 3. Known: epochs, epoch_size, start_epoch",
        "recipe.yaml: seed: must be greater than or equal to 0. Received: -1",
    ]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--seed", "-1"], "--seed: must be greater than or equal to 0. Received: -1"),
        (["--epochs", "2.5"], "--epochs: must be a whole number. Received: 2.5"),
        (["--base_lr", "nan"], "--base_lr: must be a finite number. Received: nan"),
        (["--base_lr", "0"], "--base_lr: must be greater than 0. Received: 0"),
        (["--label_smoothing", "1"], "--label_smoothing: must be less than 1. Received: 1"),
        (["--set", "imagnet"], "--set: not one of the choices. Received: imagnet. "),
        (["--mean", "1,2"], "--mean: must be a list of 3 numbers. Received: "),
        (["--epoch", "3"], "--epoch: no such flag. Known: --epochs"),
        (["train"], "command line: expects --key value. Received: train"),
        (["--seed"], "command line: "),
        (["--config", "nowhere.yaml"], "--config: no such file. Received: nowhere.yaml"),
    ],
)
def test_faults_of_the_command_line(argv, line):
    assert faults(*argv)[0].startswith(line)


@pytest.mark.parametrize("key", ["no_such_thing", "Batch_size", "1"])
def test_unknown_keys_of_a_yaml(key):
    (line,) = faults("--config", write("recipe.yaml", f"{key}: 5\n"))
    assert line.startswith(f"recipe.yaml: {key}: no such key. Received: 5")
    assert ("batch_size" in line) == (key == "Batch_size")


def test_nested_values_are_refused():
    (line,) = faults("--config", write("recipe.yaml", "optim:\n  base_lr: 1\n"))
    assert line.startswith("recipe.yaml: optim: no such key")
    (line,) = faults("--config", write("recipe.yaml", "base_lr: {a: 1}\n"))
    assert line.startswith("recipe.yaml: base_lr: must be a number")


def test_sections_without_a_yaml():
    assert load_flags(PostprocessConfig, "postprocess", ["--result_path", "r"]).result_dir == "r"
    argv = ["--data_path", "d", "--dataset_name", "Cifar10"]
    assert load_flags(PreprocessConfig, "preprocess", argv).dataset_name == "cifar10"
    with pytest.raises(ConfigError) as caught:
        load_flags(PreprocessConfig, "preprocess", ["--dataset_name", "mnist"])
    assert sorted(line.split(". Received")[0] for line in caught.value.lines) == [
        "--data_path: must be given",
        "--dataset_name: not one of the choices",
    ]


# ---------------------------------------------------------------------------------------------------------------------
# What is not built yet


def test_unbuilt_values_are_refused_all_at_once():
    config = load("--train_url", "obs://bucket", "--in_channels", "1")
    with pytest.raises(ConfigError) as caught:
        require_built(config, BUILT_FOR_TRAINING)
    assert sorted(caught.value.lines) == [
        "in_channels: not built yet. Received: 1. Known: 3",
        "train_url: not built yet. Received: obs://bucket. Known: None",
    ]
    with pytest.raises(ConfigError, match=r"^in_channels: not built yet"):
        require_built(config, BUILT_FOR_EVALUATION)
    require_built(Config(), BUILT_FOR_TRAINING)


# ---------------------------------------------------------------------------------------------------------------------
# YAMLs of the zoo


def test_dead_keys_warn_and_do_nothing(capsys):
    config = load("--config", write("recipe.yaml", "".join(f"{key}: True\n" for key in aliases.DEAD_KEYS)))
    assert config == Config()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"warning: recipe.yaml: {key} never had an effect in the zoo and has none here" for key in aliases.DEAD_KEYS
    ]


ZOO_VALUES = {
    "cct_14_7x2_224": {"warmup_lr": 7e-8, "min_lr": 6e-6, "warmup_length": 20, "epochs": 310, "amp_level": "O2"},
    "pcpvt_small_v0": {"base_lr": 1e-3, "warmup_lr": 1e-6, "min_lr": 1e-5, "cooldown_epochs": 10, "crop_pct": 0.875},
    "deit_small_patch16_224": {"min_lr": 1e-6, "warmup_length": 5, "with_ema": False, "drop_path_rate": 0.1},
    "tnt_s_patch16_224": {"warmup_lr": 7e-8, "min_lr": 6e-6, "epochs": 300, "clip_global_norm_value": 5.0},
}
ZOO_COMMON = {
    "set": "ImageNet",
    "num_classes": 1000,
    "mix_up": 0.8,
    "cutmix": 1.0,
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "re_prob": 0.25,
    "beta": (0.9, 0.999),
    "weight_decay": 0.05,
    "batch_size": 128,
    "is_dynamic_loss_scale": True,
    "device_target": "Ascend",
}


def readme_yaml(arch: str) -> str:
    """The block of a zoo README that holds the recipe, word for word."""
    blocks = []
    for path in (SHARED / "seeds").iterdir():
        blocks += re.findall(r"^ *```\w*\n(.*?)^ *```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if f"arch: {arch}" in block]
    return textwrap.dedent(found)


@requires_oracles
@pytest.mark.parametrize("arch", ZOO_VALUES)
def test_recipes_of_the_zoo_readmes_load(arch, capsys):
    name = write("recipe.yaml", readme_yaml(arch))
    config = load("--config", name)
    wanted = {"arch": arch, **ZOO_COMMON, **ZOO_VALUES[arch]}
    assert {key: leaf(config, key) for key in wanted} == wanted
    warned = capsys.readouterr().err
    assert ("tabs before comments" in warned) == (arch == "pcpvt_small_v0")
    assert all(line.startswith("warning: recipe.yaml: ") for line in warned.splitlines())


# ---------------------------------------------------------------------------------------------------------------------
# Dumping


def test_print_config_prints_what_loads_and_leaves(capsys):
    argv = ["--config", write("recipe.yaml", "arch: vit_tiny_patch16_224\nbeta: [0.8, 0.9]\n"), "--seed", "5"]
    with pytest.raises(SystemExit) as caught:
        load(*argv, "--print_config")
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert load("--config", write("printed.yaml", printed)) == load(*argv)


def test_print_config_of_a_wrong_config_is_an_error():
    assert faults("--print_config", "--epochs", "0") == ["--epochs: must be greater than or equal to 1. Received: 0"]


# Characters that YAML gives a meaning to, and words that look like numbers, dates or truth values.
tricky_text = st.one_of(
    st.text(st.sampled_from("abz019 .:#-'\"\\/[]{},&*!|>%@`~é中\t"), min_size=1, max_size=100),
    st.sampled_from(["5e-4", "1e3", "010", "no", "True", "null", "2024-01-01", "12:30", "~", "=", "<<", "- a", "a: b"]),
)
positive = st.floats(1e-12, 1e12)
options = st.fixed_dictionaries(
    {},
    optional={
        "data_url": tricky_text,
        "output_dir": tricky_text,
        "pretrained": st.none() | tricky_text,
        "base_lr": positive,
        "beta": st.tuples(st.floats(0, 0.9999), st.floats(0, 0.9999)),
        "mean": st.none() | st.tuples(positive, positive, positive),
        "epochs": st.integers(1, 10**9),
        "depth": st.none() | st.integers(1, 100),
        "do_val": st.booleans(),
        "interpolation": st.sampled_from([None, "random", "bicubic"]),
        "clip_global_norm_value": st.none() | st.floats(0, 100),
    },
)


@given(options)
def test_what_is_dumped_loads_back_equal(values):
    trees: dict[str, dict] = {}
    for key, value in values.items():
        trees.setdefault(leaf_sections()[key], {})[key] = value
    config = Config.model_validate(trees)
    assert load("--config", write("dumped.yaml", dump_config(config))) == config


def test_dead_flags_and_verbose_are_taken(capsys):
    config = load_config("train", ["--deploy", "False", "--verbose"])
    assert config == load_config("train", [])
    assert "--deploy never had an effect" in capsys.readouterr().err


def test_two_names_of_one_key(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text("lr: 1e-3\nlearning_rate: 2e-3\n")
    with pytest.raises(ConfigError, match="learning_rate: is another name of lr, give one"):
        load_config("train", ["--config", str(path)])
