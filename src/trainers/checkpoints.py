"""The run directory: checkpoints that are whole or not there, and the best one.

    ckpt_0/config.yaml              the resolved configuration, with versions
    ckpt_0/ARCH0-EPOCH_STEP.ckpt    weights, moments, moving average; STEP counts inside the epoch, as in the zoo
    ckpt_0/ARCH0-EPOCH_STEP.json    written last: the mark that the checkpoint is complete
    ckpt_0/best.ckpt, best.json     the epoch with the highest top-1
    ckpt_0/metrics.jsonl and others see `src.trainers.run_log`

A killed run leaves the newest complete checkpoint in place; nothing is removed before its successor is complete. With
several ranks the first one alone writes.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.config import dump_config
from src.device import versions
from src.errors import ConfigError, ModelFileError, NumbersError
from src.files import replacing, sha256, sweep_temporaries, write_text
from src.schema import Config
from src.weights.manifest import Manifest, flat_config, manifest_path, read_manifest, verified_manifest, write_manifest
from src.weights.write import write_ckpt

BEST = "best.ckpt"
# What may differ between the two halves of a run without changing its numbers.
_FREE_SECTIONS = ("checkpoint", "evaluation", "export", "verify", "run", "pipeline")
_FREE_KEYS = {"data_url", "num_parallel_workers", "pretrained", "reset_head", "use_ema", "teacher_pretrained"}
# What says how many images an update has is looked at by itself.
_FREE_KEYS |= {"batch_size", "accumulation_step"}
_BOUND_KEYS = {"seed", "device_target"}


def committed_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a run directory with a manifest, of its last branch and the one that has come furthest first."""
    found = []
    for path in folder.glob("*.ckpt"):
        manifest = read_manifest(path) if path.name != BEST else None
        if manifest is not None:
            found.append((_place(manifest), path))
    return [path for _, path in sorted(found, reverse=True)]


class Resumed(NamedTuple):
    """A checkpoint to go on from, and the manifest that its bytes were compared with."""

    path: Path
    manifest: Manifest


