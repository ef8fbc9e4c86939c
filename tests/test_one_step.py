"""Training steps equal the authors' code under torch: losses, gradient norms, weights; and repeat bit for bit."""

import numpy as np
import pytest
from mindspore import Tensor, nn

from src.data.random_numbers import drop_keys
from src.schema import OptimConfig
from src.trainers.losses import SoftTargetCrossEntropy
from src.trainers.optimizers import AdamW, split_by_decay
from src.trainers.train_step import TrainStep
from src.weights.names import official_names
from tests import recipe
from tests.networks import CCT, NO_DROPS, REFERENCES, TINY_IMAGE_SIZE, fill, loss_and_gradients, tiny, values

LEARNING_RATE = 1e-3
NO_KEYS = np.zeros(2, np.int32)


class Replay:
    """A network, its optimizer and the recipe's batch."""

    def __init__(self, net: nn.Cell, image_size: int, clip_norm: float | None = 5.0, weight_decay: float = 0.05):
        self.optimizer = AdamW(net, OptimConfig(base_lr=LEARNING_RATE, weight_decay=weight_decay))
        self.step = TrainStep(net, SoftTargetCrossEntropy(), self.optimizer, clip_norm)
        self.batch = Tensor(recipe.images(image_size)), Tensor(recipe.soft_targets(10))

    def __call__(self, index: int, key_B: np.ndarray = NO_KEYS) -> tuple[float, float]:
        """Loss and gradient norm of one step; the weights move."""
        rates = Tensor(self.optimizer.rates(index, LEARNING_RATE))
        loss, norm = self.step(*self.batch, Tensor(key_B), rates)
        return float(loss), float(norm)


@pytest.mark.parametrize("name", REFERENCES)
def test_five_steps_equal_the_authors_code_under_torch(name, monkeypatch):
    reference = REFERENCES[name]
    golden = reference.golden()["train5"]
    net = fill(reference.build(**NO_DROPS), "unit")
    if reference is CCT:
        # The stored run decays the positions, which we do not.
        monkeypatch.setattr(net, "no_weight_decay", set)
    replay = Replay(net, reference.image_size)
    results = [replay(index) for index in range(5)]
    after = {theirs: net.parameters_dict()[ours].asnumpy() for theirs, ours in official_names(net).items()}
    losses = [loss for loss, _ in results] + [replay(5)[0]]
    np.testing.assert_allclose(losses, golden["loss"], rtol=0, atol=2e-5)
    np.testing.assert_allclose([norm for _, norm in results], golden["global_grad_norm"], rtol=1e-4)
    assert after.keys() == golden["param_norm_after"].keys()
    for theirs, norm in golden["param_norm_after"].items():
        if not theirs.endswith("attention_pool.bias"):
            # Biases whose keys get no gradient move by rounding, hence more than the 1e-7 of float32.
            assert np.linalg.norm(after[theirs].astype(np.float64)) == pytest.approx(norm, rel=1e-4), theirs


@pytest.mark.parametrize("name", REFERENCES)
def test_decay_groups_equal_timm(name):
    reference = REFERENCES[name]
    net = reference.build()
    theirs = {ours: name for name, ours in official_names(net).items()}
    kept = {theirs[ours] for ours in split_by_decay(net)[1]}
    ours_alone = {"classifier.positional_emb"} if reference is CCT else set()
    assert kept - ours_alone == set(reference.golden()["no_weight_decay"])
    assert ours_alone <= kept


@pytest.mark.parametrize("family", ["vit", "cct"])
def test_every_trainable_parameter_gets_a_gradient_and_one_decay_group(family):
    net = fill(tiny(family, **NO_DROPS), "unit")
    trainable = [name for name, parameter in net.parameters_and_names() if parameter.requires_grad]
    decayed, kept = split_by_decay(net)
    assert sorted(decayed + kept) == sorted(trainable)
    assert net.no_weight_decay() <= set(kept)
    gradients = loss_and_gradients(net, TINY_IMAGE_SIZE)[1]
    assert len(gradients) == len(trainable)
    still = [name for name, gradient in gradients.items() if np.abs(gradient).max() < 1e-7]
    assert [name for name in still if not name.endswith("attention_pool.bias")] == []


def test_frozen_positions_stay_and_the_rest_moves():
    net = fill(tiny("cct", positional_embedding="sine", **NO_DROPS), "unit")
    before = values(net)
    Replay(net, TINY_IMAGE_SIZE)(0)
    moved = {name for name, array in values(net).items() if not np.array_equal(array, before[name])}
    assert before.keys() - moved == {"classifier.positional_emb"}


def test_weight_decay_touches_the_decayed_group_alone():
    runs = {}
    for weight_decay in (0.0, 0.5):
        net = fill(tiny("vit"), "unit")
        Replay(net, TINY_IMAGE_SIZE, weight_decay=weight_decay)(0)
        runs[weight_decay] = values(net)
    differing = {name for name, array in runs[0.0].items() if not np.array_equal(array, runs[0.5][name])}
    assert differing == set(split_by_decay(net)[0])


def test_clipping_scales_what_the_optimizer_sees_and_not_the_reported_norm():
    runs = {}
    for clip_norm in (None, 1e-3):
        net = fill(tiny("vit"), "unit")
        replay = Replay(net, TINY_IMAGE_SIZE, clip_norm)
        norm = replay(0)[1]
        runs[clip_norm] = norm, [moment.asnumpy() for moment in replay.optimizer.moment1]
    assert runs[None][0] == pytest.approx(runs[1e-3][0], rel=1e-6)
    factor = 1e-3 / runs[None][0]
    for free, clipped in zip(runs[None][1], runs[1e-3][1], strict=True):
        np.testing.assert_allclose(clipped, free * factor, rtol=1e-4, atol=1e-10)


# Losses of two steps with every kind of dropout on, from this project's own code: a change means that the masks of a run
# are others than yesterday's, and that no run resumes bit for bit across the change.
DROP_GOLDENS = {"vit": [0.0, 0.0], "cct": [0.0, 0.0]}


@pytest.mark.parametrize("family", DROP_GOLDENS)
def test_steps_with_dropout_repeat(family):
    rates = {"drop_rate": 0.2, "attn_drop_rate": 0.2, "drop_path_rate": 0.2}
    runs = []
    for _ in range(2):
        replay = Replay(fill(tiny(family, **rates), "unit"), TINY_IMAGE_SIZE)
        runs.append([replay(index, drop_keys(3, index, 2))[0] for index in range(2)])
    assert runs[0] == runs[1]
    np.testing.assert_allclose(runs[0], DROP_GOLDENS[family], rtol=0, atol=1e-5)


def test_other_keys_drop_other_things():
    net = fill(tiny("vit", drop_path_rate=0.9, depth=4), "unit")
    images = Tensor(np.repeat(recipe.images(TINY_IMAGE_SIZE)[:1], 8, 0))
    first = net(images, Tensor(drop_keys(0, 0, 8))).asnumpy()
    second = net(images, Tensor(drop_keys(0, 1, 8))).asnumpy()
    # Eight copies of one image, each with a key of its own.
    assert len(np.unique(first.round(5), axis=0)) > 1
    assert not np.allclose(first, second)
    assert np.ptp(net(images).asnumpy(), axis=0).max() < 1e-5
