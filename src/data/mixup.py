"""Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899) of a batch, with the formulas of timm 1.0.31.

Every image is mixed with its mirror in the batch: sample i with sample B - 1 - i.

Shape letters: B batch, C channels, Y X rows and columns, K classes, G groups that share one ratio: 1 in mode batch,
B / 2 in mode pair, B in mode elem. A box is top, left, height, width in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from src.errors import ConfigError


@dataclass(frozen=True)
class MixPlan:
    """What happens to each sample of a batch; a sample's share is its own part, the partner has the rest.

    Attributes:
        pixel_lam_B: share in the pixels, float64; 1 where a box is pasted or nothing is mixed.
        target_lam_B: share in the target, float64.
        box_B4: the pixels that are the partner's, int64; 0 rows or columns where nothing is pasted.
    """

    pixel_lam_B: np.ndarray
    target_lam_B: np.ndarray
    box_B4: np.ndarray

    def of_rows(self, rows: np.ndarray) -> MixPlan:
        """The plan of some rows of the batch."""
        return MixPlan(self.pixel_lam_B[rows], self.target_lam_B[rows], self.box_B4[rows])


@dataclass(frozen=True)
class Mixup:
    """Mix images and labels of a batch, first a plan from a generator, then its arithmetic.

    Attributes:
        mixup_alpha: of Mixup's ratio Beta(alpha, alpha), 0 for no Mixup.
        cutmix_alpha: of CutMix's ratio Beta(alpha, alpha), 0 for no CutMix.
        cutmix_minmax: bounds of a box's sides over the image's, in place of a box from the ratio; turns CutMix on.
        prob: share of the groups that are mixed.
        switch_prob: share of CutMix where both are on.
        mode: what shares one ratio: batch, pair (two partners) or elem (one sample).
        label_smoothing: share of a target that is spread over all classes.
        num_classes: of the targets.
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    cutmix_minmax: tuple[float, float] | None = None
    prob: float = 1.0
    switch_prob: float = 0.5
    mode: str = "batch"
    label_smoothing: float = 0.1
    num_classes: int = 1000

    @property
    def cuts(self) -> bool:
        """Whether CutMix is on."""
        return self.cutmix_alpha > 0 or self.cutmix_minmax is not None

    @property
    def mixes(self) -> bool:
        """Whether either is on; where none is, all that is left are smoothed targets."""
        return self.mixup_alpha > 0 or self.cuts

    def draw(self, batch_size: int, image_shape: tuple[int, int], random: np.random.Generator) -> MixPlan:
        """The plan of a batch of images of (Y, X) pixels, from the generator alone.

        Raises:
            ConfigError: a batch that is mixed has an odd number of samples, or cutmix_minmax leaves no box.
        """
        if not self.mixes:
            return MixPlan(np.ones(batch_size), np.ones(batch_size), np.zeros((batch_size, 4), np.int64))
        if batch_size % 2:
            raise ConfigError("batch_size", "must be even with mix_up or cutmix", batch_size)
        groups = {"batch": 1, "pair": batch_size // 2, "elem": batch_size}[self.mode]
        # Both ratios and a box are drawn for every group, read or not: the arithmetic stays one of whole arrays.
        is_mixed_G = random.random(groups) < self.prob
        is_cut_G = self._choose_cutmix(groups, random)
        lam_G = np.where(is_cut_G, self._cutmix_ratio(groups, random), self._mixup_ratio(groups, random))
        box_G4 = self._draw_boxes(lam_G, image_shape, random)
        return group_plan(batch_size, image_shape, np.where(is_mixed_G, lam_G, 1.0), is_cut_G & is_mixed_G, box_G4)

    def apply(self, plan: MixPlan, image_BCYX: np.ndarray, label_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Carry out a plan on float32 images, in place.

        Returns:
            The images, and their float32 (B, K) targets.
        """
        self.mix(plan, image_BCYX, range(len(image_BCYX) // 2))
        return image_BCYX, soft_targets(label_B, self.num_classes, self.label_smoothing, plan.target_lam_B)

    def mix(self, plan: MixPlan, image_BCYX: np.ndarray, pairs: range) -> None:
        """Mix the images i and B - 1 - i for each i of ``pairs``, in place."""
        # Once for all of them: memory that is taken and freed per image costs more than the arithmetic.
        scratch_2CYX = np.empty((2, *image_BCYX.shape[1:]), np.float32)
        for first in pairs:
            _mix_partners(plan, image_BCYX, (first, len(image_BCYX) - 1 - first), scratch_2CYX)

    def _choose_cutmix(self, groups: int, random: np.random.Generator) -> np.ndarray:
        pick_G = random.random(groups)
        return pick_G < self.switch_prob if self.cuts and self.mixup_alpha > 0 else np.full(groups, self.cuts)

    def _mixup_ratio(self, groups: int, random: np.random.Generator) -> np.ndarray:
        return random.beta(self.mixup_alpha, self.mixup_alpha, groups) if self.mixup_alpha > 0 else np.ones(groups)

    def _cutmix_ratio(self, groups: int, random: np.random.Generator) -> np.ndarray:
        # With cutmix_minmax the box decides the ratio.
        if self.cutmix_alpha > 0 and self.cutmix_minmax is None:
            return random.beta(self.cutmix_alpha, self.cutmix_alpha, groups)
        return np.ones(groups)

    def _draw_boxes(self, lam_G: np.ndarray, image_shape: tuple[int, int], random: np.random.Generator) -> np.ndarray:
        if self.cutmix_minmax is None:
            return boxes_around(lam_G, random.integers(0, image_shape, (len(lam_G), 2)), image_shape)
        low, high = ([int(side * bound) for side in image_shape] for bound in self.cutmix_minmax)
        if low[0] >= high[0] or low[1] >= high[1]:
            rule = f"must leave a choice of whole pixels in images of {image_shape[0]} x {image_shape[1]}"
            raise ConfigError("cutmix_minmax", rule, self.cutmix_minmax)
        size_G2 = random.integers(low, high, (len(lam_G), 2))
        return np.concatenate([random.integers(0, np.array(image_shape) - size_G2 + 1), size_G2], 1)


def boxes_around(lam_G: np.ndarray, center_G2: np.ndarray, image_shape: tuple[int, int]) -> np.ndarray:
    """CutMix's boxes (G, 4): 1 - lam of the image's area around a centre (row, column), as far as inside the image."""
    size_G2 = (np.array(image_shape) * np.sqrt(1 - lam_G)[:, None]).astype(np.int64)
    low_G2 = np.maximum(center_G2 - size_G2 // 2, 0)
    high_G2 = np.minimum(center_G2 + (size_G2 + 1) // 2, image_shape)
    return np.concatenate([low_G2, high_G2 - low_G2], 1)


def group_plan(
    batch_size: int, image_shape: tuple[int, int], lam_G: np.ndarray, is_cut_G: np.ndarray, box_G4: np.ndarray
) -> MixPlan:
    """The plan of the samples from the ratios and boxes of their groups.

    Args:
        batch_size: B; with G of the other arrays it says what a group is.
        image_shape: (Y, X).
        lam_G: ratios of Mixup, 1 for no mixing; not read where a box is pasted.
        is_cut_G: whether the box is pasted.
        box_G4: not read where no box is pasted.
    """
    box_G4 = np.where(is_cut_G[:, None], box_G4, 0)
    # The part of a box beyond the border is not pasted: the target follows what is left of it.
    target_lam_G = np.where(is_cut_G, 1 - box_G4[:, 2] * box_G4[:, 3] / (image_shape[0] * image_shape[1]), lam_G)
    group_of_B = np.arange(batch_size)
    if len(lam_G) < batch_size:
        # Partners share a group: of a pair each its own, of a batch all the same.
        group_of_B = np.minimum(np.minimum(group_of_B, group_of_B[::-1]), len(lam_G) - 1)
    return MixPlan(np.where(is_cut_G, 1.0, lam_G)[group_of_B], target_lam_G[group_of_B], box_G4[group_of_B])


def soft_targets(
    label_B: np.ndarray, num_classes: int, smoothing: float, lam_B: np.ndarray | None = None
) -> np.ndarray:
    """Labels as float32 (B, K) rows that sum to 1.

    Args:
        label_B: classes, whole numbers in [0, K).
        num_classes: K.
        smoothing: share that is spread over all K classes.
        lam_B: share of each row's own label, the rest is that of row B - 1 - i; None for 1.
    """
    off = smoothing / num_classes
    target_BK = np.full((len(label_B), num_classes), off, np.float32)
    target_BK[np.arange(len(label_B)), label_B] = 1.0 - smoothing + off
    if lam_B is None:
        return target_BK
    own_B1, other_B1 = lam_B[:, None].astype(np.float32), (1 - lam_B)[:, None].astype(np.float32)
    return target_BK * own_B1 + target_BK[::-1] * other_B1


def _mix_partners(plan: MixPlan, image_BCYX: np.ndarray, partners: tuple[int, int], scratch_2CYX: np.ndarray) -> None:
    # Both partners' parts are taken before either image changes; the work stays within two images, which fit a cache.
    parts = [
        _part_of_partner(plan, own, image_BCYX[other], scratch_CYX)
        for own, other, scratch_CYX in zip(partners, partners[::-1], scratch_2CYX, strict=True)
    ]
    for own, part_CYX in zip(partners, parts, strict=True):
        top, left, height, width = plan.box_B4[own]
        if height:
            image_BCYX[own, :, top : top + height, left : left + width] = part_CYX
        elif part_CYX is not None:
            image_BCYX[own] *= np.float32(plan.pixel_lam_B[own])
            image_BCYX[own] += part_CYX


def _part_of_partner(plan: MixPlan, own: int, partner_CYX: np.ndarray, scratch_CYX: np.ndarray) -> np.ndarray | None:
    """What sample ``own`` receives, written to the scratch: a window, a share of the whole image, or nothing."""
    top, left, height, width = plan.box_B4[own]
    if height:
        scratch_CYX[:, :height, :width] = partner_CYX[:, top : top + height, left : left + width]
        return scratch_CYX[:, :height, :width]
    if plan.pixel_lam_B[own] < 1:
        return np.multiply(partner_CYX, np.float32(1 - plan.pixel_lam_B[own]), out=scratch_CYX)
    return None
