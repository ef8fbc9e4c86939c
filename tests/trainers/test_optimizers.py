"""AdamW follows torch.optim.AdamW step by step; weight decay touches the right half of the parameters."""

import numpy as np
import pytest
from mindspore import Parameter, Tensor, mutable, nn

from src.models.kernels import GlobalNorm
from src.schema import OptimConfig
from src.trainers.optimizers import AdamW, split_by_decay
from tests.networks import tiny
from tests.oracles import read_arrays, requires_oracles

LEARNING_RATE = 1e-3


class Affine(nn.Cell):
    """A matrix that is decayed, and what is not: a vector, a named token, a frozen matrix."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray):
        super().__init__()
        self.weight = Parameter(Tensor(weight))
        self.bias = Parameter(Tensor(bias))
        self.token = Parameter(Tensor(np.ones((1, 2), np.float32)))
        self.table = Parameter(Tensor(np.ones((2, 2), np.float32)), requires_grad=False)

    def no_weight_decay(self) -> set[str]:
        return {"token"}


def run(net: Affine, gradients: list[tuple[np.ndarray, np.ndarray]], **config: object) -> np.ndarray:
    """(step, weight and bias in a row) after each of the steps."""
    optimizer = AdamW(net, OptimConfig(base_lr=LEARNING_RATE, **config))
    rows = []
    for step, (weight, bias) in enumerate(gradients):
        # Mutable: otherwise every tuple of gradients is compiled anew, as constants.
        three = mutable((Tensor(weight), Tensor(bias), Tensor(np.zeros((1, 2), np.float32))))
        optimizer(three, Tensor(optimizer.rates(step, LEARNING_RATE)))
        rows.append(np.concatenate([net.weight.asnumpy().ravel(), net.bias.asnumpy()]))
    return np.stack(rows)


def adamw_in_float64(net: Affine, gradients: list, weight_decay: float) -> np.ndarray:
    """The published algorithm, written down plainly."""
    values = [net.weight.asnumpy().astype(np.float64), net.bias.asnumpy().astype(np.float64)]
    first, second = [0.0, 0.0], [0.0, 0.0]
    rows = []
    for step, pair in enumerate(gradients, start=1):
        for i, gradient in enumerate(pair):
            values[i] *= 1.0 - LEARNING_RATE * (weight_decay if i == 0 else 0.0)
            first[i] = 0.9 * first[i] + 0.1 * gradient
            second[i] = 0.999 * second[i] + 0.001 * np.square(gradient, dtype=np.float64)
            root = np.sqrt(second[i] / (1.0 - 0.999**step)) + 1e-8
            values[i] = values[i] - LEARNING_RATE * first[i] / (1.0 - 0.9**step) / root
        rows.append(np.concatenate([value.ravel() for value in values]))
    return np.stack(rows)


def random_problem(steps: int) -> tuple[Affine, list]:
    random = np.random.default_rng(5)
    net = Affine(random.normal(size=(4, 5)).astype(np.float32), random.normal(size=5).astype(np.float32))
    # From vanishing to huge gradients: epsilon and the bias corrections show at both ends.
    scales = 10.0 ** random.uniform(-7, 2, steps)
    pairs = [(random.normal(size=(4, 5)) * scale, random.normal(size=5) * scale) for scale in scales]
    return net, [(weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in pairs]


@requires_oracles
def test_steps_equal_torch():
    stored = read_arrays("optim/trajectories.npz")
    gradients = [(stored[f"gw{step}"], stored[f"gb{step}"]) for step in range(8)]
    ours = run(Affine(stored["w0"], stored["b0"]), gradients, weight_decay=0.05)
    np.testing.assert_allclose(ours, stored["torch_AdamW"], rtol=0, atol=4e-7)


@requires_oracles
def test_global_norm_equals_torch():
    stored = read_arrays("optim/trajectories.npz")
    norms = [float(GlobalNorm()((Tensor(stored[f"gw{i}"]), Tensor(stored[f"gb{i}"])))) for i in range(8)]
    np.testing.assert_allclose(norms, stored["global_norms"], rtol=1e-6)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_steps_equal_the_published_algorithm(weight_decay):
    net, gradients = random_problem(steps=30)
    wanted = adamw_in_float64(net, gradients, weight_decay)
    np.testing.assert_allclose(run(net, gradients, weight_decay=weight_decay), wanted, rtol=0, atol=2e-6)


def test_first_step_is_bias_corrected():
    # Without the corrections MindSpore's own AdamWeightDecay moves 3.16 times as far.
    net = Affine(np.zeros((4, 5), np.float32), np.zeros(5, np.float32))
    moved = run(net, [(np.full((4, 5), 0.5, np.float32), np.full(5, -2.0, np.float32))])[0]
    np.testing.assert_allclose(moved, [-LEARNING_RATE] * 20 + [LEARNING_RATE] * 5, rtol=1e-5)


def test_frozen_and_undecayed_parameters_stay():
    net, gradients = random_problem(steps=3)
    run(net, gradients, weight_decay=0.5)
    assert (net.token.asnumpy() == 1.0).all()
    assert (net.table.asnumpy() == 1.0).all()


def test_state_has_two_moments_a_trainable_parameter():
    net, _ = random_problem(steps=1)
    state = AdamW(net, OptimConfig()).state()
    assert set(state) == {f"moment{i}.{name}" for i in (1, 2) for name in ("weight", "bias", "token")}
    assert all((moment.asnumpy() == 0).all() for moment in state.values())


def test_split_names_each_trainable_parameter_once():
    assert split_by_decay(random_problem(steps=1)[0]) == (["weight"], ["bias", "token"])


TOKENS = {"vit": {"cls_token", "pos_embed"}, "cct": {"classifier.positional_emb"}}


@pytest.mark.parametrize(("family", "tokens"), TOKENS.items())
def test_matrices_alone_are_decayed(family, tokens):
    net = tiny(family)
    decayed, kept = split_by_decay(net)
    shapes = {name: parameter.shape for name, parameter in net.parameters_and_names()}
    assert all(len(shapes[name]) >= 2 for name in decayed)
    assert {name for name in kept if len(shapes[name]) >= 2} == tokens
