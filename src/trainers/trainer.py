"""Training: from a configuration to checkpoints."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.config import require_built
from src.data.build import eval_batches_of, train_batches_of
from src.data.eval_sets import EvalSet
from src.data.loader import open_reader
from src.data.sources import open_split
from src.device import num_ranks, open_device, rank, stop_on_signals
from src.errors import ConfigError, DataError, ModelFileError
from src.files import locked
from src.models import build_configured_model, resolved
from src.schema import BUILT_FOR_TRAINING, Config
from src.trainers.checkpoints import BEST, Resumed, RunFolder, committed_checkpoints
from src.trainers.collective import require_equal_on_all_ranks, text_of_first
from src.trainers.ema import MovingAverage
from src.trainers.evaluator import EvalResult, Evaluation
from src.trainers.losses import DistillationLoss, SoftTargetCrossEntropy
from src.trainers.optimizers import build_optimizer
from src.trainers.plan import print_plan, summary_lines
from src.trainers.precision import LossScale, cast_network
from src.trainers.run_log import RunLog
from src.trainers.schedules import run_epochs
from src.trainers.teacher import load_teacher
from src.trainers.train_step import Updates
from src.trainers.training_run import Trainer, TrainingRun, digest_of
from src.weights.class_count import with_class_count
from src.weights.load import load_given_weights
from src.weights.manifest import flat_config
from src.weights.numerics import with_numerics


class Trained(NamedTuple):
    """A run that has come to its end.

    Attributes:
        folder: its directory.
        config: resolved, with the numerics of its weights.
        best: what its best weights answer on the split val; None where no report is wanted, or nothing was evaluated.
    """

    folder: Path
    config: Config
    best: Evaluation | None


def train(config: Config) -> Path:
    """Train, evaluating after every epoch; returns the run directory. See `train_to_end`."""
    return train_to_end(config).folder


def train_to_end(config: Config) -> Trained:
    """Train, evaluating after every epoch.

    An existing run in the directory is gone on with, from its newest complete checkpoint, to the same numbers.

    Raises:
        UserError: see the classes of `src.errors`; what was saved before stays.
        KeyboardInterrupt: a signal, or ``stop_after``; the state is saved.
    """
    trainer, path = open_run(config)
    is_first, best = rank() == 0, None
    with locked(path) if is_first else contextlib.nullcontext():
        folder = None
        if is_first:
            folder = folder_of(trainer, path)
        step, state = start_weights(trainer, folder)
        print_plan(trainer, step)
        if is_first and sys.stdout.isatty():
            begin = f"going on after update {step:,}" if step else "from the beginning"
            print("\n".join(summary_lines(trainer, path, begin)))
        print("begin train", flush=True)
        with (
            open_reader(trainer.config.data.num_parallel_workers, trainer.train_batches, trainer.val_batches) as reader,
            open_log(trainer, path, step, state, reader.workers) as log,
        ):
            run = TrainingRun(trainer, folder, log, reader, step, state)
            if folder is not None:
                folder.mend_best(log.epochs)
            run.go_to_end()
            if trainer.config.pipeline.report and trainer.val_batches is not None:
                best = _evaluation_of_best(trainer, path, run.judge_best())
    print("train success")
    return Trained(path, trainer.config, best)


def open_run(config: Config) -> tuple[Trainer, Path]:
    """Everything that a run works with, and its directory, which is not touched.

    Raises:
        UserError: what cannot be, of configuration, data and weights.
    """
    require_built(config, BUILT_FOR_TRAINING)
    config = resolved(with_class_count(config, by_weights=False, by_images=True))
    run_epochs(config.schedule)
    open_device(config.run)
    # Importing MindSpore and joining a cluster start threads.
    stop_on_signals()
    # The first rank alone reads weights, and writes.
    path = Path(config.checkpoint.output_dir) / "ckpt_0"
    model = with_numerics(config.model, first_weights(config, path)) if rank() == 0 else config.model
    model = model.model_copy(update={"compat": text_of_first(model.compat or "")})
    trainer = build_trainer(config.model_copy(update={"model": model}))
    require_one_job(trainer)
    return trainer, path


def _evaluation_of_best(trainer: Trainer, path: Path, result: EvalResult) -> Evaluation:
    """What eval.py would make of the best weights of a run."""
    weights = path / BEST
    given = {"pretrained": str(weights), "use_ema": trainer.average is not None}
    config = trainer.config.model_copy(update={"model": trainer.config.model.model_copy(update=given)})
    return Evaluation(config, weights, EvalSet("val", trainer.val_batches.source), result)


def first_weights(config: Config, folder: Path) -> Path | None:
    """The file that training will start from: a checkpoint to go on with, else the given weights, else none."""
    resume, given = config.checkpoint.resume, config.model.pretrained
    before = committed_checkpoints(folder)[:1] if resume == "auto" else [Path(resume)] if resume != "none" else []
    return next(iter(before), Path(given) if given else None)


def build_trainer(config: Config) -> Trainer:
    """Data, network and update of a resolved config, on a device that is open.

    Raises:
        DataError: images that are missing or do not fit.
        ConfigError: a model that cannot be.
    """
    model, optim, distill = config.model, config.optim, config.distill
    train_batches = train_batches_of(config, rank(), num_ranks())
    val_batches = None
    if config.run.do_val:
        val_batches = eval_batches_of(config, open_split(config.data, "val", model.num_classes), rank(), num_ranks())
    print(f"==> Creating model '{model.arch}'")
    net = build_configured_model(model)
    optimizer = build_optimizer(net, optim)
    num_cast = cast_network(net, config)
    if num_cast:
        print(f"=> {num_cast} cells compute in {config.precision.amp_dtype}")
    loss, teacher = SoftTargetCrossEntropy(), None
    if distill.distillation_type != "none":
        loss = DistillationLoss(distill.distillation_type, distill.distillation_alpha, distill.distillation_tau)
        teacher = load_teacher(config)
    average = MovingAverage(optimizer.names, optimizer.weights) if optim.with_ema else None
    updates = Updates(
        net,
        loss,
        optimizer,
        optim.accumulation_step,
        clip_norm=(optim.clip_global_norm and optim.clip_global_norm_value) or None,
        scales=LossScale(config).in_use,
        average=average,
        teacher=teacher,
    )
    return Trainer(config, net, optimizer, average, teacher, updates, train_batches, val_batches)


def require_one_job(trainer: Trainer) -> None:
    """Make sure that all ranks have the same settings, images and teacher.

    Raises:
        ConfigError: other settings.
        DataError: other images.
        ModelFileError: a teacher of other weights.
    """
    if num_ranks() == 1:
        return
    settings = flat_config(trainer.config)
    own = {"device_id", "output_dir", "data_url", "num_parallel_workers", "pretrained", "resume", "teacher_pretrained"}
    text = json.dumps({key: value for key, value in settings.items() if key not in own}, sort_keys=True)
    require_equal_on_all_ranks(hashlib.sha256(text.encode()).hexdigest(), "settings", ConfigError)
    source = trainer.train_batches.source
    digest = hashlib.sha256(json.dumps(source.class_names).encode() + np.array(source.labels, np.int64).tobytes())
    for name in source.paths:
        digest.update(os.fsencode(name) + b"\0")
    require_equal_on_all_ranks(digest.hexdigest(), "training images", DataError)
    if trainer.teacher is not None:
        digest_hex = digest_of(dict(trainer.teacher.parameters_and_names()))
        require_equal_on_all_ranks(digest_hex, "teacher's weights", ModelFileError)


def folder_of(trainer: Trainer, path: Path) -> RunFolder:
    """The directory of a run."""
    batches = trainer.train_batches
    return RunFolder(path, trainer.config, batches.source.class_names, trainer.steps_per_epoch, batches.update_size)


def start_weights(trainer: Trainer, folder: RunFolder | None) -> tuple[int, dict[str, Any]]:
    """Put in the weights that a run begins or goes on with, the same on every rank.

    Returns:
        The updates that are done, and what else is known of them.

    Raises:
        UserError: nothing that fits, as `RunFolder.find_resume` and `load_given_weights` say.
    """
    per_epoch = trainer.steps_per_epoch
    step, state = run_epochs(trainer.config.schedule).start * per_epoch, {}
    if folder is not None:
        found = folder.find_resume()
        put_weights(trainer, found)
        done, state = folder.begin(found)
        step = max(step, done)
        if found is not None:
            epoch, step_in_epoch = divmod(step, per_epoch)
            place = f"epoch {epoch}" + (f" and {step_in_epoch} of {per_epoch} steps" if step_in_epoch else "")
            print(f"=> resuming after {place} from '{found.path}'")
    trainer.share_from_first()
    step, state = json.loads(text_of_first(json.dumps([step, state])))
    return step, state


def put_weights(trainer: Trainer, found: Resumed | None) -> None:
    """Put in the weights of a checkpoint of the run, else those that the key ``pretrained`` names.

    Raises:
        ModelFileError: weights that do not fit.
    """
    model = trainer.config.model
    if found is not None:
        trainer.restore(found.path)
    elif model.pretrained is not None:
        print(f"=> loading pretrained weights from '{model.pretrained}'")
        print(load_given_weights(trainer.net, model, reset_head=model.reset_head))
        if trainer.average is not None:
            trainer.average.restart()


def open_log(trainer: Trainer, path: Path, step: int, state: dict[str, Any], workers: int) -> RunLog:
    """The log of a run of which so many updates are done."""
    return RunLog(
        path,
        trainer.config,
        trainer.steps_per_epoch,
        start_step=step,
        state=state.get("log"),
        is_first_rank=rank() == 0,
        workers=workers,
    )