class RunFolder:
    """One run's directory; the caller holds its lock.

    Args:
        path: the directory.
        config: resolved configuration of the run.
        class_names: of the data set, in the order of the labels.
        steps_per_epoch: updates.
        update_size: images of an update, of all ranks.
    """

    def __init__(
        self, path: Path, config: Config, class_names: tuple[str, ...], steps_per_epoch: int, update_size: int
    ):
        self.path, self.config, self.class_names = path, config, class_names
        self.steps_per_epoch, self.update_size = steps_per_epoch, update_size
        self.versions = versions()
        # Which branch of the run this is, and the file that it went off from: where the user named one, what had come
        # further before no longer counts.
        self.branch, self.origin = 0, ""

    def find_resume(self) -> Resumed | None:
        """The checkpoint to go on from, by the key ``resume``; None to start anew. Nothing is written.

        Raises:
            ConfigError: ``none`` where a run exists, or settings other than the run's.
            ModelFileError: the checkpoint that was asked for is missing, damaged or not of a run.
        """
        choice = self.config.checkpoint.resume
        if choice == "auto":
            found = self._newest_verified()
        elif choice == "none":
            found = None
            if committed_checkpoints(self.path):
                raise ConfigError(
                    "resume",
                    f"{self.path} holds a run: --resume auto goes on, another --output_dir starts anew",
                    choice,
                )
        else:
            found = self._newest_from(Path(choice)) or _named(Path(choice))
        if found is not None:
            self._require_same_run(found)
        return found

    def begin(self, resumed: Resumed | None) -> tuple[int, dict[str, Any]]:
        """Write the configuration; returns the updates that are done, and what else the checkpoint says of the run.

        What killed runs left half-written is removed.
        """
        sweep_temporaries(self.path)
        header = "".join(f"# {name} {version}\n" for name, version in self.versions.items())
        write_text(self.path / "config.yaml", header + dump_config(self.config))
        if resumed is None:
            return 0, {}
        manifest = resumed.manifest
        self.branch, self.origin = manifest.state.get("branch", 0), manifest.state.get("origin", "")
        choice = self.config.checkpoint.resume
        if choice != "auto" and self.origin != os.fspath(Path(choice).resolve()):
            here = [read_manifest(path).state.get("branch", 0) for path in committed_checkpoints(self.path)[:1]]
            self.branch, self.origin = max([-1, *here]) + 1, os.fspath(Path(choice).resolve())
        return self.step_of(manifest), manifest.state

    def save(
        self,
        tensors: Mapping[str, np.ndarray],
        step: int,
        state: Mapping[str, Any],
        epochs: Sequence[Mapping[str, Any]],
    ) -> Path:
        """Commit a checkpoint, then drop what is older than wanted.

        Args:
            tensors: by name.
            step: updates that are done.
            state: whatever else a run needs to go on, as JSON can.
            epochs: records of the epochs that are done.

        Raises:
            NumbersError: a tensor that is not finite; nothing is written.
        """
        broken = [name for name, array in tensors.items() if not np.isfinite(array).all()]
        if broken:
            raise NumbersError("weights", "not finite, the last checkpoint is kept", ", ".join(broken[:3]))
        arch, (epoch, step_in_epoch) = self.config.model.arch, divmod(step - 1, self.steps_per_epoch)
        target = self.path / f"{arch}{self.path.name.rpartition('_')[2]}-{epoch + 1}_{step_in_epoch + 1}.ckpt"
        write_ckpt(target, {**tensors, "global_step": np.array(step, np.int64)})
        manifest = Manifest(
            file=target.name,
            bytes=target.stat().st_size,
            sha256=sha256(target),
            arch=arch,
            epoch=len(epochs) and epochs[-1]["epoch"],
            step=step,
            steps_per_epoch=self.steps_per_epoch,
            metrics=dict(epochs[-1]) if epochs else {},
            state={**state, "update_size": self.update_size, "branch": self.branch, "origin": self.origin},
            class_names=list(self.class_names),
            shapes={name: list(array.shape) for name, array in tensors.items()},
            versions=self.versions,
            config=flat_config(self.config),
        )
        write_manifest(target, manifest)
        self.keep_best(target, epochs)
        self._prune(manifest)
        return target

    def keep_best(self, checkpoint: Path, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Make a checkpoint the best one, if it is the one of the first epoch with the highest top-1."""
        manifest = read_manifest(checkpoint)
        # The record of an epoch belongs to the checkpoint at its end, once it was evaluated.
        is_recorded = manifest.step == manifest.epoch * manifest.steps_per_epoch
        if not is_recorded or best_epoch(epochs) != manifest.epoch:
            return
        best = self.path / BEST
        with replacing(best) as temporary:
            try:
                os.link(checkpoint, temporary)
            except OSError:  # a file system without hard links
                shutil.copyfile(checkpoint, temporary)
        write_manifest(best, manifest.model_copy(update={"file": BEST}))

    def mend_best(self, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Do what a kill right after a checkpoint of the best epoch left undone."""
        for path in committed_checkpoints(self.path)[:1]:
            self.keep_best(path, epochs)

    def _prune(self, newest: Manifest) -> None:
        every = self.config.checkpoint.keep_every
        # Damaged ones of later updates, which this run has not come to again, must not count as the newest.
        done = [path for path in committed_checkpoints(self.path) if _place(read_manifest(path)) <= _place(newest)]
        for old in done[self.config.checkpoint.keep_checkpoint_max :]:
            manifest = read_manifest(old)
            if every and manifest.step % (every * manifest.steps_per_epoch) == 0:
                continue
            # What a kill leaves in between is a small file that says nothing of another one.
            old.unlink()
            manifest_path(old).unlink()

    def _newest_from(self, origin: Path) -> Resumed | None:
        """Where this run has come to, if it went off from this file already: the same command goes on."""
        for path in committed_checkpoints(self.path)[:1]:
            state = read_manifest(path).state
            if state.get("origin") == os.fspath(origin.resolve()):
                return self._newest_verified(state["branch"])
        return None

    def _newest_verified(self, branch: int | None = None) -> Resumed | None:
        """Of one branch, or of all."""
        for path in committed_checkpoints(self.path):
            if branch not in (None, read_manifest(path).state.get("branch", 0)):
                continue
            try:
                return Resumed(path, verified_manifest(path))
            except ModelFileError as error:
                print(f"warning: {error}; trying the one before", file=sys.stderr)
        return None

    def step_of(self, manifest: Manifest) -> int:
        """The updates that are done, where an update may have another size than when the checkpoint was written."""
        before = manifest.state.get("update_size", self.update_size)
        epoch, step_in_epoch = divmod(manifest.step, manifest.steps_per_epoch)
        # Not the whole of an epoch: its last update is done again, and followed by its evaluation.
        step_in_epoch = min(step_in_epoch * before // self.update_size, self.steps_per_epoch - 1)
        step = epoch * self.steps_per_epoch + step_in_epoch
        if before != self.update_size:
            there = f"{self.update_size} images per update in place of {before}"
            print(f"=> going on with {there}: update {manifest.step} of the run is now update {step}")
        return step

    def _require_same_run(self, resumed: Resumed) -> None:
        checkpoint, manifest = resumed
        # Keys that are younger than the checkpoint had no effect then, as by their defaults.
        before, now = flat_config(Config()) | manifest.config, flat_config(self.config)
        free = {key for section in _FREE_SECTIONS for key in type(getattr(self.config, section)).model_fields}
        bound = (now.keys() - free - _FREE_KEYS) | _BOUND_KEYS
        changed = [f"{key} {before.get(key)} -> {now[key]}" for key in sorted(bound) if before.get(key) != now[key]]
        if changed and self.config.checkpoint.resume == "auto":
            rule = (
                f"{checkpoint} belongs to a run with other settings: give them back, choose another --output_dir, "
                f"or go on with new ones by --resume {checkpoint}"
            )
            raise ConfigError("resume", rule, "; ".join(changed))
        for line in changed:
            print(f"warning: going on with another setting: {line}", file=sys.stderr)
        if manifest.class_names != list(self.class_names) or self._num_images_changed(manifest):
            received = f"{len(self.class_names)} classes, {self.steps_per_epoch} updates of {self.update_size} images"
            size = manifest.state.get("update_size", self.update_size)
            known = f"{len(manifest.class_names)} classes, {manifest.steps_per_epoch} updates of {size} images"
            raise ConfigError("data_url", f"holds other data than the run of {checkpoint}", received, known)

    def _num_images_changed(self, manifest: Manifest) -> bool:
        """Whether no number of images gives both numbers of updates."""
        before = manifest.state.get("update_size", self.update_size)
        least = max(self.steps_per_epoch * self.update_size, manifest.steps_per_epoch * before)
        most = min((self.steps_per_epoch + 1) * self.update_size, (manifest.steps_per_epoch + 1) * before)
        return least >= most


def _named(path: Path) -> Resumed:
    """The file that the user names.

    Raises:
        ModelFileError: missing, damaged or not of a run.
    """
    manifest = verified_manifest(path)
    if manifest is None:
        raise ModelFileError(path, f"no {manifest_path(path).name} beside it, so no run to resume: use --pretrained")
    return Resumed(path, manifest)


def _place(manifest: Manifest) -> tuple[int, Fraction]:
    """Branch of a run, and how far it had come: its updates may have had another size than today's."""
    return manifest.state.get("branch", 0), Fraction(manifest.step, manifest.steps_per_epoch)


def best_epoch(epochs: Sequence[Mapping[str, Any]]) -> int | None:
    """The first epoch with the highest top-1, of the moving average where there is one; None before any evaluation."""
    evaluated = [record for record in epochs if record.get("top1") is not None]
    if not evaluated:
        return None
    is_averaged = all(record.get("ema_top1") is not None for record in evaluated)
    return max(evaluated, key=lambda record: record["ema_top1" if is_averaged else "top1"])["epoch"]
