"""Names of other codebases: what is a wrapper, what is no weight, what the authors call a parameter."""

import pytest

from src.weights.names import detect_naming, is_training_state, official_names, strip_wrappers
from tests.networks import tiny


@pytest.mark.parametrize(
    ("name", "stripped"),
    [
        ("head.weight", "head.weight"),
        ("module.head.weight", "head.weight"),
        ("model.head.weight", "head.weight"),
        ("network.backbone.head.weight", "head.weight"),
        ("module.model.blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.weight"),
        # Inside a name the same words are parts of it.
        ("blocks.0.module.weight", "blocks.0.module.weight"),
        ("model_ema.weight", "model_ema.weight"),
        ("models.0.weight", "models.0.weight"),
    ],
)
def test_wrappers(name, stripped):
    assert strip_wrappers(name) == stripped


@pytest.mark.parametrize(
    "name",
    [
        "adam_m.model.head.weight",
        "adam_v.head.weight",
        "moments.head.weight",
        "moment1.head.weight",
        "moment2.blocks.0.norm1.gamma",
        "accum.head.weight",
        "ema.head.weight",
        "_ema_weights.head.weight",
        "_ema_weightshead.weight",
        "global_step",
        "learning_rate",
        "scale_sense",
        "current_iterator_step",
        "last_overflow_iterator_step",
    ],
)
def test_training_state(name):
    assert is_training_state(name)


@pytest.mark.parametrize("name", ["head.weight", "accumulate.weight", "moment.weight", "global_step.weight", "emanate"])
def test_weights_are_no_training_state(name):
    assert not is_training_state(name)


@pytest.mark.parametrize("family", ["vit", "cct"])
def test_norms_alone_have_two_names(family):
    net = tiny(family)
    table = official_names(net)
    parameters = dict(net.parameters_and_names())
    assert sorted(table.values()) == sorted(parameters)
    differing = {theirs: ours for theirs, ours in table.items() if theirs != ours}
    assert differing
    for theirs, ours in differing.items():
        assert ours.endswith((".gamma", ".beta"))
        assert theirs == ours.replace(".gamma", ".weight").replace(".beta", ".bias")
        assert parameters[ours].ndim == 1
    # Nothing called gamma or beta is left in the authors' spelling.
    assert not [name for name in table if name.endswith((".gamma", ".beta"))]


@pytest.mark.parametrize("family", ["vit", "cct"])
def test_naming_is_detected_by_most_names(family):
    net = tiny(family)
    table = official_names(net)
    assert detect_naming(table, net) == ("official", table)
    naming, names = detect_naming(table.values(), net)
    assert (naming, names) == ("ours", {name: name for name in table.values()})
    some_missing = list(table)[len(table) // 3 :]
    assert detect_naming(some_missing, net)[0] == "official"
