"""Parameter counts of every model equal the published ones exactly: elements, trainable elements, tensors."""

import csv
import functools

import pytest
from mindspore.nn.utils import no_init_parameters

from src.models import ALIASES, MODELS, build_model, num_parameters
from tests.oracles import ORACLES, requires_oracles

# Elements and tensors, fused qkv, with the arch's own head and image.
COUNTS = {
    "vit_tiny_patch16_224": (5_717_416, 152),
    "vit_tiny_patch16_384": (5_790_376, 152),
    "vit_small_patch16_224": (22_050_664, 152),
    "vit_small_patch16_384": (22_196_584, 152),
    "vit_small_patch32_224": (22_878_952, 152),
    "vit_small_patch32_384": (22_915_432, 152),
    "vit_base_patch16_224": (86_567_656, 152),
    "vit_base_patch16_384": (86_859_496, 152),
    "vit_base_patch32_224": (88_224_232, 152),
    "vit_base_patch32_384": (88_297_192, 152),
    "vit_large_patch16_224": (304_326_632, 296),
    "vit_large_patch16_384": (304_715_752, 296),
    "vit_large_patch32_224": (306_535_400, 296),
    "vit_large_patch32_384": (306_632_680, 296),
    "vit_huge_patch14_224": (632_045_800, 392),
    "vit_testing": (1_005, 20),
    "cct_2_3x2_32": (283_723, 31),
    "cct_2_3x2_32_sine": (283_723, 31),
    "cct_4_3x2_32": (482_123, 53),
    "cct_4_3x2_32_sine": (482_123, 53),
    "cct_6_3x1_32": (3_233_803, 74),
    "cct_6_3x1_32_sine": (3_233_803, 74),
    "cct_6_3x2_32": (3_326_923, 75),
    "cct_6_3x2_32_sine": (3_326_923, 75),
    "cct_7_3x1_32": (3_760_139, 85),
    "cct_7_3x1_32_sine": (3_760_139, 85),
    "cct_7_3x1_32_c100": (3_783_269, 85),
    "cct_7_3x1_32_sine_c100": (3_783_269, 85),
    "cct_7_3x2_32": (3_853_259, 86),
    "cct_7_3x2_32_sine": (3_853_259, 86),
    "cct_7_7x2_224": (4_573_735, 86),
    "cct_7_7x2_224_sine": (4_573_735, 86),
    "cct_14_7x2_224": (22_367_273, 163),
    "cct_14_7x2_384": (22_513_193, 163),
    "cct_14_7x2_384_fl": (22_167_463, 163),
    "deit_tiny_patch16_224": (5_717_416, 152),
    "deit_small_patch16_224": (22_050_664, 152),
    "deit_base_patch16_224": (86_567_656, 152),
    "deit_base_patch16_384": (86_859_496, 152),
    "deit_tiny_distilled_patch16_224": (5_910_800, 155),
    "deit_small_distilled_patch16_224": (22_436_432, 155),
    "deit_base_distilled_patch16_224": (87_338_192, 155),
    "deit_base_distilled_patch16_384": (87_630_032, 155),
    "deit3_small_patch16_224": (22_059_496, 176),
    "deit3_small_patch16_384": (22_205_416, 176),
    "deit3_medium_patch16_224": (38_849_512, 176),
    "deit3_base_patch16_224": (86_585_320, 176),
    "deit3_base_patch16_384": (86_877_160, 176),
    "deit3_large_patch16_224": (304_374_760, 344),
    "deit3_large_patch16_384": (304_763_880, 344),
    "deit3_huge_patch14_224": (632_126_440, 456),
    "pcpvt_small_v0": (24_106_216, 304),
    "pcpvt_base_v0": (43_828_456, 520),
    "pcpvt_large_v0": (60_989_672, 754),
    "alt_gvt_small": (24_060_776, 290),
    "alt_gvt_base": (56_070_952, 384),
    "alt_gvt_large": (99_271_400, 384),
    "tnt_s_patch16_224": (23_768_584, 363),
    "tnt_b_patch16_224": (65_428_680, 363),
}
# Where a part is frozen: the sine positions.
TRAINABLE = {
    "cct_2_3x2_32_sine": 275_531,
    "cct_4_3x2_32_sine": 473_931,
    "cct_6_3x1_32_sine": 3_168_267,
    "cct_6_3x2_32_sine": 3_310_539,
    "cct_7_3x1_32_sine": 3_694_603,
    "cct_7_3x1_32_sine_c100": 3_717_733,
    "cct_7_3x2_32_sine": 3_836_875,
    "cct_7_7x2_224_sine": 4_523_559,
}
OTHER_HEADS = [
    ("vit_base_patch16_224", 10, 85_806_346),
    ("vit_base_patch32_224", 10, 87_462_922),
    ("vit_large_patch16_224", 10, 303_311_882),
    ("vit_large_patch32_224", 10, 305_520_650),
    ("vit_huge_patch14_224", 10, 630_777_610),
    ("vit_base_patch16_224", 100, 85_875_556),
    ("vit_base_patch16_224", 21_843, 102_595_923),
    ("vit_base_patch16_384", 10, 86_098_186),
    ("cct_7_7x2_224", 1000, 4_804_521),
]


@functools.cache
def counts(arch: str, **sizes: int) -> tuple[int, int, int]:
    """Elements, trainable elements, tensors, without any memory behind them."""
    with no_init_parameters():
        net = build_model(arch, **sizes)
    return num_parameters(net), num_parameters(net, trainable_only=True), len(list(net.get_parameters()))


def test_the_table_is_complete():
    assert COUNTS.keys() == MODELS.keys()


@pytest.mark.parametrize("arch", COUNTS)
def test_counts_are_exact(arch):
    params, tensors = COUNTS[arch]
    assert counts(arch) == (params, TRAINABLE.get(arch, params), tensors)


@pytest.mark.parametrize(("arch", "num_classes", "params"), OTHER_HEADS)
def test_counts_with_another_head(arch, num_classes, params):
    assert counts(arch, num_classes=num_classes)[0] == params


@pytest.mark.parametrize("arch", ["cct_7_7x2_224", "vit_tiny_patch16_224", "deit3_small_patch16_224", "alt_gvt_small"])
def test_compat_changes_no_count(arch):
    assert counts(arch, compat="zoo") == counts(arch)


@pytest.mark.parametrize(("arch", "params"), [("tnt_s_patch16_224", 23_757_384), ("tnt_b_patch16_224", 65_410_680)])
def test_the_zoo_lacks_biases_of_tnt(arch, params):
    # Those of pixel_embed.proj, proj, attn_in.proj, attn_out.proj, mlp_in.fc2, mlp.fc2 and head.
    assert counts(arch, compat="zoo") == (params, params, 363 - 3 - 4 * 12)


@requires_oracles
def test_counts_equal_the_outside_list():
    with (ORACLES / "counts" / "counts.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    compared = set()
    for row in rows:
        # cct_2_3x2_32_sine(true) is the frozen table that the paper describes; arch@10 has another head.
        arch = row["name"].removesuffix("(true)").split("@")[0]
        arch = ALIASES.get(arch, arch)
        if arch in MODELS:
            wanted = tuple(int(row[key]) for key in ("params", "trainable", "tensors"))
            num_classes = int(row["num_classes"])
            own = MODELS[arch].num_classes == num_classes
            assert (counts(arch) if own else counts(arch, num_classes=num_classes)) == wanted, row["name"]
            compared.add(arch)
    assert len(compared) == 53
