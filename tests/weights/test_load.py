"""Loading is complete or does nothing: whatever is wrong with a source, the network keeps every bit."""

from pathlib import Path

import numpy as np
import pytest
from mindspore import nn
from safetensors.numpy import save

from src.errors import ConfigError, ModelFileError
from src.schema import ModelConfig
from src.weights.authors_names import official_names
from src.weights.load import given_weights, load_weights
from src.weights.resample import BICUBIC, BICUBIC_ANTIALIAS, BILINEAR, CORNERS, resample_positions
from tests import recipe
from tests.networks import FAMILIES, official_shapes, tiny, values
from tests.weights import published
from tests.weights.files import ckpt_bytes, torch_bytes, write_file


@pytest.fixture(params=FAMILIES)
def net(request) -> nn.Cell:
    return tiny(request.param)


def official(net: nn.Cell) -> dict[str, np.ndarray]:
    return recipe.weights(official_shapes(net), "unit")


def ours(net: nn.Cell) -> dict[str, np.ndarray]:
    arrays = official(net)
    return {name: arrays[theirs] for theirs, name in official_names(net).items()}


def assert_holds(net: nn.Cell, arrays: dict[str, np.ndarray]) -> None:
    found = values(net)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert np.array_equal(found[name], array), name


def assert_refused(net: nn.Cell, source: object, words: str, **options: bool) -> None:
    before = values(net)
    with pytest.raises(ModelFileError, match=words) as caught:
        load_weights(net, source, **options)
    assert caught.value.exit_code == 4
    assert_holds(net, before)


# ---------------------------------------------------------------------------------------------------------------------
# What loads


@pytest.mark.parametrize("naming", ["ours", "official"])
@pytest.mark.parametrize(
    ("family", "suffix"),
    [("vit", ".ckpt"), ("vit", ".safetensors"), ("cct", ".pth"), *((family, "arrays") for family in FAMILIES)],
)
def test_every_source_and_naming(family, naming, suffix):
    net = tiny(family)
    arrays = ours(net) if naming == "ours" else official(net)
    writers = {".ckpt": ckpt_bytes, ".safetensors": save, ".pth": torch_bytes}
    source = arrays if suffix == "arrays" else write_file(f"net{suffix}", writers[suffix](arrays))
    report = load_weights(net, source)
    assert_holds(net, ours(net))
    assert (report.naming, len(report.loaded), report.reset, report.left_over) == (naming, len(arrays), [], [])
    norms = [name for name in values(net) if name.endswith((".gamma", ".beta")) and ".ls" not in name]
    assert report.renamed == ([] if naming == "ours" else sorted(norms))
    assert (report.merged, report.resampled, report.unused) == ([], [], [])
    shown = source if suffix != "arrays" else "arrays"
    assert str(report).startswith(f"weights of {shown} (naming: {naming}): loaded ")


def test_wrapped_names(net):
    load_weights(net, {f"module.model.{name}": array for name, array in official(net).items()})
    assert_holds(net, ours(net))


