"""Every trainable parameter has one place: decayed or not, its layer's rate; frozen ones have none.

``goldens/layer_scales.json`` holds ``param_groups_layer_decay`` of timm 1.0.31 (layer_decay 0.5) for networks as
deep as those of `tests.networks.TINY`, by timm's names.
"""

import json

import pytest

from src.errors import ConfigError
from src.schema import OptimConfig
from src.trainers.optimizers import build_optimizer
from src.trainers.parameter_groups import freeze, layer_scales, members_of, plan_lines, split_by_decay
from src.weights.authors_names import official_names
from tests.networks import FAMILIES, GOLDENS, tiny

TIMM_SCALES = json.loads((GOLDENS / "layer_scales.json").read_text(encoding="utf-8"))
# Parameters of more than one dimension that are not decayed.
TOKENS = {
    "vit": {"cls_token", "pos_embed"},
    "deit": {"cls_token", "dist_token", "pos_embed"},
    "cct": {"classifier.positional_emb"},
    "tnt": {"cls_token", "patch_pos", "pixel_pos"},
    "pcpvt": {"pos_block.0.proj.0.weight", "pos_block.1.proj.0.weight"},
}


def shapes(net) -> dict[str, tuple[int, ...]]:
    return {name: parameter.shape for name, parameter in net.parameters_and_names()}


def trainable(net) -> list[str]:
    return [name for name, parameter in net.parameters_and_names() if parameter.requires_grad]


@pytest.mark.parametrize("rule", ["standard", "zoo", "all"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_trainable_parameter_is_in_one_group(family, rule):
    sine = {"positional_embedding": "sine"} if family == "cct" else {}
    net = tiny(family, **sine)
    decayed, kept = split_by_decay(net, rule)
    assert sorted(decayed + kept) == sorted(trainable(net))
    members = members_of(net, OptimConfig(decay_rule=rule, layer_decay=0.5))
    assert [member.name for member in members] == trainable(net)
    assert [member.name for member in members if member.is_decayed] == decayed


@pytest.mark.parametrize(("family", "tokens"), TOKENS.items())
def test_matrices_alone_are_decayed(family, tokens):
    net = tiny(family)
    decayed, kept = split_by_decay(net)
    assert all(len(shapes(net)[name]) >= 2 for name in decayed)
    assert {name for name in kept if len(shapes(net)[name]) >= 2} == tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_the_zoo_decays_the_positions_of_cct_and_otherwise_the_same(family):
    net = tiny(family)
    ours, zoo = set(split_by_decay(net)[0]), set(split_by_decay(net, "zoo")[0])
    assert zoo - ours == ({"classifier.positional_emb"} if family == "cct" else set())
    assert ours <= zoo


def test_the_zoos_vit_decays_everything():
    net = tiny("vit")
    assert split_by_decay(net, "all") == (trainable(net), [])


@pytest.mark.parametrize("family", TIMM_SCALES)
def test_scales_of_layers_equal_timm(family):
    net = tiny(family)
    ours = layer_scales(net, 0.5)
    assert ours.keys() == shapes(net).keys()
    named = {theirs: ours[name] for theirs, name in official_names(net).items()}
    assert named == TIMM_SCALES[family]


def test_scales_of_cct():
    scales = layer_scales(tiny("cct"), 0.5)
    assert scales["tokenizer.conv_layers.0.0.weight"] == scales["classifier.positional_emb"] == 0.125
    assert scales["classifier.blocks.0.norm1.gamma"] == 0.25
    assert scales["classifier.blocks.1.linear2.weight"] == scales["classifier.norm.gamma"] == 0.5
    assert scales["classifier.attention_pool.weight"] == scales["classifier.fc.weight"] == 1.0


def test_hidden_matrices_are_not_the_head():
    matrices = {member.name for member in members_of(tiny("cct"), OptimConfig()) if member.is_matrix}
    block = ("self_attn.qkv.weight", "self_attn.proj.weight", "linear1.weight", "linear2.weight")
    assert matrices == {f"classifier.blocks.{index}.{name}" for index in (0, 1) for name in block}


# ---------------------------------------------------------------------------------------------------------------------
# Freezing


def test_frozen_parameters_are_no_weights_of_the_optimizer():
    net = tiny("vit")
    before = trainable(net)
    frozen = freeze(net, ("patch_embed.*", "blocks.[0].*", "pos_embed"))
    assert [name for name in before if name not in frozen] == trainable(net)
    assert "blocks.0.norm1.gamma" in frozen
    assert "blocks.1.norm1.gamma" not in frozen
    assert list(build_optimizer(net, OptimConfig()).names) == trainable(net)


def test_the_optimizer_freezes_by_its_key():
    net = tiny("vit")
    optimizer = build_optimizer(net, OptimConfig(freeze="blocks.*, patch_embed.*"))
    assert (
        trainable(net)
        == list(optimizer.names)
        == ["cls_token", "pos_embed", "norm.gamma", "norm.beta"]
        + [
            "head.weight",
            "head.bias",
        ]
    )
    assert {name.partition(".")[2] for name in optimizer.state()} == set(optimizer.names)


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        (("head.wieght",), r"^freeze: matches no parameter. Received: head.wieght. Known: .*head.weight"),
        (("head.*", "patch_embd.*"), r"^freeze: matches no parameter. Received: patch_embd.\*. Known: .*patch_embed"),
        (("*",), r"^freeze: leaves nothing to train. Received: \*"),
    ],
)
def test_wrong_patterns_freeze_nothing(patterns, words):
    net = tiny("vit")
    before = trainable(net)
    with pytest.raises(ConfigError, match=words):
        freeze(net, patterns)
    assert trainable(net) == before


def test_no_pattern_freezes_nothing():
    net = tiny("cct", positional_embedding="sine")
    before = trainable(net)
    assert freeze(net, ()) == []
    assert trainable(net) == before
    assert "classifier.positional_emb" not in before


def test_plan_names_every_parameter_and_counts():
    net = tiny("vit")
    freeze(net, ("head.*",))
    lines = plan_lines(net, OptimConfig(layer_decay=0.5))
    decayed, kept = split_by_decay(net)
    names = [f"=> decay {name}" for name in decayed] + [f"=> no decay {name}" for name in kept]
    counts = f"=> {len(decayed)} tensors with decay, {len(kept)} without, 2 not trained"
    assert lines == [*names, counts, "=> layer_decay 0.5: rates from 0.125 of the head's to the head's"]
