"""One update: of one batch or several, with a loss scale, a moving average, a teacher; against outside code."""

import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from src.data.random_numbers import drop_keys
from src.schema import OptimConfig
from src.trainers.ema import MovingAverage, decay_at
from src.trainers.losses import DistillationLoss, SoftTargetCrossEntropy
from src.trainers.optimizers import OPTIMIZERS, build_optimizer
from src.trainers.teacher import Teacher
from src.trainers.train_step import Control, Updates
from src.weights.authors_names import official_names
from tests import recipe
from tests.networks import DEIT, NO_DROPS, TINY_IMAGE_SIZE, fill, tiny, values
from tests.oracles import read_json, requires_oracles

RATE = 1e-2
# Those whose updates have a form of their own.
OTHERS = sorted(OPTIMIZERS.keys() - {"adamw", "sgd", "adam_weight_decay"})


class Run:
    """A tiny network with drops, its optimizer, and batches of eight noise images."""

    def __init__(self, accumulation: int = 1, clip_norm: float | None = 1.0, optimizer: str = "adamw", **options):
        self.net = fill(tiny("vit", drop_rate=0.1, drop_path_rate=0.1), "unit")
        self.optimizer = build_optimizer(self.net, OptimConfig(optimizer=optimizer, weight_decay=0.05))
        self.average = None
        if options.pop("averages", False):
            self.average = options["average"] = MovingAverage(self.optimizer.names, self.optimizer.weights)
        loss = SoftTargetCrossEntropy()
        self.updates = Updates(self.net, loss, self.optimizer, accumulation, clip_norm=clip_norm, **options)
        self.applied = 0

    def __call__(self, update: int, *, poison: float = 0.0, **control):
        random = np.random.default_rng(update)
        image_BCYX = random.standard_normal((8, 3, TINY_IMAGE_SIZE, TINY_IMAGE_SIZE), np.float32)
        image_BCYX[3, 0, 0, 0] += poison
        target_BK = random.dirichlet(np.ones(10), 8).astype(np.float32)
        batch = image_BCYX, target_BK, drop_keys(0, update, 8)
        parts = zip(*(np.split(array, self.updates.accumulation) for array in batch), strict=True)
        outcome = self.updates(parts, self.optimizer.rates(self.applied, RATE), Control(**control))
        self.applied += bool(np.isfinite(outcome.grad_norm))
        return outcome

    def state(self) -> dict[str, np.ndarray]:
        averages = self.average.state() if self.average else {}
        others = {name: parameter.asnumpy().copy() for name, parameter in (self.optimizer.state() | averages).items()}
        return values(self.net) | others


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in found if not np.array_equal(found[name], expected[name])] == []


