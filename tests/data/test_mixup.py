"""Mixup and CutMix: timm's images and targets for timm's draws, its distributions, and what every plan keeps.

goldens/mixup.npz holds timm 1.0.31's Mixup under torch 2.15 on one batch: for each kind of `KINDS` the results
[mode, seed] of modes batch, pair, elem after np.random.seed(0), (1), (2), with prob 0.8, switch_prob 0.5,
label_smoothing 0.1 and 5 classes.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp, kstest

from src.data.mixup import MixPlan, Mixup, boxes_around, group_plan, soft_targets
from src.errors import ConfigError
from tests.oracles import ORACLES, PROJECT, read_arrays, read_json, requires_oracles

MODES = ("batch", "pair", "elem")
KINDS = {
    "both": dict(mixup_alpha=0.8, cutmix_alpha=1.0),
    "mixup": dict(mixup_alpha=0.3),
    "cutmix": dict(cutmix_alpha=0.5),
    "minmax": dict(cutmix_minmax=(0.2, 0.9)),
}
SMALL = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=6)


def timm_plan(mixup: Mixup, image_BCYX: np.ndarray, seed: int) -> MixPlan:
    """The plan that timm draws after np.random.seed(seed), in its order of draws."""
    random, batch_size, shape = np.random.RandomState(seed), len(image_BCYX), image_BCYX.shape[2:]
    lam_G, is_cut_G = (timm_of_batch if mixup.mode == "batch" else timm_of_groups)(mixup, batch_size, random)
    box_G4 = np.zeros((len(lam_G), 4), np.int64)
    for group in np.flatnonzero(is_cut_G):
        if mixup.cutmix_minmax is None:
            center = np.array([[random.randint(0, shape[0]), random.randint(0, shape[1])]])
            box_G4[group] = boxes_around(lam_G[group : group + 1], center, shape)[0]
        else:
            low, high = ([int(side * bound) for side in shape] for bound in mixup.cutmix_minmax)
            height, width = random.randint(low[0], high[0]), random.randint(low[1], high[1])
            top, left = random.randint(0, shape[0] - height + 1), random.randint(0, shape[1] - width + 1)
            box_G4[group] = top, left, height, width
    return group_plan(batch_size, shape, lam_G, is_cut_G, box_G4)


def timm_of_batch(mixup: Mixup, batch_size: int, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    cutmix_alpha = 1.0 if mixup.cutmix_minmax else mixup.cutmix_alpha
    if random.rand() >= mixup.prob:
        return np.ones(1), np.array([False])
    is_cut = random.rand() < mixup.switch_prob if mixup.mixup_alpha and cutmix_alpha else bool(cutmix_alpha)
    alpha = cutmix_alpha if is_cut else mixup.mixup_alpha
    return np.array([random.beta(alpha, alpha)]), np.array([is_cut])


def timm_of_groups(mixup: Mixup, batch_size: int, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    groups = batch_size // 2 if mixup.mode == "pair" else batch_size
    cutmix_alpha = 1.0 if mixup.cutmix_minmax else mixup.cutmix_alpha
    is_cut_G = np.full(groups, bool(cutmix_alpha))
    if mixup.mixup_alpha and cutmix_alpha:
        is_cut_G = random.rand(groups) < mixup.switch_prob
    cut_lam_G = random.beta(cutmix_alpha, cutmix_alpha, groups) if cutmix_alpha else np.ones(groups)
    mix_lam_G = random.beta(mixup.mixup_alpha, mixup.mixup_alpha, groups) if mixup.mixup_alpha else np.ones(groups)
    is_mixed_G = random.rand(groups) < mixup.prob
    lam_G = np.where(is_cut_G, cut_lam_G, mix_lam_G)
    return np.where(is_mixed_G, lam_G, 1.0), is_cut_G & is_mixed_G


def assert_equals_timm(mixup: Mixup, plan: MixPlan, image_BCYX, label_B, timm_image_BCYX, timm_target_BK):
    image_BCYX, target_BK = mixup.apply(plan, image_BCYX.copy(), label_B)
    assert (image_BCYX.dtype, target_BK.dtype) == (np.float32, np.float32)
    if mixup.mode == "batch":
        assert np.array_equal(image_BCYX, timm_image_BCYX)
        assert np.array_equal(target_BK, timm_target_BK)
    else:
        # timm rounds lam to float32 before it takes 1 - lam: the last bits of numbers up to 4, of targets up to 1.
        np.testing.assert_allclose(image_BCYX, timm_image_BCYX, rtol=0, atol=5e-7)
        np.testing.assert_allclose(target_BK, timm_target_BK, rtol=0, atol=2e-7)


def batch(batch_size: int, shape: tuple[int, int] = (6, 7), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.standard_normal((batch_size, 3, *shape), np.float32), random.integers(0, 6, batch_size)


# ---------------------------------------------------------------------------------------------------------------------
# timm's numbers


@pytest.fixture(scope="module")
def golden():
    with np.load(PROJECT / "tests/goldens/mixup.npz") as archive:
        return {key: archive[key] for key in archive.files}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(3))
def test_seeded_batches_equal_timm(golden, kind, mode, seed):
    mixup = Mixup(**KINDS[kind], prob=0.8, mode=mode, num_classes=5)
    plan = timm_plan(mixup, golden["image"], seed)
    wanted = [golden[f"{kind}_{part}"][MODES.index(mode), seed] for part in ("image", "target")]
    assert_equals_timm(mixup, plan, golden["image"], golden["label"], *wanted)


def test_the_golden_holds_every_case(golden):
    # Unmixed, blended and cut batches of each kind: a golden of plain copies would prove nothing.
    for kind in KINDS:
        changed = (golden[f"{kind}_image"] != golden["image"]).reshape(9, -1)
        assert changed.any(1).sum() >= 7
        assert changed.all(1).any() == (kind in ("both", "mixup"))


@requires_oracles
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(6))
def test_seeded_batches_equal_timm_of_the_outside_reference(mode, seed):
    stored = read_arrays("aug/mixup_seeded.npz")
    mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, mode=mode, num_classes=6)
    plan = timm_plan(mixup, stored["x"], seed)
    wanted = [stored[f"{mode}_s{seed}_{part}"] for part in ("x", "target")]
    assert_equals_timm(mixup, plan, stored["x"], stored["labels"], *wanted)


@requires_oracles
def test_given_ratios_and_centres_equal_timm():
    stored = read_arrays("aug/mixup_golden.npz")
    image_BCYX, label_B = stored["x"], stored["labels"]
    cases = [key.removesuffix("_x") for key in stored if key.endswith("_x")]
    assert len(cases) == 9
    for case in cases:
        kind, lam, *center = case.split("_")
        lam_G = np.array([float(lam.removeprefix("lam"))])
        center_G2 = np.array([[int(part[2:]) for part in center] or [0, 0]])
        is_cut_G, box_G4 = np.array([kind == "cutmix"]), boxes_around(lam_G, center_G2, (17, 23))
        plan = group_plan(4, (17, 23), lam_G, is_cut_G, box_G4)
        assert_equals_timm(SMALL, plan, image_BCYX, label_B, stored[f"{case}_x"], stored[f"{case}_target"])


@requires_oracles
def test_boxes_and_corrected_ratios_equal_timm():
    rows = read_json("aug/mixup.json")["boxes"]
    assert len(rows) == 84
    for row in rows:
        shape = row["H"], row["W"]
        box_G4 = boxes_around(np.array([row["lam"]]), np.array([[row["cy"], row["cx"]]]), shape)
        top, bottom, left, right = row["new_box"]
        assert box_G4.tolist() == [[top, left, bottom - top, right - left]]
        plan = group_plan(2, shape, np.array([row["lam"]]), np.array([True]), box_G4)
        assert plan.target_lam_B.tolist() == [row["new_lam"]] * 2


def test_an_odd_box_keeps_its_last_row():
    # 1 - lam = 0.25 of 10 x 14 is a box of 5 x 7: two rows and three columns before the centre's own.
    assert boxes_around(np.array([0.75]), np.array([[5, 7]]), (10, 14)).tolist() == [[3, 4, 5, 7]]
    assert boxes_around(np.array([0.75]), np.array([[0, 13]]), (10, 14)).tolist() == [[0, 10, 3, 4]]


# ---------------------------------------------------------------------------------------------------------------------
# Distributions


def elements(number: int, shape: tuple[int, int] = (224, 224), **keys) -> tuple[MixPlan, np.ndarray]:
    """A plan of that many independent samples, and which of them are cut (a box may be empty, rarely)."""
    plan = Mixup(**keys, mode="elem").draw(number, shape, np.random.default_rng(0))
    return plan, plan.box_B4[:, 2] > 0


@requires_oracles
@pytest.mark.parametrize("mode", MODES)
def test_ratios_are_distributed_as_timms(mode):
    lam, is_cut = np.load(ORACLES / "aug/mixup_lambda_samples.npy").T
    is_cut = is_cut > 0
    mixup, random = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, mode=mode), np.random.default_rng(1)
    plans = [mixup.draw(8, (224, 224), random) for _ in range({"batch": 3000, "pair": 750, "elem": 375}[mode])]
    ours = np.concatenate([plan.target_lam_B[: {"batch": 1, "pair": 4, "elem": 8}[mode]] for plan in plans])
    cut = np.concatenate([plan.pixel_lam_B[: {"batch": 1, "pair": 4, "elem": 8}[mode]] for plan in plans]) == 1.0
    assert len(ours) == 3000
    assert abs(cut.mean() - is_cut.mean()) < 0.03
    assert ks_2samp(ours[~cut], lam[~is_cut]).pvalue > 1e-3
    assert ks_2samp(ours[cut], corrected(lam[is_cut], 224)).pvalue > 1e-3


def corrected(lam_N: np.ndarray, side: int) -> np.ndarray:
    """The share that is left beside a box of each ratio around a random centre of a square image."""
    random = np.random.default_rng(2)
    shares = []
    for lam in lam_N:
        cut = int(side * (1 - lam) ** 0.5)
        spans = [range(center - cut // 2, center + (cut + 1) // 2) for center in random.integers(0, side, 2)]
        rows, columns = (sum(0 <= place < side for place in span) for span in spans)
        shares.append(1 - rows * columns / side**2)
    return np.array(shares)


@pytest.mark.parametrize("alpha", [0.2, 0.8, 3.0])
def test_mixup_alone_is_a_beta_of_its_alpha(alpha):
    plan, is_cut = elements(4000, mixup_alpha=alpha)
    assert not is_cut.any()
    assert np.array_equal(plan.pixel_lam_B, plan.target_lam_B)
    assert kstest(plan.target_lam_B, "beta", (alpha, alpha)).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_cutmix_alone_cuts_a_beta_of_its_alpha(alpha):
    # Boxes far from the border of a large image are whole: their side is the root of 1 - lam.
    plan, is_cut = elements(6000, (1000, 1000), cutmix_alpha=alpha)
    assert is_cut.mean() > 0.99
    assert np.array_equal(plan.pixel_lam_B, np.ones(6000))
    sides = corrected(np.random.default_rng(3).beta(alpha, alpha, 3000), 1000)
    assert ks_2samp(plan.target_lam_B, sides).pvalue > 1e-3


def test_boxes_of_minmax_are_uniform():
    plan, is_cut = elements(4000, (1000, 600), cutmix_minmax=(0.2, 0.8))
    top, left, height, width = plan.box_B4.T
    assert is_cut.all()
    assert (height.min(), height.max() + 1, width.min(), width.max() + 1) == (200, 800, 120, 480)
    # Half a pixel more makes whole numbers a continuous scale.
    assert kstest((height + 0.5 - 200) / 600, "uniform").pvalue > 1e-3
    assert kstest((width + 0.5 - 120) / 360, "uniform").pvalue > 1e-3
    assert kstest((top + 0.5) / (1001 - height), "uniform").pvalue > 1e-3
    assert kstest((left + 0.5) / (601 - width), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(height, width)[0, 1]) < 0.06
    np.testing.assert_allclose(plan.target_lam_B, 1 - height * width / 600_000)


def test_boxes_of_minmax_reach_every_border():
    # Sides of 1 to 4 of 6 pixels, in every place that holds them.
    top, left, height, width = elements(4000, (6, 6), cutmix_minmax=(0.2, 0.9))[0].box_B4.T
    places = {(start, side) for side in range(1, 5) for start in range(7 - side)}
    assert set(zip(top.tolist(), height.tolist(), strict=True)) == places
    assert set(zip(left.tolist(), width.tolist(), strict=True)) == places


@pytest.mark.parametrize(("prob", "switch_prob"), [(1.0, 0.5), (0.3, 0.5), (1.0, 0.1), (0.6, 0.9), (0.0, 0.5)])
def test_shares_of_mixing_and_of_cutmix(prob, switch_prob):
    plan, is_cut = elements(4000, mixup_alpha=2.0, cutmix_alpha=2.0, prob=prob, switch_prob=switch_prob)
    is_blended = plan.pixel_lam_B < 1
    assert abs((is_cut | is_blended).mean() - prob) < 0.03
    assert abs(is_cut.mean() - prob * switch_prob) < 0.03
    left_alone = ~is_cut & ~is_blended
    assert (plan.target_lam_B[left_alone] == 1).all()


# ---------------------------------------------------------------------------------------------------------------------
# What every plan keeps


mixups = st.builds(
    Mixup,
    mixup_alpha=st.sampled_from([0.0, 0.1, 0.8]),
    cutmix_alpha=st.sampled_from([0.0, 1.0]),
    cutmix_minmax=st.sampled_from([None, (0.2, 0.8)]),
    prob=st.sampled_from([0.5, 1.0]),
    mode=st.sampled_from(MODES),
    label_smoothing=st.sampled_from([0.0, 0.1]),
    num_classes=st.just(6),
)


@given(mixups, st.integers(1, 5), st.tuples(st.integers(5, 12), st.integers(5, 12)), st.integers(0, 10**6))
def test_plans_and_what_they_do(mixup, half, shape, seed):
    image_BCYX, label_B = batch(2 * half, shape, seed)
    plan = mixup.draw(2 * half, shape, np.random.default_rng(seed))
    again = mixup.draw(2 * half, shape, np.random.default_rng(seed))
    assert all(np.array_equal(array, vars(again)[name]) for name, array in vars(plan).items())
    mixed_BCYX, target_BK = mixup.apply(plan, image_BCYX.copy(), label_B)
    assert (target_BK >= 0).all()
    np.testing.assert_allclose(target_BK.sum(1), 1, rtol=1e-6)
    top, left, height, width = plan.box_B4.T
    assert (plan.box_B4 >= 0).all()
    assert (top + height <= shape[0]).all()
    assert (left + width <= shape[1]).all()
    # Sample by sample, from the definition.
    for own, (lam, target_lam) in enumerate(zip(plan.pixel_lam_B, plan.target_lam_B, strict=True)):
        partner = 2 * half - 1 - own
        wanted_CYX = lam * image_BCYX[own] + (1 - lam) * image_BCYX[partner]
        window = np.s_[:, top[own] : top[own] + height[own], left[own] : left[own] + width[own]]
        wanted_CYX[window] = image_BCYX[partner][window]
        np.testing.assert_allclose(mixed_BCYX[own], wanted_CYX, rtol=0, atol=1e-6)
        if height[own]:
            outside = np.ones(wanted_CYX.shape, bool)
            outside[window] = False
            assert np.array_equal(mixed_BCYX[own][outside], image_BCYX[own][outside])
            np.testing.assert_allclose(target_lam, 1 - height[own] * width[own] / (shape[0] * shape[1]))
        else:
            assert target_lam == lam


@given(st.integers(0, 10**6))
def test_partners_of_a_pair_mix_alike(seed):
    mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, mode="pair", num_classes=6)
    image_BCYX, label_B = batch(8)
    plan = mixup.draw(8, (6, 7), np.random.default_rng(seed))
    for array in vars(plan).values():
        assert np.array_equal(array, array[::-1])
    image_BCYX, target_BK = mixup.apply(plan, image_BCYX, label_B)
    turned_BCYX, turned_BK = mixup.apply(plan, batch(8)[0][::-1].copy(), label_B[::-1])
    assert np.array_equal(image_BCYX, turned_BCYX[::-1])
    assert np.array_equal(target_BK, turned_BK[::-1])


@pytest.mark.parametrize(("mode", "ratios"), [("batch", 1), ("pair", 4), ("elem", 8)])
def test_what_shares_a_ratio(mode, ratios):
    plan = Mixup(mixup_alpha=0.8, mode=mode).draw(8, (6, 7), np.random.default_rng(0))
    assert len(np.unique(plan.target_lam_B)) == ratios


def test_elements_are_independent():
    # Partners of one batch over many batches.
    mixup, random = Mixup(mixup_alpha=0.8, mode="elem"), np.random.default_rng(0)
    first, last = np.array([mixup.draw(2, (6, 7), random).target_lam_B for _ in range(2000)]).T
    assert abs(np.corrcoef(first, last)[0, 1]) < 0.08
    # Of two partners one can be cut and the other blended; each takes the other as it was.
    plan = MixPlan(np.array([1.0, 0.25]), np.array([0.5, 0.25]), np.array([[0, 0, 3, 7], [0, 0, 0, 0]]))
    before, label_B = batch(2)
    after, _ = SMALL.apply(plan, before.copy(), label_B)
    assert np.array_equal(after[0, :, :3], before[1, :, :3])
    assert np.array_equal(after[0, :, 3:], before[0, :, 3:])
    np.testing.assert_allclose(after[1], 0.25 * before[1] + 0.75 * before[0], rtol=0, atol=1e-6)


def test_mixing_works_in_place():
    image_BCYX, label_B = batch(4)
    before = image_BCYX.copy()
    plan = Mixup(mixup_alpha=0.8, num_classes=6).draw(4, (6, 7), np.random.default_rng(0))
    result, _ = SMALL.apply(plan, image_BCYX, label_B)
    assert result is image_BCYX
    assert not np.array_equal(image_BCYX, before)


# ---------------------------------------------------------------------------------------------------------------------
# Targets, and what is refused


def test_without_alphas_targets_are_smoothed_and_images_kept():
    mixup = Mixup(label_smoothing=0.2, num_classes=4)
    image_BCYX, _ = batch(3)
    label_B = np.array([2, 0, 2])
    plan = mixup.draw(3, (6, 7), np.random.default_rng(0))
    result, target_BK = mixup.apply(plan, image_BCYX.copy(), label_B)
    assert np.array_equal(result, image_BCYX)
    row = np.float32([0.05, 0.05, 0.85, 0.05])
    assert np.array_equal(target_BK, [row, np.roll(row, 2), row])
    assert np.array_equal(target_BK, soft_targets(label_B, 4, 0.2))


def test_targets_of_known_labels():
    target_BK = soft_targets(np.array([0, 2]), 4, 0.4, np.array([0.75, 1.0]))
    np.testing.assert_allclose(target_BK, [[0.55, 0.1, 0.25, 0.1], [0.1, 0.1, 0.7, 0.1]], rtol=1e-6)
    same = soft_targets(np.array([1, 1]), 2, 0.0, np.array([0.3, 0.6]))
    np.testing.assert_allclose(same, [[0, 1], [0, 1]], rtol=1e-6)


@pytest.mark.parametrize("keys", [dict(mixup_alpha=0.8), dict(cutmix_alpha=1.0), dict(cutmix_minmax=(0.2, 0.8))])
def test_an_odd_batch_cannot_be_mixed(keys):
    with pytest.raises(ConfigError, match=r"^batch_size: must be even with mix_up or cutmix. Received: 5$"):
        Mixup(**keys).draw(5, (6, 7), np.random.default_rng(0))


@pytest.mark.parametrize(("minmax", "shape"), [((0.5, 0.5), (32, 32)), ((0.3, 0.4), (32, 4)), ((0.9, 0.2), (32, 32))])
def test_bounds_without_a_box_are_refused(minmax, shape):
    with pytest.raises(ConfigError, match=r"^cutmix_minmax: must leave a choice of whole pixels in images of 32 x "):
        Mixup(cutmix_minmax=minmax).draw(4, shape, np.random.default_rng(0))
