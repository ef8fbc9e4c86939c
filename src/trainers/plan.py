"""What train.py says before a run, for log readers and for people, and what can be done with it afterwards."""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path

from src.device import num_ranks, rank
from src.models import num_parameters
from src.schema import Config
from src.trainers.checkpoints import BEST, best_epoch
from src.trainers.log_files import METRICS_JSONL, read_records
from src.trainers.memory import FACTOR, memory_estimate
from src.trainers.parameter_groups import plan_lines
from src.trainers.precision import LossScale
from src.trainers.schedules import effective_rate_line, learning_rate, run_epochs
from src.trainers.training_run import Trainer

_RULER = "=" * 25


def print_plan(trainer: Trainer, done: int) -> None:
    """The zoo's lines before the first step, of which so many updates are done."""
    config, steps_per_epoch = trainer.config, trainer.steps_per_epoch
    optim, schedule, precision = config.optim, config.schedule, config.precision
    global_batch = trainer.train_batches.update_size
    print(f"=> using arch: {config.model.arch}")
    print(f"=> params_num: {num_parameters(trainer.net, trainable_only=True)}")
    print(f"=> using amp_level {precision.amp_level}")
    if precision.amp_level != "O0" and config.run.device_target == "CPU":
        print(f"warning: amp_level {precision.amp_level} computes in float32 on a CPU", file=sys.stderr)
    print(scale_line(config))
    print(f"{_RULER}Using {'label smoothing' if config.augment.label_smoothing else 'Simple CE'}{_RULER}")
    print(f"=> Getting {config.data.set} dataset")
    print(f"=> When using train_wrapper, using optimizer {optim.optimizer}")
    print("\n".join(plan_lines(trainer.net, optim)))
    print(f"=> Get LR from epoch: {done // steps_per_epoch}")
    print(f"=> Start step: {done}")
    print(f"=> Total step: {run_epochs(schedule).stop * steps_per_epoch}")
    print(f"=> Accumulation step:{optim.accumulation_step}")
    if num_ranks() > 1:
        print(f"=> rank {rank()} of {num_ranks()}, {global_batch} images per update")
    peak = math.ceil(schedule.warmup_length * steps_per_epoch)
    print(effective_rate_line(optim, global_batch))
    print(f"learning_rate {learning_rate(peak, steps_per_epoch, optim, schedule, global_batch)}")
    print(f"clip_global_norm {bool(optim.clip_global_norm and optim.clip_global_norm_value)}")


def scale_line(config: Config) -> str:
    """The zoo's line on the loss scale."""
    scale = LossScale(config)
    if not scale.in_use:
        return f"=> When amp_level is {config.precision.amp_level}, using fixed loss_scale with 1.0"
    if scale.is_dynamic:
        return f"=> Using DynamicLossScaleUpdateCell, loss_scale_value:{scale.value:g}"
    return f"=> Using FixedLossScaleUpdateCell, loss_scale_value:{scale.value:g}"


def summary_lines(trainer: Trainer, path: Path, begin: str) -> list[str]:
    """The plan for people: what runs, on what, how long, with how much memory.

    Args:
        trainer: of the run.
        path: its directory.
        begin: how it begins: anew, or after which epoch.
    """
    config, batches = trainer.config, trainer.train_batches
    total, trained = (num_parameters(trainer.net, trainable_only=only) for only in (False, True))
    frozen = "" if trained == total else f", {trained:,} of them trained"
    devices = f"{num_ranks()} {config.run.device_target} process{'es' * (num_ranks() > 1)}"
    counts = [f"{len(batches.source):,} images to train"]
    if trainer.val_batches is not None:
        counts.append(f"{len(trainer.val_batches.source):,} held out")
    counts.append(f"{len(batches.source.class_names):,} classes")
    per_epoch, epochs = trainer.steps_per_epoch, run_epochs(config.schedule)
    parts = [f"{batches.batch_size} per process", f"{num_ranks()} processes", f"{batches.accumulation} steps"]
    factors = [part for part, count in zip(parts, (2, num_ranks(), batches.accumulation), strict=True) if count > 1]
    length = f"{len(epochs)} epoch{'s' * (len(epochs) > 1)} of {per_epoch:,}"
    memory = memory_estimate(trainer)
    sizes = {"MindSpore": memory.process, "weights, gradients, moments": memory.parameters}
    sizes["activations"] = memory.activations
    parts_of_memory = [f"{name} {_size(size)}" for name, size in sizes.items()]
    return [
        f"{config.model.arch}, {total:,} parameters{frozen}, on {devices}",
        f"  data     {config.data.set}: {', '.join(counts)}",
        f"  updates  {len(epochs) * per_epoch:,}: {length}, {begin}",
        f"  batch    {batches.update_size:,} images per update ({' x '.join(factors)})",
        f"  rate     {effective_rate_line(config.optim, batches.update_size).removeprefix('effective learning rate ')}",
        f"  memory   about {_size(memory.total)} a process, within a factor of {FACTOR} on a CPU:",
        f"           {', '.join(parts_of_memory)}",
        f"  output   {path}",
    ]


def next_commands(path: Path, config: Config) -> list[str]:
    """What to type next, with the files of a run; nothing without weights to go on with.

    Args:
        path: the run directory.
        config: of the run, resolved.
    """
    best = path / BEST
    if not best.is_file():
        return []
    epochs = [record for record in read_records(path / METRICS_JSONL) if record["kind"] == "epoch"]
    record = next(record for record in epochs if record["epoch"] == best_epoch(epochs))
    top1 = record.get("ema_top1", record["top1"])
    mindir = path.parent / f"{config.export.file_name or config.model.arch}.mindir"
    recipe, weights, exported = (shlex.quote(str(one)) for one in (path / "config.yaml", best, mindir))
    # The accuracy above is the average's.
    weights += " --use_ema True" if "ema_top1" in record else ""
    given = f"--config {recipe} --pretrained {weights}"
    return [
        f"best top-1 {top1:.2%}, of epoch {record['epoch']}. What can be done with it:",
        f"  python eval.py {given} --metrics per_class --report report.html",
        f"  python predict.py --pretrained {weights} IMAGE_OR_FOLDER",
        f"  python export.py {given} --file_format MINDIR --ir_version 3",
        f"  python verify.py {given} --mindir_path {exported}",
    ]


def _size(count: int) -> str:
    """Bytes for people."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