def test_half_precision_is_widened(net):
    load_weights(net, {name: array.astype(np.float16) for name, array in ours(net).items()})
    assert_holds(net, {name: array.astype(np.float16).astype(np.float32) for name, array in ours(net).items()})
    assert {parameter.asnumpy().dtype for parameter in net.get_parameters()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("prefix", ["", "model."])
def test_moments_that_come_first_are_not_loaded_as_weights(net, prefix):
    # MindSpore's own loader falls back to names that end alike, and takes these.
    arrays = ours(net)
    moments = {f"{kind}.{prefix}{name}": array + 1 for kind in ("adam_m", "adam_v") for name, array in arrays.items()}
    counters = {"global_step": np.array([5], np.int32), "learning_rate": np.array(0.1, np.float32)}
    weights = {f"{prefix}{name}": array for name, array in arrays.items()}
    path = write_file("net.ckpt", ckpt_bytes({**moments, **counters, **weights}))
    report = load_weights(net, path)
    assert_holds(net, arrays)
    assert report.left_over == sorted([*moments, *counters])
    assert str(report).endswith(f"left over {len(moments) + 2} of the training state")


def test_moments_alone_are_no_weights(net):
    moments = {f"moment1.{name}": array for name, array in ours(net).items()}
    assert_refused(net, moments, rf"does not fit the model: {len(moments)} missing")


def test_moments_do_not_stand_in_for_a_missing_weight(net):
    arrays = ours(net)
    last = list(arrays)[-1]
    source = {**{f"adam_v.{name}": array for name, array in arrays.items()}, **arrays}
    del source[last]
    assert_refused(net, source, rf"1 missing: {last}$")


# ---------------------------------------------------------------------------------------------------------------------
# Heads


def heads(family: str) -> tuple[nn.Cell, dict[str, np.ndarray]]:
    """A network of ten classes, and weights of the same network with four."""
    return tiny(family), official(tiny(family, num_classes=4))


@pytest.mark.parametrize("family", FAMILIES)
def test_another_head_is_refused_unless_asked_for(family):
    net, source = heads(family)
    number = 2 * len(net.head_prefixes())
    assert_refused(net, source, rf"{number} wrong shape: .*bias \(4,\) for \(10,\), .*weight \(4, 16\) for \(10, 16\)$")
    before = values(net)
    report = load_weights(net, source, reset_head=True)
    assert len(report.reset) == number
    assert all(name.startswith(net.head_prefixes()) for name in report.reset)
    assert str(report).endswith(f", reset {number} ({', '.join(report.reset)})")
    assert_holds(net, {**ours(net), **{name: before[name] for name in report.reset}})
    assert len(report.loaded) + number == len(before)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_head_counts_as_another_one(family):
    net, source = heads(family)
    source = {name: array for name, array in source.items() if not name.startswith(net.head_prefixes())}
    number = 2 * len(net.head_prefixes())
    assert_refused(net, source, rf"{number} missing: ")
    assert len(load_weights(net, source, reset_head=True).reset) == number


def test_a_head_that_fits_is_loaded_even_if_it_may_be_reset(net):
    assert load_weights(net, official(net), reset_head=True).reset == []
    assert_holds(net, ours(net))


def test_half_a_head_is_no_other_head(net):
    source = ours(net)
    (name, *_) = [name for name in source if name.startswith(net.head_prefixes())]
    del source[name]
    assert_refused(net, source, rf"1 missing: {name}$", reset_head=True)


def test_resetting_the_head_excuses_nothing_else(net):
    source = ours(net)
    source.pop(next(iter(source)))
    assert_refused(net, source, r"1 missing: ", reset_head=True)


# ---------------------------------------------------------------------------------------------------------------------
# Other image and patch sizes

# Family -> its position embeddings, and the tokens in front of the grid.
POSITIONS = {
    "vit": ("pos_embed", 1),
    "deit": ("pos_embed", 2),
    "deit3": ("pos_embed", 0),
    "tnt": ("patch_pos", 1),
    "cct": ("classifier.positional_emb", 0),
}


@pytest.mark.parametrize("image_size", [8, 24, 48])
@pytest.mark.parametrize("family", POSITIONS)
def test_positions_of_another_image_size_are_resampled(family, image_size):
    name, prefix = POSITIONS[family]
    net = tiny(family, image_size=image_size)
    source = ours(tiny(family))
    report = load_weights(net, source)
    (note,) = report.resampled
    old, new = source[name], values(net)[name]
    assert (note.name, note.old, note.new) == (name, old.shape, new.shape)
    assert note.rule == (BILINEAR if family == "cct" else BICUBIC_ANTIALIAS)
    assert np.array_equal(new, resample_positions(old, new.shape[1], note.rule))
    assert np.array_equal(new[:, :prefix], old[:, :prefix])
    assert_holds(net, {**source, name: new})
    assert f"resampled 1 ({name} {old.shape} to {new.shape}, {note.rule})" in str(report)


@pytest.mark.parametrize(
    ("form", "rule"),
    [
        (published.zoo, BICUBIC_ANTIALIAS),
        (lambda arrays: published.jax(arrays, 2), CORNERS),
        (lambda arrays: published.big_vision(arrays, 2), CORNERS),
        (published.huggingface, BICUBIC),
    ],
)
def test_positions_are_resampled_as_the_source_itself_does(form, rule):
    source = official(tiny("vit"))
    net = tiny("vit", image_size=40)
    report = load_weights(net, form(source))
    assert [note.rule for note in report.resampled] == [rule]
    expected = resample_positions(source["pos_embed"], 26, rule)
    assert np.array_equal(net.pos_embed.asnumpy()[:, 1:], expected[:, 1:])


def test_the_same_grid_is_never_touched(net):
    assert load_weights(net, official(net)).resampled == []


@pytest.mark.parametrize("num_tokens", [1, 3, 4, 6, 7])
def test_tokens_that_are_no_grid_are_refused(num_tokens):
    net = tiny("vit")
    source = ours(net)
    source["pos_embed"] = np.ones((1, num_tokens, 16), np.float32)
    words = rf"1 wrong shape: pos_embed \(1, {num_tokens}, 16\) for \(1, 5, 16\) \(no square grid with 1 tokens"
    assert_refused(net, source, words)


def test_a_plain_networks_positions_are_no_distilled_ones():
    source = ours(tiny("vit", image_size=32))
    net = tiny("deit", image_size=32)
    assert_refused(net, source, r"missing: dist_token.*\(no square grid with 2 tokens in front\)$")


def test_sine_positions_are_computed_anew():
    small, large = (tiny("cct", positional_embedding="sine", image_size=side) for side in (16, 32))
    source = {**ours(small), "classifier.positional_emb": values(small)["classifier.positional_emb"]}
    own = values(large)["classifier.positional_emb"]
    report = load_weights(large, source)
    assert [note.rule for note in report.resampled] == ["sine, computed anew"]
    assert np.array_equal(values(large)["classifier.positional_emb"], own)
    # The authors' own factories let the table learn: then it is what was learned.
    report = load_weights(large, ours(small))
    assert [note.rule for note in report.resampled] == [BILINEAR]
    assert np.abs(values(large)["classifier.positional_emb"] - own).max() > 0.1


@pytest.mark.parametrize("patch_size", [4, 16])
def test_patch_embeddings_are_resampled_on_request(patch_size):
    source = ours(tiny("vit"))
    net = tiny("vit", patch_size=patch_size)
    kernel = "patch_embed.proj.weight"
    assert_refused(net, source, rf"1 wrong shape: {kernel} .* \(resample_patches resamples it\)")
    report = load_weights(net, source, resample_patches=True)
    assert [note.name for note in report.resampled] == ["pos_embed", kernel]
    assert values(net)[kernel].shape == (16, 3, patch_size, patch_size)
    net = tiny("vit")
    assert load_weights(net, source, resample_patches=True).resampled == []
    assert_holds(net, source)


def test_a_patch_embedding_that_differs_otherwise_is_refused():
    net = tiny("vit", patch_size=4, in_channels=1)
    assert_refused(
        net, ours(tiny("vit")), r"1 wrong shape: patch_embed[^()]*\([^()]*\) for \([^()]*\)$", resample_patches=True
    )


# ---------------------------------------------------------------------------------------------------------------------
# The report


def test_the_listing_names_everything():
    net = tiny("vit", image_size=32)
    source = {**published.zoo_vit(official(tiny("vit"))), "global_step": np.array(3), "pre_logits.fc.bias": np.ones(2)}
    report = load_weights(net, source, reset_head=True)
    first, *lines = report.listing().splitlines()
    assert first == str(report)
    titles = {line.partition(": ")[0]: int(line.partition(": ")[2]) for line in lines if not line.startswith(" ")}
    assert titles == {
        "loaded": 30,
        "renamed": 26,
        "merged": 4,
        "resampled": 1,
        "reset": 2,
        "left over": 1,
        "unused": 1,
    }
    assert len(lines) == len(titles) + sum(titles.values())
    assert {"  blocks.1.attn.qkv.bias", "  head.bias", "  global_step", "  pre_logits.fc.bias"} <= set(lines)


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


def test_missing_names(net):
    for name in list(ours(net))[::5]:
        source = ours(net)
        del source[name]
        assert_refused(net, source, rf"^arrays: does not fit the model: 1 missing: {name}$")


def test_unexpected_names(net):
    assert_refused(net, {**ours(net), "extra.weight": np.ones(3, np.float32)}, r"1 unexpected: extra\.weight$")


def test_one_weight_under_two_names(net):
    source = ours(net)
    name = next(iter(source))
    assert_refused(net, {**source, f"model.{name}": source[name] + 1}, rf"^arrays: holds weights twice, .*: {name}$")


def test_wrong_shapes(net):
    source = ours(net)
    name = list(source)[-2]
    source[name] = source[name][..., None]
    assert_refused(net, source, rf"1 wrong shape: {name} \(.*1\) for \(")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(net, value):
    source = ours(net)
    name = list(source)[-1]
    source[name] = source[name].copy()
    source[name].flat[0] = value
    assert_refused(net, source, rf"1 not finite: {name}$")


def test_all_faults_are_told_at_once(net):
    source = ours(net)
    names = list(source)
    for name in names[:6]:
        source[f"old.{name}"] = source.pop(name)
    source[names[-1]] = source[names[-1]] * np.nan
    some = r"[^;]*, … 2 more"
    assert_refused(net, source, rf"6 missing: {some}; 6 unexpected: {some}; 1 not finite: {names[-1]}$")


def test_weights_of_another_family():
    for family in set(FAMILIES) - {"vit"}:
        assert_refused(tiny("vit"), official(tiny(family)), r"missing.*unexpected|unexpected")
        assert_refused(tiny(family), official(tiny("vit")), r"missing.*unexpected|missing")
    assert_refused(tiny("vit"), official(tiny("vit", depth=3)), r"unexpected: blocks\.2\.")
    assert_refused(tiny("vit", depth=3), official(tiny("vit")), r"missing: blocks\.2\.")


@pytest.mark.parametrize("family", ["vit", "cct"])
def test_a_checkpoint_cut_anywhere(family):
    net = tiny(family)
    content = ckpt_bytes(ours(net))
    for length in [*range(0, len(content) - 1, len(content) // 40), len(content) - 1]:
        assert_refused(net, write_file("net.ckpt", content[:length]), r"^net\.ckpt: ")


def test_no_file(net):
    assert_refused(net, Path("none.ckpt"), r"^none\.ckpt: no such file$")


def test_the_key_that_names_the_weights():
    assert given_weights(ModelConfig(pretrained="net.ckpt")) == Path("net.ckpt")
    with pytest.raises(ConfigError, match=r"^pretrained: must name a weight file"):
        given_weights(ModelConfig())
