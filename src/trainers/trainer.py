"""Training: from a configuration to checkpoints, one visible loop.

Shape letters: B batch, K classes.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mindspore import Tensor, nn
from tqdm import tqdm

from src.config import require_built
from src.data.build import train_batches_of
from src.data.loader import TRAIN, EvalBatches, TrainBatches, open_reader, read_eval
from src.data.random_numbers import drop_keys
from src.data.sources import open_split
from src.data.transforms import EvalTransform
from src.data.workers import BatchReader
from src.device import num_cores, open_device, rank, stop_on_signals
from src.errors import ModelFileError, NumbersError
from src.files import locked
from src.models import build_configured_model, num_parameters, resolved
from src.schema import BUILT_FOR_TRAINING, Config
from src.trainers.checkpoints import RunFolder, committed_checkpoints
from src.trainers.evaluator import evaluate, print_left_out
from src.trainers.losses import SoftTargetCrossEntropy
from src.trainers.optimizers import Optimizer, build_optimizer
from src.trainers.parameter_groups import plan_lines
from src.trainers.schedules import effective_rate_line, learning_rate, run_epochs
from src.trainers.train_step import TrainStep
from src.weights.load import load_given_weights
from src.weights.numerics import with_numerics
from src.weights.read import read_tensors

_RULER = "=" * 25
_WAIT_WORTH_A_HINT = 0.2


@dataclass(frozen=True)
class Trainer:
    """What one run works with, built before its directory is touched."""

    config: Config
    net: nn.Cell
    optimizer: Optimizer
    step: TrainStep
    train_batches: TrainBatches
    val_batches: EvalBatches | None

    def tensors(self) -> dict[str, np.ndarray]:
        """Everything that a checkpoint holds but the step: weights and moments by name."""
        weights = {name: parameter.asnumpy() for name, parameter in self.net.parameters_and_names()}
        return weights | {name: parameter.asnumpy() for name, parameter in self.optimizer.state().items()}

    def restore(self, checkpoint: Path) -> None:
        """Take weights and moments from a checkpoint of the same run.

        Raises:
            ModelFileError: names or shapes that differ from this run's.
        """
        parameters = dict(self.net.parameters_and_names()) | self.optimizer.state()
        tensors = read_tensors(checkpoint)
        tensors.pop("global_step", None)
        shapes = {name: array.shape for name, array in tensors.items()}
        if shapes != {name: tuple(parameter.shape) for name, parameter in parameters.items()}:
            raise ModelFileError(checkpoint, "holds other tensors than this run")
        for name, parameter in parameters.items():
            parameter.set_data(Tensor(tensors[name]))


def train(config: Config) -> Path:
    """Train, evaluating after every epoch; returns the run directory.

    An existing run in the directory is gone on with, from its newest complete checkpoint, to the same numbers.

    Raises:
        UserError: see the classes of `src.errors`; what was saved before stays.
    """
    require_built(config, BUILT_FOR_TRAINING)
    config = resolved(config)
    epochs = run_epochs(config.schedule)
    folder_path = Path(config.checkpoint.output_dir) / f"ckpt_{rank()}"
    model = with_numerics(config.model, first_weights(config, folder_path))
    config = config.model_copy(update={"model": model})
    trainer = build_trainer(config)
    workers = config.data.num_parallel_workers
    with locked(folder_path):
        steps_per_epoch = trainer.train_batches.steps_per_epoch
        folder = RunFolder(folder_path, config, trainer.train_batches.source.class_names, steps_per_epoch)
        found = folder.find_resume()
        if found is not None:
            trainer.restore(found)
        elif config.model.pretrained is not None:
            print(f"=> loading pretrained weights from '{config.model.pretrained}'")
            print(load_given_weights(trainer.net, config.model, reset_head=config.model.reset_head))
        done = max(folder.begin(found), epochs.start)
        if found is not None:
            print(f"=> resuming after epoch {done} from '{found}'")
        print_plan(trainer, done)
        stop_on_signals()
        with open_reader(workers, trainer.train_batches, trainer.val_batches) as reader:
            # One reading for the whole run: the first batch of an epoch is read while the one before is evaluated.
            steps = range(done * steps_per_epoch, epochs.stop * steps_per_epoch)
            batches = reader.read(TRAIN, steps)
            for epoch in range(done, epochs.stop):
                train_and_save_epoch(trainer, folder, epoch, reader, batches)
    print("train success")
    return folder_path


def first_weights(config: Config, folder: Path) -> Path | None:
    """The file that training will start from: a checkpoint to go on with, else the given weights, else none."""
    resume, given = config.checkpoint.resume, config.model.pretrained
    before = committed_checkpoints(folder)[:1] if resume == "auto" else [Path(resume)] if resume != "none" else []
    return next(iter(before), Path(given) if given else None)


def build_trainer(config: Config) -> Trainer:
    """Data, network and step of a resolved config.

    Raises:
        DataError: images that are missing or do not fit.
        ConfigError: a model or device that cannot be.
    """
    model, data, optim, run = config.model, config.data, config.optim, config.run
    train_batches = train_batches_of(config)
    val_batches = None
    if run.do_val:
        val_images = open_split(data, "val", model.num_classes)
        eval_transform = EvalTransform.from_config(data, model.image_size)
        val_batches = EvalBatches(val_images, eval_transform, data.batch_size, on_bad_image=data.on_bad_image)
    open_device(run)
    print(f"==> Creating model '{model.arch}'")
    net = build_configured_model(model)
    optimizer = build_optimizer(net, optim)
    clip = optim.clip_global_norm_value if optim.clip_global_norm else None
    step = TrainStep(net, SoftTargetCrossEntropy(), optimizer, clip or None)
    return Trainer(config, net, optimizer, step, train_batches, val_batches)


def print_plan(trainer: Trainer, done: int) -> None:
    """The zoo's lines before the first step."""
    config, steps_per_epoch = trainer.config, trainer.train_batches.steps_per_epoch
    optim, schedule, precision = config.optim, config.schedule, config.precision
    print(f"=> using arch: {config.model.arch}")
    print(f"=> params_num: {num_parameters(trainer.net, trainable_only=True)}")
    print(f"=> using amp_level {precision.amp_level}")
    if precision.amp_level != "O0":
        print(f"warning: amp_level {precision.amp_level} computes in float32 on a CPU", file=sys.stderr)
    print("=> When amp_level is O0, using fixed loss_scale with 1.0")
    print(f"{_RULER}Using {'label smoothing' if config.augment.label_smoothing else 'Simple CE'}{_RULER}")
    print(f"=> Getting {config.data.set} dataset")
    print(f"=> When using train_wrapper, using optimizer {optim.optimizer}")
    print("\n".join(plan_lines(trainer.net, optim)))
    print(f"=> Get LR from epoch: {done}")
    print(f"=> Start step: {done * steps_per_epoch}")
    print(f"=> Total step: {run_epochs(schedule).stop * steps_per_epoch}")
    print(f"=> Accumulation step:{optim.accumulation_step}")
    peak_step = math.ceil(schedule.warmup_length * steps_per_epoch)
    print(effective_rate_line(optim, config.data.batch_size))
    print(f"learning_rate {learning_rate(peak_step, steps_per_epoch, optim, schedule, config.data.batch_size)}")
    print(f"clip_global_norm {trainer.step.clip_norm is not None}")
    print("begin train", flush=True)


