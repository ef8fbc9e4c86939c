"""Optimizers follow torch's and timm's step by step; decay, layers and freezing touch what they should.

``goldens/optimizers.npz`` holds three tensors after each of 12 steps with given gradients and rates (weight (4, 5)
and conv (3, 2, 2), bias (5,) without decay, in a row), computed in float64 by torch 2.15 and timm 1.0.31:
torch.optim's AdamW, SGD (momentum 0.8, with and without nesterov) and Muon (momentum 0.8, nesterov,
match_rms_adamw, iterating in float64, with AdamW for bias and conv), timm.optim's Lamb (max_grad_norm None) and
Lion; betas 0.9 and 0.99, eps 1e-8. Cases: ``plain`` without decay, ``decay`` 0.1, ``layers`` decay 0.1 and rates
times 0.5, 1 and 0.25.
"""

import numpy as np
import pytest
from mindspore import Parameter, Tensor, mutable, nn

from src.models.kernels import GlobalNorm
from src.schema import OptimConfig
from src.trainers.optimizers import OPTIMIZERS, build_optimizer
from src.trainers.parameter_groups import split_by_decay
from tests.networks import GOLDENS
from tests.oracles import read_arrays, requires_oracles

LEARNING_RATE = 1e-3
# Of weights up to 2: float32 against float64 over twelve steps. The cases differ by 1e-2 and more.
TOLERANCE = 1e-6
SETTINGS = {
    "adamw": {},
    "momentum": {"momentum": 0.8},
    "nesterov": {"optimizer": "sgd", "momentum": 0.8, "nesterov": True},
    "lamb": {},
    "lion": {},
    "muon": {"momentum": 0.8, "nesterov": True},
}


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

    def head_prefixes(self) -> tuple[str, ...]:
        return ("head.",)


class Three(nn.Cell):
    """The tensors of the golden, each a layer of its own."""

    def __init__(self, golden: dict[str, np.ndarray]):
        super().__init__()
        self.weight = Parameter(Tensor(golden["start.weight"]))
        self.bias = Parameter(Tensor(golden["start.bias"]))
        self.conv = Parameter(Tensor(golden["start.conv"]))

    def no_weight_decay(self) -> set[str]:
        return set()

    def head_prefixes(self) -> tuple[str, ...]:
        return ("head.",)

    def layer_groups(self) -> list[list[str]]:
        return [["conv"], ["weight"], ["bias"]]


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDENS / "optimizers.npz") as archive:
        return {key: archive[key] for key in archive.files}


def run(net: Affine, gradients: list[tuple[np.ndarray, np.ndarray]], **config: object) -> np.ndarray:
    """(step, weight and bias in a row) after each of the steps."""
    optimizer = build_optimizer(net, OptimConfig(base_lr=LEARNING_RATE, **config))
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


# ---------------------------------------------------------------------------------------------------------------------
# Against outside code


@pytest.mark.parametrize("case", ["plain", "decay", "layers"])
@pytest.mark.parametrize("name", SETTINGS)
def test_twelve_steps_equal_torch_and_timm(name, case, golden):
    decay = 0.0 if case == "plain" else 0.1
    config = {"optimizer": name, "beta": (0.9, 0.99), "weight_decay": decay, **SETTINGS[name]}
    if case == "layers":
        config["layer_decay"] = 0.5
    net = Three(golden)
    optimizer = build_optimizer(net, OptimConfig(**config))
    rows = []
    for step, rate in enumerate(golden["rates"]):
        gradients = tuple(Tensor(golden[f"gradient.{name}"][step]) for name in optimizer.names)
        rates = optimizer.rates(step, rate)
        assert rates.dtype == np.float32
        optimizer(mutable(gradients), Tensor(rates))
        rows.append(np.concatenate([weight.asnumpy().ravel() for weight in optimizer.weights]))
    np.testing.assert_allclose(np.stack(rows), golden[f"{name}.{case}"], rtol=0, atol=TOLERANCE)


def test_goldens_tell_the_cases_apart(golden):
    for name in SETTINGS:
        others = [golden[f"{name}.{case}"] for case in ("plain", "decay", "layers")]
        gaps = [np.abs(others[i] - others[j]).max() for i, j in ((0, 1), (1, 2))]
        assert min(gaps) > 50 * TOLERANCE, name
    assert np.abs(golden["momentum.plain"] - golden["nesterov.plain"]).max() > 1e-3


