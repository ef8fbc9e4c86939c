"""The list of models: what it says of each equals what outside code counts, to the last digit."""

import csv

import pytest
from mindspore.nn.utils import no_init_parameters

from src.errors import ConfigError
from src.models import ALIASES, MODELS, build_model, canonical_arch
from src.models.catalog import catalog, matching_archs, multiply_accumulates
from tests.oracles import ORACLES, requires_oracles

# Of timm 1.0.31 and the CCT authors' code, by torch's own counter.
MACS = {
    "vit_tiny_patch16_224": 1_253_683_200,
    "deit_small_distilled_patch16_224": 4_624_140_288,
    "cct_7_7x2_224": 1_604_554_240,
    "pcpvt_small_v0": 3_809_459_968,
    "alt_gvt_small": 2_927_353_344,
    "tnt_s_patch16_224": 5_216_875_008,
}


@pytest.mark.parametrize("arch", MACS)
def test_multiply_accumulates(arch):
    (row,) = catalog([arch])
    assert row.macs == MACS[arch]


@requires_oracles
def test_every_arch_that_outside_code_has_counted():
    with (ORACLES / "counts" / "counts.csv").open(encoding="utf-8") as stream:
        counted = {row["name"]: row for row in csv.DictReader(stream)}
    archs = {canonical_arch(name): row for name, row in counted.items() if canonical_arch(name) in MODELS}
    assert {MODELS[arch].family for arch in archs} == {"vit", "deit", "cct", "twins", "tnt"}
    assert len(archs) >= 50
    for row in catalog(list(archs)):
        expected = archs[row.arch]
        assert (row.params, row.macs) == (int(expected["params"]), int(expected["macs"])), row.arch
        assert (row.image_size, row.num_classes) == (int(expected["image_size"]), int(expected["num_classes"]))


@requires_oracles
@pytest.mark.parametrize(("arch", "num_classes"), [("vit_base_patch16_224", 21_843), ("cct_7_7x2_224", 1000)])
def test_other_heads(arch, num_classes):
    with (ORACLES / "counts" / "counts.csv").open(encoding="utf-8") as stream:
        (expected,) = [row for row in csv.DictReader(stream) if row["name"] == f"{arch}@{num_classes}"]
    with no_init_parameters():
        net = build_model(arch, num_classes=num_classes)
    assert multiply_accumulates(net) == int(expected["macs"])


def test_words_patterns_and_aliases_find_models():
    assert matching_archs("*") == list(MODELS)
    assert set(matching_archs("tnt")) == {"tnt_s_patch16_224", "tnt_b_patch16_224"}
    assert set(matching_archs("deit3_*_384")) == {
        "deit3_small_patch16_384",
        "deit3_base_patch16_384",
        "deit3_large_patch16_384",
    }
    for alias, arch in ALIASES.items():
        assert arch in matching_archs(alias)
    with pytest.raises(ConfigError, match=r"^arch: no model has such a name\. Received: resnet50\. Known: "):
        matching_archs("resnet50")


def test_rows_name_the_aliases():
    (row,) = catalog(["pcpvt_small_v0"])
    assert (row.family, row.aliases) == ("twins", ("twins_pcpvt_small",))
    assert row.default_cfg == MODELS["pcpvt_small_v0"].default_cfg