@pytest.mark.parametrize(
    ("optimizer", "tolerance"), [("sgd", 1e-6), pytest.param("adamw", 1e-5, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("accumulation", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_accumulated_batches_make_the_update_of_one_larger_batch(accumulation, optimizer, tolerance):
    """AdamW divides by the gradient's size, and so makes more of a rounding where the gradient is small."""
    whole, parts = Run(optimizer=optimizer), Run(accumulation, optimizer=optimizer)
    for update in range(3):
        one, several = whole(update), parts(update)
        assert several.loss == pytest.approx(one.loss, abs=1e-6)
        assert several.grad_norm == pytest.approx(one.grad_norm, rel=1e-5)
        for name, array in values(whole.net).items():
            # The keys' bias has no gradient but rounding.
            if not name.endswith("qkv.bias"):
                np.testing.assert_allclose(values(parts.net)[name], array, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.slow
def test_a_power_of_two_as_loss_scale_changes_no_bit():
    plain, scaled, parts = Run(), Run(scales=True), Run(2, scales=True)
    for update in range(3):
        outcome = plain(update)
        assert scaled(update, scale=4096.0) == outcome
        assert parts(update, scale=2.0**20).loss == pytest.approx(outcome.loss, abs=1e-6)
    assert_equal(scaled.state(), plain.state())


@pytest.mark.parametrize("optimizer", ["adamw", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_an_overflow_leaves_everything_as_it_was(optimizer):
    run = Run(scales=True, averages=True, optimizer=optimizer)
    run(0, scale=8.0, ema_decay=0.5)
    before = run.state()
    for poison, scale in ((0.0, 3e38), (np.nan, 8.0), (np.inf, 8.0)):
        assert not np.isfinite(run(1, poison=poison, scale=scale, ema_decay=0.5).grad_norm)
        assert_equal(run.state(), before)
    assert np.isfinite(run(2, scale=8.0, ema_decay=0.5).grad_norm)
    assert not set(run.state()) - {name for name, array in run.state().items() if np.isfinite(array).all()}


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_batch_may_be_overwritten_once_its_step_is_over(accumulation):
    """Batches lie in memory that worker processes write the next ones into."""
    kept, overwritten = Run(accumulation), Run(accumulation)
    updates, slot = overwritten.updates, []

    def in_one_slot(parts):
        for arrays in parts:
            slot[:] = slot or [np.empty_like(array) for array in arrays]
            for place, array in zip(slot, arrays, strict=True):
                place[...] = array
            yield tuple(slot)

    def update(parts, *others):
        outcome = updates(in_one_slot(parts), *others)
        for place in slot:
            place[...] = np.nan if place.dtype.kind == "f" else 0
        return outcome

    update.accumulation = accumulation
    overwritten.updates = update
    for number in range(3):
        assert overwritten(number) == kept(number)
    assert_equal(overwritten.state(), kept.state())


@pytest.mark.slow
def test_an_overflow_clears_the_sums():
    run, plain = Run(2, scales=True), Run(2, scales=True)
    assert not np.isfinite(run(0, poison=np.nan, scale=8.0).grad_norm)
    assert run(1, scale=8.0) == plain(1, scale=8.0)
    assert_equal(run.state(), plain.state())


def test_moving_average_of_every_update():
    run = Run(averages=True)
    expected = {name: array.astype(np.float64) for name, array in values(run.net).items()}
    assert all(np.array_equal(array.asnumpy(), expected[name[4:]]) for name, array in run.average.state().items())
    for update, decay in enumerate((0.9, 0.5, 0.99)):
        run(update, ema_decay=decay)
        after = values(run.net)
        expected = {name: decay * old + (1 - decay) * after[name] for name, old in expected.items()}
    for name, average in run.average.state().items():
        np.testing.assert_allclose(average.asnumpy(), expected[name.removeprefix("ema.")], rtol=0, atol=1e-6)


def test_decay_of_the_average_with_and_without_warm_up():
    assert [decay_at(update, 0.9, False) for update in (0, 100)] == [0.9, 0.9]
    assert decay_at(0, 0.9, True) == 0.1
    assert decay_at(8, 0.9, True) == 0.5
    assert decay_at(1000, 0.9, True) == 0.9


def test_a_wish_to_stop_comes_back():
    run = Run()
    assert run(0).wish == 0.0
    assert run(1, wish=1.0).wish == 1.0


# ---------------------------------------------------------------------------------------------------------------------
# A teacher


class Answers(nn.Cell):
    """Gives the same logits for whatever image."""

    def __init__(self, logits_BK: np.ndarray):
        super().__init__()
        self.logits_BK = Tensor(logits_BK)

    def construct(self, image_BCYX: Tensor) -> Tensor:
        return self.logits_BK + 0.0 * ops.mean(image_BCYX)


UNSHIFTED = np.ones(3), np.zeros(3)


@requires_oracles
@pytest.mark.parametrize(
    ("kind", "alpha", "tau"), [("hard", 0.5, 1.0), pytest.param("soft", 0.1, 3.0, marks=pytest.mark.slow)]
)
def test_five_steps_with_a_teacher_equal_the_authors_code_under_torch(kind, alpha, tau):
    """https://github.com/facebookresearch/deit losses.py; tolerances as in test_one_step."""
    golden = read_json(f"models/{DEIT.name}/train5_distill_{kind}.json")["f64"]
    net = fill(DEIT.build(**NO_DROPS), "unit")
    optimizer = build_optimizer(net, OptimConfig(weight_decay=0.05))
    logits_BK = (np.random.RandomState(11).standard_normal((2, 10)) * 3).astype(np.float32)
    teacher = Teacher(Answers(logits_BK), *UNSHIFTED)
    updates = Updates(net, DistillationLoss(kind, alpha, tau), optimizer, clip_norm=5.0, teacher=teacher)
    batch = recipe.images(DEIT.image_size), recipe.soft_targets(10), np.zeros(2, np.int32)
    outcomes = [updates([batch], optimizer.rates(step, 1e-3), Control()) for step in range(5)]
    after = {theirs: values(net)[ours].astype(np.float64) for theirs, ours in official_names(net).items()}
    losses = [outcome.loss for outcome in outcomes] + [updates([batch], optimizer.rates(5, 1e-3), Control()).loss]
    np.testing.assert_allclose(losses, golden["loss"], rtol=0, atol=5e-5)
    np.testing.assert_allclose([outcome.grad_norm for outcome in outcomes], golden["global_grad_norm"], rtol=3e-4)
    for name, norm in golden["param_norm_after"].items():
        # As there: the keys' part of a bias moves by the sign of rounding.
        tolerance = 1e-3 if name.endswith("qkv.bias") else 5e-5
        assert np.linalg.norm(after[name]) == pytest.approx(norm, rel=tolerance), name


def losses_by_hand(logits: tuple, target_BK: np.ndarray, teacher_BK: np.ndarray, tau: float) -> tuple[float, float]:
    def log_softmax(x_BK: np.ndarray) -> np.ndarray:
        return x_BK - np.log(np.exp(x_BK).sum(1, keepdims=True))

    own, distilled = logits if isinstance(logits, tuple) else (logits, logits)
    base = -(target_BK * log_softmax(own)).sum(1).mean()
    hard = -log_softmax(distilled)[np.arange(len(own)), teacher_BK.argmax(1)].mean()
    mine, theirs = log_softmax(distilled / tau), log_softmax(teacher_BK / tau)
    soft = (np.exp(theirs) * (theirs - mine)).sum() * tau**2 / distilled.size
    return 0.3 * base + 0.7 * hard, 0.3 * base + 0.7 * soft


@pytest.mark.parametrize("heads", [1, 2])
def test_distillation_by_its_formula(heads):
    random = np.random.default_rng(heads)
    own, distilled, teacher_BK = random.standard_normal((3, 4, 6))
    target_BK = random.dirichlet(np.ones(6), 4)
    logits = (own, distilled) if heads == 2 else own
    expected = losses_by_hand(logits, target_BK, teacher_BK, 2.0)
    given = tuple(Tensor(x.astype(np.float32)) for x in logits) if heads == 2 else Tensor(own.astype(np.float32))
    others = [Tensor(x.astype(np.float32)) for x in (target_BK, teacher_BK)]
    found = [float(DistillationLoss(kind, 0.7, 2.0)(given, *others)) for kind in ("hard", "soft")]
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6)


def test_a_teacher_stays_as_it_is_and_sees_its_own_normalisation():
    mine, theirs = (fill(tiny("vit", **NO_DROPS), "unit") for _ in range(2))
    before = values(theirs)
    optimizer = build_optimizer(mine, OptimConfig())
    teacher = Teacher(theirs, np.array([2.0, 1.0, 0.5]), np.array([0.0, 1.0, -1.0]))
    image_BCYX = recipe.images(TINY_IMAGE_SIZE)
    shifted = image_BCYX * np.float32([2.0, 1.0, 0.5])[:, None, None] + np.float32([0.0, 1.0, -1.0])[:, None, None]
    np.testing.assert_allclose(teacher(Tensor(image_BCYX)).asnumpy(), theirs(Tensor(shifted)).asnumpy(), atol=1e-6)
    updates = Updates(mine, DistillationLoss("soft", 0.5, 1.0), optimizer, teacher=teacher)
    updates([(image_BCYX, recipe.soft_targets(10), np.zeros(2, np.int32))], optimizer.rates(0, RATE), Control())
    assert not theirs.training
    assert_equal({name.removeprefix("teacher."): array for name, array in values(theirs).items()}, before)
