"""Whose names a source has, what is a wrapper or no weight, and that every naming can be read and written."""

from collections.abc import Callable

import numpy as np
import pytest
from mindspore import Tensor, nn

from src.errors import ModelFileError
from src.weights.authors_names import official_names
from src.weights.load import load_weights
from src.weights.names import (
    detect_naming,
    is_training_state,
    is_unused,
    namings,
    strip_wrappers,
)
from tests import recipe
from tests.networks import FAMILIES, TINY_IMAGE_SIZE, TNT, VIT, official_shapes, tiny, values
from tests.oracles import ORACLES, requires_oracles
from tests.weights import published
from tests.weights.published import Arrays

NUM_HEADS = 2


@pytest.mark.parametrize(
    ("name", "stripped"),
    [
        ("head.weight", "head.weight"),
        ("module.head.weight", "head.weight"),
        ("model.head.weight", "head.weight"),
        ("_orig_mod.head.weight", "head.weight"),
        ("network.backbone.head.weight", "head.weight"),
        ("module.model.blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.weight"),
        ("opt/target/head/kernel", "head/kernel"),
        ("params/head/kernel", "head/kernel"),
        ("params/img/head/kernel", "head/kernel"),
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
        "opt/state/step",
    ],
)
def test_training_state(name):
    assert is_training_state(name)


@pytest.mark.parametrize("name", ["head.weight", "accumulate.weight", "moment.weight", "global_step.weight", "emanate"])
def test_weights_are_no_training_state(name):
    assert not is_training_state(name)


@pytest.mark.parametrize(
    "name", ["pre_logits/kernel", "pre_logits.fc.bias", "outer_tokens", "vit.pooler.dense.weight", "pooler.dense.bias"]
)
def test_weights_without_use(name):
    assert is_unused(name)


@pytest.mark.parametrize("name", ["head.weight", "outer_tokens.weight", "blocks.0.pre_logits.weight"])
def test_weights_with_a_use(name):
    assert not is_unused(name)


@pytest.mark.parametrize("family", FAMILIES)
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
    # What is still called gamma is no norm but DeiT III's layer scale.
    assert all(".ls" in name for name in table if name.endswith((".gamma", ".beta")))


