"""Attention maps against timm's attention, against rollout in plain numpy, and against the network's own sums."""

import functools
import math

import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from src.device import operator_by_operator
from src.errors import ConfigError
from src.models.kernels import FORMS, kernel_form
from src.models.softmax_attention import SoftmaxAttention
from src.report.attention import attention_maps, maps_of, recorded_attention, rollout
from tests import recipe
from tests.networks import (
    CCT,
    DEIT,
    DEIT3,
    FAMILIES,
    GOLDENS,
    PCPVT,
    REFERENCES,
    SVT,
    TINY_IMAGE_SIZE,
    TNT,
    VIT,
    fill,
    tiny,
)

# Of probabilities and of shares, which are below 1; the goldens are float64.
TOLERANCE = 1e-6
OF_TIMM = (VIT, DEIT, DEIT3, TNT, PCPVT, SVT)
ROLLOUTS = {
    VIT.name: ("rollout",),
    DEIT.name: ("rollout_class", "rollout_distillation"),
    DEIT3.name: ("rollout",),
    TNT.name: ("rollout",),
}


@functools.cache
def net_of(name: str) -> nn.Cell:
    return fill(REFERENCES[name].build(), "unit")


@functools.cache
def recorded(name: str) -> dict[str, np.ndarray]:
    return recorded_attention(net_of(name), recipe.images(REFERENCES[name].image_size))


def maps(name: str) -> dict[str, np.ndarray]:
    return maps_of(net_of(name), recorded(name), inner=name == TNT.name)


@functools.cache
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDENS / "attention.npz") as archive:
        return {key: archive[key] for key in archive.files}


def images() -> np.ndarray:
    return recipe.images(TINY_IMAGE_SIZE)


@pytest.mark.parametrize("reference", OF_TIMM, ids=lambda reference: reference.name)
def test_what_every_key_gets_is_timms(reference):
    prefix = f"{reference.name}/blocks."
    expected = {key.removeprefix(f"{reference.name}/"): value for key, value in golden().items() if prefix in key}
    found = recorded(reference.name)
    assert found.keys() == expected.keys()
    for name, attention in found.items():
        # Images side by side, each with the keys of all of its parts.
        received = attention.mean(1).reshape(2, -1)
        np.testing.assert_allclose(received, expected[name], rtol=0, atol=TOLERANCE, err_msg=name)
        assert expected[name].std() > 100 * TOLERANCE, f"{name} proves nothing"


