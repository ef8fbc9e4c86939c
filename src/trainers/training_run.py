"""A run from where it stands to its end: updates, evaluations, checkpoints, and an orderly stop."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from mindspore import Parameter, Tensor, nn

from src.cluster import wait_for_all_ranks
from src.data.loader import TRAIN, EvalBatch, EvalBatches, TrainBatches, print_left_out, read_eval
from src.data.random_numbers import drop_keys
from src.data.workers import BatchReader
from src.device import StopRequest, num_ranks
from src.errors import DataError, ModelFileError, NumbersError
from src.schema import Config
from src.trainers.checkpoints import BEST, RunFolder, best_epoch
from src.trainers.collective import broadcast_from_first, require_equal_on_all_ranks, sum_over_ranks
from src.trainers.ema import MovingAverage, decay_at
from src.trainers.evaluator import EvalResult, evaluate
from src.trainers.guards import Guards
from src.trainers.optimizers import Optimizer
from src.trainers.precision import LossScale
from src.trainers.run_log import RunLog
from src.trainers.schedules import learning_rate, run_epochs
from src.trainers.step_record import StepRecord
from src.trainers.teacher import Teacher
from src.trainers.train_step import Control, Updates
from src.weights.read import read_tensors


@dataclass(frozen=True)
class Trainer:
    """What one run works with, built before its directory is touched."""

    config: Config
    net: nn.Cell
    optimizer: Optimizer
    average: MovingAverage | None
    teacher: Teacher | None
    updates: Updates
    train_batches: TrainBatches
    val_batches: EvalBatches | None

    @property
    def steps_per_epoch(self) -> int:
        """Updates."""
        return self.train_batches.steps_per_epoch // self.train_batches.accumulation

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The network with the moving average as its weights, for the time of a block."""
        pairs = list(zip(self.average.weights, self.average.averages, strict=True))
        kept = [weight.asnumpy().copy() for weight, _ in pairs]
        try:
            for weight, average in pairs:
                weight.set_data(Tensor(average.asnumpy()))
            yield
        finally:
            for (weight, _), array in zip(pairs, kept, strict=True):
                weight.set_data(Tensor(array))

    def parameters(self) -> dict[str, Parameter]:
        """Everything that a checkpoint holds: weights, moments and moving average by name."""
        averages = self.average.state() if self.average else {}
        return dict(self.net.parameters_and_names()) | self.optimizer.state() | averages

    def tensors(self) -> dict[str, np.ndarray]:
        """The values of all of them."""
        return {name: parameter.asnumpy() for name, parameter in self.parameters().items()}

    def restore(self, checkpoint: Path) -> None:
        """Take weights, moments and moving average from a checkpoint of the same run.

        Raises:
            ModelFileError: names or shapes that differ from this run's.
        """
        parameters, tensors = self.parameters(), read_tensors(checkpoint)
        tensors.pop("global_step", None)
        theirs = {(name, array.shape) for name, array in tensors.items()}
        ours = {(name, tuple(parameter.shape)) for name, parameter in parameters.items()}
        for one, other, what in ((ours, theirs, "lacks"), (theirs, ours, "holds")):
            for name, shape in sorted(one - other)[:1]:
                rule = f"is of another model, optimizer or moving average than this run: {what} {name} {shape}"
                raise ModelFileError(checkpoint, rule)
        for name, parameter in parameters.items():
            parameter.set_data(Tensor(tensors[name]))

    def share_from_first(self) -> None:
        """Give every rank the first one's tensors, and make sure that all have them.

        Raises:
            NumbersError: a rank has others all the same.
        """
        if num_ranks() == 1:
            return
        for parameter in self.parameters().values():
            parameter.set_data(Tensor(broadcast_from_first(parameter.asnumpy())))
        require_equal_on_all_ranks(digest_of(self.parameters()), "weights")


def digest_of(parameters: Mapping[str, Parameter]) -> str:
    """sha256 of names and values, in their order."""
    digest = hashlib.sha256()
    for name, parameter in parameters.items():
        digest.update(name.encode() + parameter.asnumpy().tobytes())
    return digest.hexdigest()


class _AskedToStopError(Exception):
    """Ends an evaluation."""


