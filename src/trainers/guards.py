"""When a run is given up: numbers that are not finite, overflows without end, a loss no better than guessing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from src.errors import NumbersError
from src.schema import Config
from src.trainers.step_record import StepRecord

# A network that has come less than this share of the way from guessing to the smallest possible loss has not learnt.
_LEARNT = 0.005


@dataclass
class _State:
    """What the guards remember.

    Args:
        overflows: of the whole run.
        in_a_row: of these, since the last finite update.
        finite: updates of the whole run that were finite.
        loss: sum over the finite updates of the current epoch.
        losses: their number.
    """

    overflows: int = 0
    in_a_row: int = 0
    finite: int = 0
    loss: float = 0.0
    losses: int = 0


class Guards:
    """Looks at every update's numbers and ends a run that cannot come to anything.

    With several ranks each must be fed the same numbers, or one ends while the others wait for it.

    **Overflow.** With a loss scale, gradients that are not finite are part of the search for a good scale, and the
    update is skipped. ``max_overflows`` of them in a row are not: 24 halvings bring the largest start in use, 2^24, to
    1, below which no scale helps; hence the default of 32. Without a loss scale the first one ends the run.

    **Guessing.** Equal probabilities for K classes cost ln K against any target whose shares add up to one, on every
    image, so label smoothing, Mixup and CutMix leave the loss of a guessing network where it is, and there is no noise
    to allow for; other guesses cost more where classes are equally frequent. Smoothing does raise the smallest possible
    loss, to the entropy h of its targets, and where it is strong a network that has learnt everything stays close to
    ln K. So the bound is a share of the way: ln K - 0.005 (ln K - h). Mixing shortens the way by less than ln 2, and
    leaving that out moves the bound by less than 0.0035. The epoch's mean is compared. Epochs count from the end of the
    warm-up, in whose first part nothing is learnt, and every later one is looked at, since a network may also collapse
    late. One that has learnt no more than how frequent the classes are may lie below the bound and is not noticed.

    Args:
        config: of the run, resolved.
        steps_per_epoch: updates.
        state: what `state` gave when the checkpoint was written.
    """

    def __init__(self, config: Config, steps_per_epoch: int, state: Mapping[str, Any] | None = None):
        self.config, self.steps_per_epoch = config, steps_per_epoch
        self._state = _State(**(state or {}))
        wanted = config.run.divergence_guard_epochs
        classes, smoothing = config.model.num_classes, config.augment.label_smoothing
        begins = max(math.ceil(config.schedule.warmup_length), config.schedule.start_epoch)
        self.first_epoch = begins + wanted if wanted and classes > 1 else math.inf
        chance = math.log(classes)
        self.largest_loss = chance - _LEARNT * (chance - _smoothed_entropy(classes, smoothing))

    @property
    def overflows(self) -> int:
        """Updates of the whole run that were skipped."""
        return self._state.overflows

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON can."""
        return asdict(self._state)

    def check(self, record: StepRecord, finite: bool) -> None:
        """Look at an update.

        Args:
            record: of the update.
            finite: whether all its gradients were.

        Raises:
            NumbersError: the run cannot go on; what it saved stays.
        """
        state = self._state
        if finite and math.isfinite(record.loss) and math.isfinite(record.grad_norm):
            state.in_a_row = 0
            state.finite += 1
            state.loss += record.loss
            state.losses += 1
        elif record.loss_scale is None:
            raise self._ended(record, "loss or gradient is not finite", self._advice())
        else:
            state.overflows += 1
            state.in_a_row += 1
            if state.in_a_row >= self.config.run.max_overflows:
                found = f"{state.in_a_row} overflows in a row"
                # Who goes on with other settings has as many tries again.
                state.in_a_row = 0
                raise self._ended(record, found, self._advice(scaled=True))
        if record.step % self.steps_per_epoch == 0:
            self._end_epoch(record)

    def _end_epoch(self, record: StepRecord) -> None:
        state = self._state
        mean = state.loss / state.losses if state.losses else 0.0
        state.loss, state.losses = 0.0, 0
        if record.epoch >= self.first_epoch and mean >= self.largest_loss:
            classes = self.config.model.num_classes
            guessing = f"guessing among {classes} classes ({math.log(classes):.4f})"
            found = f"the epoch's mean loss {mean:.4f} is no better than {guessing}"
            advice = f"{self._advice()}; divergence_guard_epochs 0 goes on all the same"
            raise self._ended(record, found, advice)

    def _ended(self, record: StepRecord, found: str, advice: str) -> NumbersError:
        step = (record.step - 1) % self.steps_per_epoch + 1
        scale = "none" if record.loss_scale is None else f"{record.loss_scale:g}"
        received = f"loss {record.loss:g}, gradient norm {record.grad_norm:g}, LR {record.lr:g}, loss scale {scale}"
        place = f"epoch {record.epoch} step {step}"
        return NumbersError(place, f"{found}, the last checkpoint is kept; {advice}", received)

    def _advice(self, scaled: bool = False) -> str:
        optim, precision = self.config.optim, self.config.precision
        if scaled and not precision.is_dynamic_loss_scale:
            return f"lower loss_scale ({precision.loss_scale:g}) or set is_dynamic_loss_scale"
        if not self._state.finite:
            return "no update was finite: look at the images, mean and std, and at the pretrained weights"
        clips = optim.clip_global_norm and optim.clip_global_norm_value
        other = "lengthen warmup_length" if clips else "set clip_global_norm_value (5 is common)"
        return f"lower base_lr ({optim.base_lr:g}) or {other}"


def _smoothed_entropy(classes: int, smoothing: float) -> float:
    """Of a target with this share spread over all classes, in nats."""
    off = smoothing / classes
    shares = [1 - smoothing + off, *[off] * (classes - 1)]
    return -sum(share * math.log(share) for share in shares if share)