@pytest.mark.parametrize("name", ROLLOUTS)
def test_rollout_is_that_of_timms_attention(name):
    expected = golden()[f"{name}/rollout"]
    found = np.stack([maps(name)[key].reshape(2, -1) for key in ROLLOUTS[name]], 1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    assert expected.std() > 100 * TOLERANCE


def test_rollout_is_the_product_of_all_layers():
    random = np.random.default_rng(0)
    layers = random.random((3, 2, 5, 5))
    layers /= layers.sum(-1, keepdims=True)
    # The paper's form: A + I, rows to 1, multiplied from the first layer to the last.
    joint = np.eye(5)
    for attention in layers:
        mixed = attention + np.eye(5)
        joint = mixed / mixed.sum(-1, keepdims=True) @ joint
    start_BN = random.random((2, 5))
    expected = (start_BN[:, None] @ joint)[:, 0]
    np.testing.assert_allclose(rollout(list(layers), start_BN), expected, rtol=1e-12)


@pytest.mark.parametrize("name", REFERENCES)
def test_every_row_of_every_matrix_sums_to_1(name):
    found = recorded(name)
    assert found
    for key, attention in found.items():
        np.testing.assert_allclose(attention.sum(-1), 1.0, rtol=0, atol=TOLERANCE, err_msg=key)
        assert attention.min() >= 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_probabilities_times_values_are_the_networks_own_sums(family, form):
    with kernel_form(form):
        net = tiny(family)
    compared = []

    def compare(cell, inputs, output):
        q, k, v = inputs
        out = cell.tokens(ops.matmul(cell.probabilities(q, k), cell.heads(v)), q.shape)
        compared.append(float(ops.abs(out - output).max()) / float(ops.abs(output).max()))

    cells = [cell for _, cell in net.cells_and_names() if isinstance(cell, SoftmaxAttention)]
    handles = [cell.register_forward_hook(compare) for cell in cells]
    recorded_attention(net, images())
    for handle in handles:
        handle.remove()
    assert len(compared) == len(cells) >= 1
    assert max(compared) < 1e-5


@pytest.mark.parametrize("family", ["cct", "svt"])
def test_the_network_stays_as_it_was(family):
    net = tiny(family).set_train(True)
    before = net.set_train(False)(Tensor(images())).asnumpy()
    net.set_train(True)
    attention_maps(net, images())
    assert net.training
    np.testing.assert_array_equal(net.set_train(False)(Tensor(images())).asnumpy(), before)
    assert not any(cell._forward_hook for _, cell in net.cells_and_names())


NAMES = {
    VIT.name: {"rollout": 14},
    DEIT.name: {"rollout_class": 14, "rollout_distillation": 14},
    DEIT3.name: {"rollout": 14},
    CCT.name: {"sequence_pool": 8, "rollout": 8},
    TNT.name: {"rollout": 14, "inner": 56},
    PCPVT.name: {"stage4_global": 7, "stage3_global": 14, "stage2_global": 28, "stage1_global": 56},
    SVT.name: {
        "stage4_global": 7,
        "stage3_global": 14,
        "stage1_global": 56,
        "stage4_local": 7,
        "stage3_local": 14,
        "stage2_local": 28,
        "stage1_local": 56,
    },
}


@pytest.mark.parametrize("name", REFERENCES)
def test_maps_are_shares_on_the_grid_of_patches(name):
    assert list(maps(name)) == list(NAMES[name])
    for key, map_BYX in maps(name).items():
        assert map_BYX.shape == (2, NAMES[name][key], NAMES[name][key])
        assert map_BYX.min() >= 0
        sum_B = map_BYX.sum((1, 2))
        # Without a class token all goes to patches; with one, each of the two layers leaves half of its own to itself.
        expected = (0.0, 1.0 - 0.5**2) if key.startswith("rollout") and name != CCT.name else (1 - 1e-6, 1 + 1e-6)
        assert (expected[0] < sum_B).all()
        assert (sum_B < expected[1]).all()


def test_sequence_pool_is_the_weight_of_each_token_in_the_answer():
    net = net_of(CCT.name)
    classifier = net.classifier
    with operator_by_operator():
        x_BND = net.features(Tensor(recipe.images(32)))["classifier.norm"].asnumpy().astype(np.float64)
    weight, bias = (parameter.asnumpy() for parameter in classifier.attention_pool.get_parameters())
    score_BN = x_BND @ weight[0] + bias
    expected = np.exp(score_BN) / np.exp(score_BN).sum(1, keepdims=True)
    np.testing.assert_allclose(maps(CCT.name)["sequence_pool"].reshape(2, -1), expected, rtol=0, atol=TOLERANCE)


def test_a_subsampled_key_stands_for_its_patches():
    # Stage 3 subsamples 14 x 14 tokens by 2.
    received = recorded(PCPVT.name)["blocks.2.0.attn"].mean(1).reshape(2, 7, 7)
    map_BYX = maps(PCPVT.name)["stage3_global"]
    for row, column in ((0, 0), (5, 12), (13, 13)):
        np.testing.assert_allclose(map_BYX[:, row, column], received[:, row // 2, column // 2] / 4, rtol=1e-6)


def test_windows_lie_where_they_were_cut():
    # Stage 3: 14 x 14 tokens in windows of 7 x 7.
    attention = recorded(SVT.name)["blocks.2.0.attn"].reshape(2, 4, 49, 49)
    map_BYX = maps(SVT.name)["stage3_local"]
    for row, column in ((0, 0), (3, 9), (12, 6)):
        window, key = row // 7 * 2 + column // 7, row % 7 * 7 + column % 7
        np.testing.assert_allclose(map_BYX[:, row, column], attention[:, window, :, key].sum(1) / 196, rtol=1e-5)


def test_tokens_that_fill_windows_up_are_left_out():
    # 4 x 4 tokens in windows of 3 x 3: 6 x 6 tokens, of which the last two of each axis are none of the image.
    attention = recorded_attention(net := tiny("svt"), images())["blocks.0.0.attn"].reshape(2, 2, 2, 3, 3, 3, 3)
    map_BYX = attention_maps(net, images())["stage1_local"]
    # The last patch is alone in its window, beside eight tokens that are none.
    np.testing.assert_allclose(map_BYX[:, 3, 3], attention[:, 1, 1, 0, 0, 0, 0] / 16, rtol=1e-5)
    assert (map_BYX.sum((1, 2)) < 0.9).all()


def test_inner_pixels_lie_in_their_patches():
    attention = np.mean([recorded(TNT.name)[f"blocks.{index}.attn_in"] for index in range(2)], 0)
    received = attention.mean(1).reshape(2, 14, 14, 4, 4)
    map_BYX = maps(TNT.name)["inner"]
    for row, column in ((0, 5), (17, 2), (55, 54)):
        expected = received[:, row // 4, column // 4, row % 4, column % 4] / 196
        np.testing.assert_allclose(map_BYX[:, row, column], expected, rtol=1e-5)


def test_other_families_have_no_inner_stream():
    with pytest.raises(ConfigError, match=r"attention_inner: TNT alone has an inner stream\. Received: Vision"):
        attention_maps(tiny("vit"), images(), inner=True)


def test_the_class_tokens_own_share_is_halved_by_every_layer():
    # With attention to nothing but itself a token keeps all; with none to itself, 0.5 to the power of the layers.
    N = 4
    elsewhere = np.roll(np.eye(N), 1, 1)[None]
    start = np.eye(N)[:1]
    assert math.isclose(rollout([elsewhere] * 3, start)[0, 0], 0.5**3)
    assert math.isclose(rollout([np.eye(N)[None]] * 3, start)[0, 0], 1.0)
