"""What the levels of mixed precision cast, family by family, and how the loss scale moves."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from src.config import load_config
from src.models import resolved
from src.models.kernels import Dense, Gelu, LayerNorm, PatchConv2d, kernel_form
from src.schema import Config
from src.trainers.precision import OFFICIAL, ZOO, LossScale, amp_table, cast_cells, cast_network
from tests import recipe
from tests.networks import FAMILIES, NO_DROPS, TINY_IMAGE_SIZE, fill, tiny

ARCHS = {
    "cct": "cct_7_3x1_32",
    "deit": "deit_small_patch16_224",
    "twins": "pcpvt_small_v0",
    "tnt": "tnt_s_patch16_224",
    "vit": "vit_tiny_patch16_224",
}


def config(**keys: object) -> Config:
    words = [word for key, value in keys.items() for word in (f"--{key}", str(value))]
    return resolved(load_config("train", words))


def types(net: nn.Cell, kind: type) -> set[str]:
    """What cells of a type compute in."""
    found = {str(cell.get_flags().get("fp16", False)) for _, cell in net.cells_and_names() if isinstance(cell, kind)}
    return {"half" if flag == "True" else "single" for flag in found}


def test_every_family_has_a_table_with_every_level():
    assert ZOO.keys() == ARCHS.keys()
    assert all(table.levels.keys() == {"O0", "O1", "O2", "O3"} for table in (OFFICIAL, *ZOO.values()))


@pytest.mark.parametrize(
    ("level", "half"),
    [
        ("O0", set()),
        ("O1", {Dense, PatchConv2d}),
        ("O2", {Dense, PatchConv2d, Gelu, nn.Softmax}),
        ("O3", {Dense, PatchConv2d, Gelu, nn.Softmax, LayerNorm}),
    ],
)
def test_what_a_level_casts(level, half):
    net = tiny("vit")
    cast_cells(net, OFFICIAL.levels[level], ms.float16)
    for kind in (Dense, PatchConv2d, Gelu, nn.Softmax, LayerNorm):
        assert types(net, kind) == {"half" if kind in half else "single"}, kind


def test_the_zoos_own_meanings():
    net = tiny("tnt")
    cast_cells(net, ZOO["tnt"].levels["O2"], ms.float16)
    assert [types(net, kind) for kind in (Dense, LayerNorm, Gelu)] == [{"half"}, {"single"}, {"single"}]
    net = tiny("cct")
    assert cast_cells(net, ZOO["cct"].levels["O1"], ms.float16) == 0
    net = tiny("pcpvt")
    cast_cells(net, ZOO["twins"].levels["O1"], ms.float16)
    assert [types(net, kind) for kind in (Gelu, nn.Softmax)] == [{"half"}, {"single"}]


@pytest.mark.parametrize("family", ARCHS)
def test_compat_chooses_the_table(family):
    assert amp_table(config(arch=ARCHS[family], compat="zoo")) is ZOO[family]
    assert amp_table(config(arch=ARCHS[family], compat="official")) is OFFICIAL
    assert amp_table(config(arch=ARCHS[family])) is OFFICIAL


def test_a_cpu_casts_nothing():
    net = tiny("vit")
    assert cast_network(net, config(arch=ARCHS["vit"], amp_level="O3")) == 0
    assert types(net, Dense) == {"single"}


@pytest.mark.slow
@pytest.mark.parametrize("level", ["O1", "O2", "O3"])
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_computes_about_the_same(family, level):
    """The forms of other targets, in float16, which a CPU has for these operators."""
    with kernel_form("native"):
        nets = [fill(tiny(family, **NO_DROPS), "unit") for _ in range(2)]
    cast_cells(nets[1], OFFICIAL.levels[level], ms.float16)
    images = Tensor(recipe.images(TINY_IMAGE_SIZE))
    # Operator by operator: the compiler of fused kernels knows no float16.
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        single, half = (net(images).asnumpy().astype(np.float32) for net in nets)
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)
    assert not np.array_equal(single, half)
    np.testing.assert_allclose(half, single, rtol=0, atol=0.03 * np.abs(single).max())


def test_a_dynamic_scale():
    scale = LossScale(config(amp_level="O2", initial_loss_scale=8, loss_scale_window=2))
    seen = []
    for finite in (False, True, True, True, False, True, True, False, False, False, False, False):
        scale.update(finite)
        seen.append(scale.value)
    assert seen == [4, 4, 8, 8, 4, 4, 8, 4, 2, 1, 1, 1]


def test_a_scale_goes_on_from_its_state():
    flags = dict(amp_level="O2", initial_loss_scale=8, loss_scale_window=3)
    one, other = LossScale(config(**flags)), LossScale(config(**flags))
    for finite in (True, False, True, True):
        one.update(finite)
    other = LossScale(config(**flags), one.state())
    for scale in (one, other):
        scale.update(True)
    assert one.state() == other.state() == {"value": 8.0, "quiet": 0}


def test_a_scale_that_did_not_move_is_not_gone_on_with():
    unused = LossScale(config(amp_level="O0")).state()
    assert LossScale(config(amp_level="O2"), unused).value == 2.0**16
    scale = LossScale(config(amp_level="O2", loss_scale_window=2), {"value": 8.0, "quiet": 5})
    scale.update(True)
    assert scale.value == 16.0


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (dict(amp_level="O0"), None),
        (dict(amp_level="O2", amp_dtype="bfloat16"), None),
        (dict(amp_level="O2"), 2.0**16),
        (dict(amp_level="O2", arch="cct_7_3x1_32", compat="zoo"), 2.0**12),
        (dict(amp_level="O2", arch="tnt_s_patch16_224", compat="zoo"), 2.0**24),
        (dict(amp_level="O2", initial_loss_scale=64), 64.0),
        (dict(amp_level="O2", is_dynamic_loss_scale=False), 1024.0),
        (dict(amp_level="O2", is_dynamic_loss_scale=False, loss_scale=16), 16.0),
    ],
)
def test_where_a_scale_begins(keys, value):
    scale = LossScale(config(**keys))
    assert (scale.value if scale.in_use else None) == value


def test_a_fixed_scale_stays():
    scale = LossScale(config(amp_level="O2", is_dynamic_loss_scale=False))
    for finite in (False, True, True):
        scale.update(finite)
    assert scale.value == 1024.0
