"""Random layers as functions of their keys, and the layers that families share against numpy."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from src.models.layers import Attention, Dropout, DropPath, HashIntegers, Mlp, check_rate, group_by_prefix
from tests.models.forms import build
from tests.models.test_kernels import normal
from tests.models.test_softmax_attention import attention

NUM_KEYS = 20000
KEYS_B = np.random.default_rng(11).integers(0, 2**31, NUM_KEYS, dtype=np.int32)


def same(net: nn.Cell, *inputs: np.ndarray) -> np.ndarray:
    return net(*map(Tensor, inputs)).asnumpy()


def test_hash_is_the_one_that_numpy_computes():
    # Checkpoints are resumed on other machines: the masks must be the same there.
    salt = np.uint64(5 * 0x94D049BB133111EB % 2**64)
    mixed_B = (KEYS_B.astype(np.uint64) + salt) * np.uint64(0x9E3779B97F4A7C15)
    mixed_B = (mixed_B ^ (mixed_B >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed_B = mixed_B ^ (mixed_B >> np.uint64(29))
    np.testing.assert_array_equal(same(HashIntegers(5), KEYS_B.astype(np.int64)), mixed_B.astype(np.int64))


def test_hash_uses_all_64_bits_for_keys_in_a_row():
    value_B = same(HashIntegers(5), np.arange(NUM_KEYS)).astype(np.uint64)
    assert len(np.unique(value_B)) == NUM_KEYS
    bit_BC = (value_B[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    # Five deviations for the worst of 64 bits.
    assert np.abs(bit_BC.mean(0) - 0.5).max() < 5 * 0.5 / NUM_KEYS**0.5


def test_salts_give_hashes_that_are_no_shifts_of_each_other():
    rows = [same(HashIntegers(salt), np.arange(5000)) for salt in (0, 1, 16, 17)]
    assert len(np.unique(rows)) == 4 * 5000


# ---------------------------------------------------------------------------------------------------------------------
# Stochastic depth


def drop_path(salt: int = 3, rate: float = 0.3) -> nn.Cell:
    return DropPath(rate, salt).set_train(True)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.3, 0.5, 0.9])
def test_drop_path_drops_its_share(rate):
    kept_B = same(drop_path(rate=rate), np.ones((NUM_KEYS, 1), np.float32), KEYS_B) > 0
    # Four deviations of a binomial share.
    assert abs(kept_B.mean() - (1 - rate)) < 4 * (rate * (1 - rate) / NUM_KEYS) ** 0.5


def test_drop_path_drops_or_scales_whole_images():
    branch_BND = np.random.default_rng(2).random((NUM_KEYS, 2, 3), np.float32) + np.float32(1)
    factor_BND = same(drop_path(), branch_BND, KEYS_B) / branch_BND
    assert np.ptp(factor_BND.reshape(NUM_KEYS, -1), axis=1).max() < 1e-6
    kept_B = factor_BND[:, 0, 0] > 0
    assert 0 < kept_B.sum() < NUM_KEYS
    np.testing.assert_allclose(factor_BND[kept_B], 1 / 0.7, rtol=1e-6)


def test_parts_of_an_image_are_dropped_by_themselves():
    ones_BD = np.ones((4 * 500, 3), np.float32)
    kept = same(drop_path(), ones_BD, KEYS_B[:4]).reshape(4, 500, 3)[:, :, 0] > 0
    assert np.abs(kept.mean(1) - 0.7).max() < 4 * (0.7 * 0.3 / 500) ** 0.5
    assert len({row.tobytes() for row in kept}) == 4
    # Each image's parts follow from its own key.
    np.testing.assert_array_equal(same(drop_path(), ones_BD[:500], KEYS_B[2:3])[:, 0] > 0, kept[2])


def test_drop_path_without_a_key_or_a_rate_is_nothing():
    branch_BND = normal(4, 2, 3)
    np.testing.assert_array_equal(drop_path()(Tensor(branch_BND)).asnumpy(), branch_BND)
    np.testing.assert_array_equal(same(drop_path(rate=0.0), branch_BND, KEYS_B[:4]), branch_BND)


def test_what_an_image_meets_depends_on_its_key_alone():
    ones_BD = np.ones((64, 3), np.float32)
    net = drop_path()
    whole = same(net, ones_BD, KEYS_B[:64])
    order = np.random.default_rng(0).permutation(64)
    np.testing.assert_array_equal(same(net, ones_BD, KEYS_B[:64][order]), whole[order])
    # Two ranks with half of the batch each.
    halves = [same(net, ones_BD[:32], KEYS_B[start : start + 32]) for start in (0, 32)]
    np.testing.assert_array_equal(np.concatenate(halves), whole)


def test_salts_draw_independently():
    ones_B1 = np.ones((NUM_KEYS, 1), np.float32)
    kept = [same(drop_path(salt, 0.5), ones_B1, KEYS_B)[:, 0] > 0 for salt in (4, 10, 26)]
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert abs(np.corrcoef(kept[first], kept[second])[0, 1]) < 4 / NUM_KEYS**0.5


# ---------------------------------------------------------------------------------------------------------------------
# Dropout


@pytest.fixture(scope="module")
def dropout() -> nn.Cell:
    return Dropout(0.2, 6).set_train(True)


SHAPE = (500, 4, 10)


def test_dropout_keeps_its_share_of_every_place_and_scales(dropout):
    mask_BND = same(dropout, np.ones(SHAPE, np.float32), KEYS_B[: SHAPE[0]])
    np.testing.assert_allclose(np.unique(mask_BND), [0.0, 1.25], rtol=1e-6)
    kept_BND = mask_BND > 0
    assert abs(kept_BND.mean() - 0.8) < 4 * (0.8 * 0.2 / kept_BND.size) ** 0.5
    # Five deviations for the worst of 40 places.
    assert np.abs(kept_BND.mean(0) - 0.8).max() < 5 * (0.8 * 0.2 / SHAPE[0]) ** 0.5


def test_dropout_draws_rows_columns_and_images_independently(dropout):
    kept_BP = (same(dropout, np.ones(SHAPE, np.float32), KEYS_B[: SHAPE[0]]) > 0).reshape(SHAPE[0], -1)
    correlation_PP = np.corrcoef(kept_BP.T) - np.eye(kept_BP.shape[1])
    # Five and a half deviations for the worst of 780 pairs.
    assert np.abs(correlation_PP).max() < 5.5 / SHAPE[0] ** 0.5


def test_dropout_is_a_function_of_the_key(dropout):
    x = normal(*SHAPE)
    keys_B = KEYS_B[: SHAPE[0]]
    first = same(dropout, x, keys_B)
    np.testing.assert_array_equal(same(dropout, x, keys_B), first)
    np.testing.assert_array_equal(same(dropout, x[::-1].copy(), keys_B[::-1].copy()), first[::-1])
    assert (same(dropout, x, keys_B + 1) != first).any()
    np.testing.assert_array_equal(dropout(Tensor(x)).asnumpy(), x)


@pytest.mark.parametrize("layer", [Dropout, DropPath])
@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_impossible_rates_are_refused(layer, rate):
    with pytest.raises(ValueError, match=r"must be at least 0 and below 1. Received: "):
        layer(rate, 0)


def test_the_largest_possible_rate_still_keeps_some():
    check_rate("drop_rate", 0.999)
    kept_B = same(drop_path(rate=0.999), np.ones((NUM_KEYS, 1), np.float32), KEYS_B) > 0
    assert 0 < kept_B.sum() < 60


# ---------------------------------------------------------------------------------------------------------------------
# Attention and MLP


@pytest.mark.parametrize("form", ["native", "composed"])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_attention_layer(form, qkv_bias):
    B, N, D, H = 2, 5, 12, 3
    net = build(lambda: Attention(D, H, qkv_bias, 0.0, 0.0, 0), form).set_train(False)
    values = {name: p.asnumpy().astype(np.float64) for name, p in net.parameters_and_names()}
    assert ("qkv.bias" in values) == qkv_bias
    x_BND = 0.5 * normal(B, N, D)
    qkv = x_BND @ values["qkv.weight"].T + values.get("qkv.bias", 0.0)
    expected = attention(*np.split(qkv, 3, -1)) @ values["proj.weight"].T + values["proj.bias"]
    np.testing.assert_allclose(same(net, x_BND), expected, rtol=0, atol=2e-5)


def test_attention_drops_probabilities_and_outputs_by_key():
    x_BND, keys_B = normal(3, 5, 12), KEYS_B[:3]
    net = build(lambda: Attention(12, 3, True, 0.3, 0.0, 16), "composed").set_train(True)
    dropped = same(net, x_BND, keys_B)
    np.testing.assert_array_equal(same(net, x_BND, keys_B), dropped)
    assert np.abs(dropped - net(Tensor(x_BND)).asnumpy()).max() > 0.1


def test_heads_must_share_the_width():
    with pytest.raises(ValueError, match="Received: dim 10, num_heads 3"):
        Attention(10, 3, True, 0.0, 0.0, 0)


def test_mlp():
    net = build(lambda: Mlp(6, 8, False, 0.0, 0), "composed").set_train(False)
    values = {name: p.asnumpy().astype(np.float64) for name, p in net.parameters_and_names()}
    x_BND = normal(2, 3, 6)
    hidden = x_BND @ values["fc1.weight"].T + values["fc1.bias"]
    gelu = nn.GELU(approximate=False)(Tensor(hidden, ms.float32)).asnumpy()
    expected = gelu @ values["fc2.weight"].T + values["fc2.bias"]
    np.testing.assert_allclose(same(net, x_BND), expected, rtol=0, atol=2e-5)


def test_groups_by_prefix():
    net = Mlp(2, 3, False, 0.0, 0)
    assert group_by_prefix(net, ["fc1.", ("fc2.w", "fc2.b"), "none."]) == [
        ["fc1.weight", "fc1.bias"],
        ["fc2.weight", "fc2.bias"],
        [],
    ]