class TrainingRun:
    """What changes while a run goes on, and the loop over its updates.

    Args:
        trainer: what it works with.
        folder: where checkpoints go; None on all ranks but the first.
        log: of the run, open.
        reader: of the batches of the trainer.
        step: updates that are done.
        state: what `RunFolder.begin` gave of them.
    """

    def __init__(
        self,
        trainer: Trainer,
        folder: RunFolder | None,
        log: RunLog,
        reader: BatchReader,
        step: int,
        state: Mapping[str, Any],
    ):
        self.trainer, self.folder, self.log, self.reader, self.step = trainer, folder, log, reader, step
        config, per_epoch = trainer.config, trainer.steps_per_epoch
        self.scale = LossScale(config, state.get("loss_scale"))
        self.guards = Guards(config, per_epoch, state.get("guards"))
        # Updates that moved the weights: those that overflowed do not count for the moments.
        self.applied: int = state.get("applied", 0)
        # An epoch whose updates are done, and which has not been evaluated and recorded.
        self.is_open: bool = state.get("is_open", False)
        self.first_step, self.last_step = step, run_epochs(config.schedule).stop * per_epoch
        accumulation = trainer.train_batches.accumulation
        # One reading for the whole run: the first batch of an epoch is read while the one before is evaluated.
        self.batches = reader.read(TRAIN, range(step * accumulation, self.last_step * accumulation))
        # Of the images that were left out, so many have been told.
        self.told = 0
        self.started = time.perf_counter()

    def go_to_end(self) -> None:
        """Train to the last epoch.

        Raises:
            KeyboardInterrupt: a signal, or ``stop_after``; the state is saved.
            NumbersError: the run cannot go on; the state is saved.
        """
        stop = StopRequest()
        try:
            if self.is_open:
                self.end_epoch(stop)
            while self.step < self.last_step:
                self.advance(stop)
        except NumbersError:
            # With a loss scale the update at fault has left the weights alone: they can be gone on with.
            with contextlib.suppress(NumbersError):
                self.save()
            raise
        except DataError:
            # Of several ranks the others are in the middle of an update.
            if num_ranks() == 1 and self.step > self.first_step:
                self.save()
            raise
        finally:
            stop.close()

    def advance(self, stop: StopRequest) -> None:
        """One update and all that follows it: the end of an epoch, a checkpoint, an orderly stop.

        Raises:
            KeyboardInterrupt: a rank was asked to stop; the state is saved.
            NumbersError: the run cannot go on.
        """
        checkpoint, per_epoch = self.trainer.config.checkpoint, self.trainer.steps_per_epoch
        must_stop = self.update(stop.is_made or self.step + 1 == checkpoint.stop_after)
        if must_stop:
            self.leave()
        if self.step % per_epoch == 0:
            self.end_epoch(stop)
        elif checkpoint.save_steps and self.step % per_epoch % checkpoint.save_steps == 0:
            self.save()

    def update(self, is_asked_to_stop: bool) -> bool:
        """One update; returns whether any rank was asked to stop.

        Raises:
            NumbersError: as `Guards` says.
        """
        trainer, config = self.trainer, self.trainer.config
        batches, per_epoch = trainer.train_batches, trainer.steps_per_epoch
        started, waited = self.started, self.reader.waited
        rate = learning_rate(self.step, per_epoch, config.optim, config.schedule, batches.update_size)
        decay = decay_at(self.applied, config.optim.ema_decay, config.optim.ema_warmup)
        control = Control(self.scale.value, decay, float(is_asked_to_stop))
        outcome = trainer.updates(self.next_batches(), trainer.optimizer.rates(self.applied, rate), control)
        finite = math.isfinite(outcome.loss) and math.isfinite(outcome.grad_norm)
        self.step += 1
        self.applied += finite
        self.is_open = self.step % per_epoch == 0
        self.started = time.perf_counter()
        record = StepRecord(
            step=self.step,
            epoch=(self.step - 1) // per_epoch + 1,
            loss=outcome.loss,
            lr=rate,
            grad_norm=outcome.grad_norm,
            images=batches.update_size,
            seconds=self.started - started,
            data_wait=self.reader.waited - waited,
            loss_scale=self.scale.value if self.scale.in_use else None,
            skipped=not finite,
        )
        self.log.step(record)
        self.scale.update(finite)
        self.guards.check(record, finite)
        return outcome.wish > 0

    def next_batches(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Images, targets and keys of each batch of the next update."""
        batches, seed = self.trainer.train_batches, self.trainer.config.run.seed
        key_U = drop_keys(seed, self.step, batches.update_size)
        first = self.step * batches.accumulation
        # The range first: at its end no batch of the next update is taken.
        for step, (image_BCYX, target_BK) in zip(
            range(first, first + batches.accumulation), self.batches, strict=False
        ):
            yield image_BCYX, target_BK, key_U[batches.rows_of_update(step)]

    def end_epoch(self, stop: StopRequest) -> None:
        """Evaluate, record, save.

        Raises:
            KeyboardInterrupt: a signal in the evaluation; the state before it is saved.
        """
        config, epoch = self.trainer.config, self.step // self.trainer.steps_per_epoch
        if self.trainer.val_batches is not None:
            try:
                self.log.evaluation(self.evaluation(stop))
            except _AskedToStopError:
                self.leave()
        self.log.epoch()
        self.is_open = False
        print_left_out(self.reader.left_out, self.told)
        self.told = len(self.reader.left_out)
        # The first rank alone has the records of a run that was gone on with.
        is_best = bool(broadcast_from_first(np.array([best_epoch(self.log.epochs) == epoch], np.int32))[0])
        if self.step == self.last_step or epoch % config.checkpoint.save_every == 0 or is_best:
            self.save()
        self.started = time.perf_counter()

    def evaluation(self, stop: StopRequest) -> dict[str, float]:
        """What the epoch's record says of the split val: by the weights, and by their moving average."""
        trainer = self.trainer
        result = evaluate(trainer.net, self.eval_batches(stop))
        counts = result.counts
        found = {"val_loss": result.loss, "top1": counts.top1_accuracy, "top5": counts.top5_accuracy}
        if trainer.average is not None:
            with trainer.averaged():
                result = evaluate(trainer.net, self.eval_batches(stop))
            counts = result.counts
            found |= {"ema_val_loss": result.loss, "ema_top1": counts.top1_accuracy, "ema_top5": counts.top5_accuracy}
        return found | {"val_images": counts.total}

    def judge_best(self) -> EvalResult:
        """What the weights of the best epoch answer, on all ranks; they stay in the network.

        Raises:
            ModelFileError: there are none.
        """
        if self.folder is not None:
            self.trainer.restore(self.folder.path / BEST)
        self.trainer.share_from_first()
        with self.trainer.averaged() if self.trainer.average else contextlib.nullcontext():
            return evaluate(self.trainer.net, read_eval(self.reader))

    def eval_batches(self, stop: StopRequest) -> Iterator[EvalBatch]:
        """The batches of the split val, as long as nobody asks to stop; several ranks come to the end together."""
        for batch in read_eval(self.reader):
            if stop.is_made and num_ranks() == 1:
                raise _AskedToStopError
            yield batch

    def save(self) -> None:
        """Commit a checkpoint of where the run stands, on the first rank; the others wait for it.

        Raises:
            NumbersError: on every rank: a tensor is not finite.
        """
        error = None
        if self.folder is not None:
            state = {
                "applied": self.applied,
                "is_open": self.is_open,
                "loss_scale": self.scale.state(),
                "guards": self.guards.state(),
                "log": self.log.checkpoint_state(),
            }
            try:
                self.folder.save(self.trainer.tensors(), self.step, state, self.log.epochs)
            except NumbersError as found:
                error = found
        if sum_over_ranks(np.array([error is not None]))[0]:
            raise error or NumbersError("weights", "not finite, the last checkpoint is kept")

    def leave(self) -> NoReturn:
        """Save and stop; no rank goes before the first one has saved."""
        self.save()
        wait_for_all_ranks()
        epoch, step = divmod(self.step - 1, self.trainer.steps_per_epoch)
        print(f"=> stopped after epoch {epoch + 1} step {step + 1}; the state is saved", flush=True)
        raise KeyboardInterrupt