def train_and_save_epoch(
    trainer: Trainer, folder: RunFolder, epoch: int, reader: BatchReader, batches: Iterator
) -> None:
    """One epoch, counted from 0: train, evaluate, record, save."""
    config = trainer.config
    waited, told = reader.waited, len(reader.left_out)
    line = {"epoch": epoch + 1, **train_epoch(trainer, epoch, batches)}
    print_data_wait(reader.waited - waited, line["seconds"], reader.workers)
    if trainer.val_batches is not None:
        result = evaluate(trainer.net, read_eval(reader))
        counts = result.counts
        line |= {"val_loss": result.loss, "top1": counts.top1_accuracy, "top5": counts.top5_accuracy}
        line |= {"val_images": counts.total}
        best = max([line["top1"], *(past["top1"] for past in folder.history if "top1" in past)])
        print(f"epoch: {epoch + 1} acc: {line['top1']}, best acc is {best}", flush=True)
    print_left_out(reader.left_out, told)
    folder.record(line)
    is_last = epoch + 1 == run_epochs(config.schedule).stop
    if is_last or (epoch + 1) % config.checkpoint.save_every == 0 or folder.best_epoch() == epoch + 1:
        step = (epoch + 1) * trainer.train_batches.steps_per_epoch
        folder.save({**trainer.tensors(), "global_step": np.array(step, np.int64)}, epoch + 1)


def print_data_wait(waited: float, seconds: float, workers: int) -> None:
    """A hint when the network waits for images."""
    if waited > _WAIT_WORTH_A_HINT * seconds:
        cores = num_cores()
        more = f"try num_parallel_workers {cores}" if workers < cores else "smaller files or more cores would help"
        print(f"warning: data wait {100 * waited / seconds:.0f} % of step time: {more}", file=sys.stderr)


def train_epoch(trainer: Trainer, epoch: int, batches: Iterator) -> dict[str, float]:
    """All steps of an epoch, whose batches come next; returns what the history keeps of them.

    Raises:
        NumbersError: a loss or gradient that is not finite.
    """
    config, steps = trainer.config, trainer.train_batches.steps_per_epoch
    first_step = epoch * steps
    losses, norms = [], []
    started = time.perf_counter()
    epochs = run_epochs(config.schedule)
    label = f"epoch {epoch + 1}/{epochs.stop}"
    bar = tqdm(total=steps, desc=label, file=sys.stderr, disable=not sys.stderr.isatty(), leave=False)
    with bar:
        # The range first: at its end no batch of the next epoch is taken.
        for step, (image_BCYX, target_BK) in zip(range(first_step, first_step + steps), batches, strict=False):
            rate = learning_rate(step, steps, config.optim, config.schedule, config.data.batch_size)
            loss, norm = trainer.step(
                Tensor(image_BCYX),
                Tensor(target_BK),
                Tensor(drop_keys(config.run.seed, step, len(target_BK))),
                Tensor(trainer.optimizer.rates(step - epochs.start * steps, rate)),
            )
            losses.append(float(loss))
            norms.append(float(norm))
            if not (math.isfinite(losses[-1]) and math.isfinite(norms[-1])):
                place = f"epoch {epoch + 1} step {step - first_step + 1}"
                rule = "loss or gradient is not finite, the last checkpoint is kept; lower base_lr or set a clip value"
                raise NumbersError(place, rule, f"loss {losses[-1]}, gradient norm {norms[-1]}")
            bar.set_postfix(loss=f"{losses[-1]:.4f}", lr=f"{rate:.2e}", refresh=False)
            bar.update()
    milliseconds = (time.perf_counter() - started) * 1000
    print(f"epoch: {epoch + 1} step: {steps}, loss is {losses[-1]}")
    print(f"epoch time: {milliseconds:.3f} ms, per step time: {milliseconds / steps:.3f} ms", flush=True)
    return {
        "step": first_step + steps,
        "loss": float(np.mean(losses)),
        "last_loss": losses[-1],
        "grad_norm": float(np.mean(norms)),
        "lr": rate,
        "seconds": milliseconds / 1000,
    }