@pytest.mark.parametrize("family", FAMILIES)
def test_naming_is_detected_by_most_names(family):
    net = tiny(family)
    table = official_names(net)
    assert detect_naming(table, net).name == "official"
    assert detect_naming(table.values(), net).name == "ours"
    some_missing = list(table)[len(table) // 3 :]
    assert detect_naming(some_missing, net).name == "official"


# ---------------------------------------------------------------------------------------------------------------------
# Published forms


def with_heads(form: Callable[..., Arrays], **options: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: form(arrays, NUM_HEADS, **options)


def without_prefix(arrays: Arrays) -> Arrays:
    return {name.split(".", 1)[1] if name.startswith(("vit.", "deit.")) else name: a for name, a in arrays.items()}


def with_tokens_of_code(arrays: Arrays) -> Arrays:
    code = {"transformer.embeddings.position_embeddings": "q1", "transformer.embeddings.cls_token": "q2"}
    return {code.get(name, name): array for name, array in published.zoo_vit(arrays).items()}


FORMS = [
    ("vit", "zoo ViT", published.zoo_vit),
    ("vit", "zoo ViT", with_tokens_of_code),
    ("vit", "zoo", published.zoo),
    ("vit", "jax", with_heads(published.jax)),
    ("vit", "jax", lambda arrays: published.stacked(published.jax(arrays, NUM_HEADS))),
    ("vit", "jax", lambda a: {f"opt/target/{name}": v for name, v in published.jax(a, NUM_HEADS).items()}),
    ("vit", "huggingface", published.huggingface),
    ("vit", "huggingface", published.transformers_5),
    ("vit", "huggingface", lambda arrays: without_prefix(published.huggingface(arrays))),
    ("deit", "zoo", published.zoo),
    ("deit", "huggingface", published.huggingface),
    ("deit", "huggingface", published.transformers_5),
    ("deit", "huggingface", lambda arrays: without_prefix(published.transformers_5(arrays))),
    ("deit3", "facebookresearch/deit", published.deit3_authors),
    ("cct", "zoo", published.zoo),
    ("pcpvt", "zoo", published.zoo),
    ("pcpvt", "zoo", published.bare_twins),
    ("svt", "zoo", published.zoo),
    ("svt", "zoo", published.bare_twins),
    ("tnt", "tnt_pytorch", published.tnt_pytorch),
    ("tnt without biases", "zoo", published.zoo_tnt),
]


def network(family: str) -> nn.Cell:
    return tiny("tnt", compat="zoo") if family == "tnt without biases" else tiny(family)


def official(net: nn.Cell) -> Arrays:
    return recipe.weights(official_shapes(net), "unit")


def ours(net: nn.Cell) -> Arrays:
    arrays = official(net)
    return {name: arrays[theirs] for theirs, name in official_names(net).items()}


def assert_holds(net: nn.Cell, arrays: Arrays) -> None:
    found = values(net)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert np.array_equal(found[name], array), name


@pytest.mark.parametrize("family", FAMILIES)
def test_ours_comes_first_and_every_name_once(family):
    names = [naming.name for naming in namings(tiny(family))]
    assert names[:2] == ["ours", "official"]
    assert ("zoo" in names) == (family != "deit3")
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize(("family", "naming", "form"), FORMS)
def test_published_weights_become_ours(family, naming, form, prefix):
    net = network(family)
    source = {prefix + name: array for name, array in form(official(net)).items()}
    report = load_weights(net, source)
    assert_holds(net, ours(net))
    assert report.naming == naming
    assert len(report.loaded) == len(ours(net))
    assert set(report.renamed) | set(report.merged) <= set(report.loaded)
    assert not set(report.renamed) & set(report.merged)
    parts = {name for name in report.loaded if name.split(".")[-2:-1] and name.split(".")[-2] in {"qkv", "kv", "qk"}}
    if naming in {"zoo", "zoo ViT", "jax", "huggingface"}:
        assert set(report.merged) == parts
    else:
        assert report.merged == []


@pytest.mark.parametrize(("family", "naming", "form"), FORMS)
def test_a_tensor_less_or_more_is_refused(family, naming, form):
    net = network(family)
    source = form(official(net))
    before = values(net)
    for name in list(source)[::7]:
        short = {other: array for other, array in source.items() if other != name}
        with pytest.raises(ModelFileError, match=r"missing: |no class token|stands? on"):
            load_weights(net, short)
    with pytest.raises(ModelFileError, match=r"1 unexpected: another\.weight"):
        load_weights(net, {**source, "another.weight": np.ones(3, np.float32)})
    assert_holds(net, before)


@pytest.mark.parametrize("family", [*FAMILIES, "tnt without biases"])
def test_every_naming_can_be_written_and_read(family):
    net = network(family)
    arrays = ours(net)
    for naming in namings(net):
        if (family, naming.name) == ("tnt", "zoo"):
            assert "pixel_embed.proj.bias" not in {ours for ours, origin in naming.origins.items() if origin.names}
            continue
        tensors = naming.write(arrays)
        fresh = network(family)
        assert load_weights(fresh, tensors).naming == naming.name
        assert_holds(fresh, arrays)


@pytest.mark.parametrize(("family", "naming", "form"), FORMS)
def test_what_is_written_is_what_was_published(family, naming, form):
    net = network(family)
    theirs = form(official(net))
    (table,) = [known for known in namings(net) if known.name == naming]
    canonical = {table.aliases.get(name, name): array for name, array in theirs.items()}
    written = table.write(ours(net))
    if canonical.keys() == written.keys():
        assert all(np.array_equal(written[name], array) for name, array in canonical.items())
    else:
        # Blocks that a scan stacked, and trees that they lay in, are not written again.
        assert naming == "jax"


@pytest.mark.parametrize(("family", "naming", "form"), FORMS)
@pytest.mark.parametrize("first", [True, False])
def test_moments_are_never_weights(family, naming, form, first):
    net = network(family)
    weights = {f"model.{name}": array for name, array in form(official(net)).items()}
    moments = {f"{kind}.{name}": array + 1 for kind in ("adam_m", "adam_v") for name, array in weights.items()}
    report = load_weights(net, {**moments, **weights} if first else {**weights, **moments})
    assert_holds(net, ours(net))
    assert report.left_over == sorted(moments)


def test_parts_that_do_not_go_together():
    net = tiny("deit")
    source = published.zoo(official(net))
    source["blocks.0.attn.q.bias"] = source["blocks.0.attn.q.bias"][:-1]
    with pytest.raises(ModelFileError, match=r"1 wrong shape: blocks\.0\.attn\.qkv\.bias \(15,\) and \(16,\) and"):
        load_weights(net, source)
    del source["blocks.0.attn.q.bias"]
    words = r"1 missing: blocks\.0\.attn\.qkv\.bias \(without blocks\.0\.attn\.q\.bias\)$"
    with pytest.raises(ModelFileError, match=words):
        load_weights(net, source)


def test_one_weight_under_two_published_names():
    net = tiny("vit")
    source = published.zoo_vit(official(net))
    with pytest.raises(ModelFileError, match=r"holds a weight twice, as .*cls_token and as q2"):
        load_weights(net, {**source, "q2": source["transformer.embeddings.cls_token"]})


# ---------------------------------------------------------------------------------------------------------------------
# JAX


@pytest.mark.parametrize("prefix", ["params/", "params/img/", ""])
@pytest.mark.parametrize("form", [lambda arrays: arrays, published.stacked])
def test_big_vision_adds_positions_before_the_class_token(prefix, form):
    net = tiny("vit")
    source = form(published.big_vision(official(net), NUM_HEADS, ""))
    assert load_weights(net, {prefix + name: array for name, array in source.items()}).naming == "jax"
    # The token's own position went into the token, as the loader of big_vision has it.
    tables = ours(net)
    tables["cls_token"] = tables["cls_token"] + tables["pos_embed"][:, :1]
    tables["pos_embed"] = np.concatenate((np.zeros((1, 1, 16), np.float32), tables["pos_embed"][:, 1:]), 1)
    assert_holds(net, tables)


def test_moving_a_position_into_the_class_token_changes_no_logit():
    net, same = tiny("vit"), tiny("vit")
    load_weights(same, official(net))
    load_weights(net, published.big_vision(official(net), NUM_HEADS))
    images = Tensor(recipe.images(TINY_IMAGE_SIZE))
    assert np.abs(net(images).asnumpy() - same(images).asnumpy()).max() < 1e-6


def test_files_between_the_two_mix_their_names():
    net = tiny("vit")
    source = published.jax(official(net), NUM_HEADS)
    source["Transformer/pos_embedding"] = source.pop("Transformer/posembed_input/pos_embedding")
    assert load_weights(net, source).naming == "jax"
    assert_holds(net, ours(net))


def test_networks_without_a_class_token_are_told():
    net = tiny("vit")
    source = published.big_vision(official(net), NUM_HEADS)
    del source["params/cls"]
    with pytest.raises(ModelFileError, match=r"^arrays: has no class token: its network pools over all tokens"):
        load_weights(net, source)


def test_a_head_on_pre_logits_is_not_loaded():
    net = tiny("vit")
    source = published.jax(official(net), NUM_HEADS)
    source |= {"pre_logits/kernel": np.eye(16, dtype=np.float32), "pre_logits/bias": np.zeros(16, np.float32)}
    before = values(net)
    with pytest.raises(ModelFileError, match=r"its head stands on pre_logits.*reset_head"):
        load_weights(net, source)
    report = load_weights(net, source, reset_head=True)
    assert report.reset == ["head.weight", "head.bias"]
    assert report.unused == ["pre_logits/bias", "pre_logits/kernel"]
    assert str(report).endswith("reset 2 (head.weight, head.bias), not used 2 (pre_logits/bias, pre_logits/kernel)")
    assert_holds(net, {**ours(net), **{name: before[name] for name in report.reset}})


@requires_oracles
@pytest.mark.parametrize(("compat", "stored"), [("zoo", "logits_jax_f32"), ("official", "logits_jax_erf_f32")])
def test_logits_equal_those_of_jax(compat, stored):
    net = VIT.build(compat=compat)
    folder = ORACLES / "jax" / "jax_vit_ti16_d2"
    report = load_weights(net, folder / "weights.npz")
    assert (report.naming, len(report.merged), report.unused) == ("jax", 4, [])
    logits = net(Tensor(recipe.images(224))).asnumpy()
    np.testing.assert_allclose(logits, np.load(folder / f"{stored}.npy"), rtol=0, atol=3e-5)


# ---------------------------------------------------------------------------------------------------------------------
# TNT


def test_an_unused_tensor_of_the_authors_is_reported():
    net = tiny("tnt")
    source = {**published.tnt_pytorch(official(net)), "outer_tokens": np.ones((1, 4, 16), np.float32)}
    report = load_weights(net, source)
    assert report.unused == ["outer_tokens"]
    assert_holds(net, ours(net))


@requires_oracles
def test_file_of_the_tnt_authors():
    net = TNT.build()
    report = load_weights(net, ORACLES / "models" / "tnt_s_w96_d2" / "weights_official_names.pth")
    assert (report.naming, report.unused) == ("tnt_pytorch", ["outer_tokens"])
    wanted = recipe.weights(official_shapes(net), "probe")
    assert_holds(net, {name: wanted[theirs] for theirs, name in official_names(net).items()})


def legacy(arrays: Arrays) -> Arrays:
    """timm's tnt_s_legacy: blocks normalise each pixel by itself and have a bias instead of a second norm."""
    result = {}
    for name, array in arrays.items():
        if name.startswith("blocks") and ".norm2_proj." in name:
            continue
        if name.startswith("blocks") and ".norm1_proj." in name:
            array = array[:8]
        result[name] = array
        if name.startswith("blocks") and name.endswith(".proj.weight") and name.count(".") == 3:
            result[name.replace("weight", "bias")] = array[:, 0]
    return result


@pytest.mark.parametrize("form", [lambda arrays: arrays, published.tnt_pytorch])
def test_legacy_tnt_is_refused(form):
    net = tiny("tnt")
    before = values(net)
    with pytest.raises(ModelFileError, match=r"^arrays: is timm's tnt_s_legacy, another network"):
        load_weights(net, form(legacy(official(net))))
    assert_holds(net, before)


def test_biases_decide_the_compat_of_tnt():
    zoo, full = tiny("tnt", compat="zoo"), tiny("tnt")
    with pytest.raises(ModelFileError, match=r"lacks biases, .*: build the network with compat zoo$"):
        load_weights(full, published.zoo_tnt(official(zoo)))
    for form in (lambda arrays: arrays, published.tnt_pytorch):
        with pytest.raises(ModelFileError, match=r"has biases that .*: build the network with compat official$"):
            load_weights(zoo, form(official(full)))
    with pytest.raises(ModelFileError, match=r"has biases that .*: build the network with compat official$"):
        load_weights(zoo, ours(full))
    with pytest.raises(ModelFileError, match=r"lacks biases, .*: build the network with compat zoo$"):
        load_weights(full, ours(zoo))