ORACLES = {
    "torch_AdamW": ({"optimizer": "adamw", "weight_decay": 0.05}, 1e-3, 4e-7),
    "ms_AdamWeightDecay": ({"optimizer": "adam_weight_decay", "weight_decay": 0.05}, 1e-3, 4e-7),
    "torch_SGD_m0.9_wd1e-4": ({"optimizer": "momentum", "weight_decay": 1e-4, "decay_rule": "all"}, 0.013, 4e-7),
    "ms_Momentum_wd1e-4": ({"optimizer": "sgd", "weight_decay": 1e-4, "decay_rule": "all"}, 0.013, 4e-7),
}


@requires_oracles
@pytest.mark.parametrize("name", ORACLES)
def test_steps_equal_the_stored_ones(name, monkeypatch):
    config, rate, tolerance = ORACLES[name]
    monkeypatch.setattr(f"{__name__}.LEARNING_RATE", rate)
    stored = read_arrays("optim/trajectories.npz")
    gradients = [(stored[f"gw{step}"], stored[f"gb{step}"]) for step in range(8)]
    ours = run(Affine(stored["w0"], stored["b0"]), gradients, **config)
    np.testing.assert_allclose(ours, stored[name], rtol=0, atol=tolerance)


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


def test_first_step_of_the_zoos_optimizer_is_not():
    net = Affine(np.zeros((4, 5), np.float32), np.zeros(5, np.float32))
    gradients = [(np.full((4, 5), 0.5, np.float32), np.full(5, -2.0, np.float32))]
    moved = run(net, gradients, optimizer="adam_weight_decay")[0]
    np.testing.assert_allclose(moved, 0.1 / 0.001**0.5 * LEARNING_RATE * np.repeat([-1.0, 1.0], [20, 5]), rtol=1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# What all have in common


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_and_undecayed_parameters_stay(name):
    net, gradients = random_problem(steps=3)
    start = net.bias.asnumpy().copy()
    run(net, [(weight, np.zeros_like(bias)) for weight, bias in gradients], optimizer=name, weight_decay=0.5)
    assert (net.token.asnumpy() == 1.0).all()
    assert (net.table.asnumpy() == 1.0).all()
    assert (net.bias.asnumpy() == start).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_begins_at_zero_and_names_every_trainable_parameter(name):
    net, _ = random_problem(steps=1)
    state = build_optimizer(net, OptimConfig(optimizer=name)).state()
    assert {key.partition(".")[2] for key in state} == {"weight", "bias", "token"}
    assert all(key == moment.name and not moment.requires_grad for key, moment in state.items())
    assert all((moment.asnumpy() == 0).all() for moment in state.values())


def test_state_of_adamw_keeps_its_names():
    net, _ = random_problem(steps=1)
    state = build_optimizer(net, OptimConfig()).state()
    assert set(state) == {f"moment{i}.{name}" for i in (1, 2) for name in ("weight", "bias", "token")}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_goes_on_from_its_state(name):
    net, gradients = random_problem(steps=4)
    start = net.weight.asnumpy().copy(), net.bias.asnumpy().copy()
    whole = run(net, gradients, optimizer=name)
    other = Affine(*start)
    optimizer = build_optimizer(other, OptimConfig(optimizer=name))
    for step, (weight, bias) in enumerate(gradients):
        if step == 2:
            kept = {key: moment.asnumpy().copy() for key, moment in optimizer.state().items()}
            optimizer = build_optimizer(other, OptimConfig(optimizer=name))
            for key, moment in optimizer.state().items():
                moment.set_data(Tensor(kept[key]))
        three = mutable((Tensor(weight), Tensor(bias), Tensor(np.zeros((1, 2), np.float32))))
        optimizer(three, Tensor(optimizer.rates(step, LEARNING_RATE)))
    np.testing.assert_array_equal(np.concatenate([other.weight.asnumpy().ravel(), other.bias.asnumpy()]), whole[-1])


def test_lamb_of_a_zero_weight_takes_adams_step():
    net = Affine(np.zeros((4, 5), np.float32), np.zeros(5, np.float32))
    gradients = [(np.full((4, 5), 0.5, np.float32), np.full(5, -2.0, np.float32))]
    moved = run(net, gradients, optimizer="lamb", weight_decay=0.1)[0]
    np.testing.assert_allclose(moved, [-LEARNING_RATE] * 20 + [LEARNING_RATE] * 5, rtol=1e-5)


def test_split_names_each_trainable_parameter_once():
    assert split_by_decay(random_problem(steps=1)[0]) == (["weight"], ["bias", "token"])
