"""The run directory: checkpoints that are whole or not there, the best one, and the history of the run.

    ckpt_0/config.yaml              the resolved configuration, with versions
    ckpt_0/ARCH0-EPOCH_STEP.ckpt    weights and optimizer state; STEP counts inside the epoch, as in the zoo
    ckpt_0/ARCH0-EPOCH_STEP.json    written last: the mark that the checkpoint is complete
    ckpt_0/best.ckpt, best.json     the epoch with the highest top-1
    ckpt_0/metrics.jsonl            one line per epoch

A killed run leaves the newest complete checkpoint in place; nothing is removed before its successor is complete.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
_FREE_SECTIONS = ("checkpoint", "export", "verify", "run")
_FREE_KEYS = {"data_url", "num_parallel_workers", "pretrained", "reset_head"}
_BOUND_KEYS = {"seed", "device_target"}


def committed_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a run directory with a manifest, the newest first."""
    found = []
    for path in folder.glob("*.ckpt"):
        manifest = read_manifest(path) if path.name != BEST else None
        if manifest is not None:
            found.append((manifest.step, path))
    return [path for _, path in sorted(found, reverse=True)]


class RunFolder:
    """One run's directory; the caller holds its lock.

    Args:
        path: the directory.
        config: resolved configuration of the run.
        class_names: of the data set, in the order of the labels.
        steps_per_epoch: optimizer steps.
    """

    def __init__(self, path: Path, config: Config, class_names: tuple[str, ...], steps_per_epoch: int):
        self.path, self.config, self.class_names, self.steps_per_epoch = path, config, class_names, steps_per_epoch
        self.history: list[dict[str, Any]] = []
        self.versions = versions()

    def find_resume(self) -> Path | None:
        """The checkpoint to go on from, by the key ``resume``; None to start anew.

        Raises:
            ConfigError: ``none`` where a run exists, or settings other than the run's.
            ModelFileError: the checkpoint that was asked for is missing, damaged or not of a run.
        """
        sweep_temporaries(self.path)
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
            found = Path(choice)
            if verified_manifest(found) is None:
                raise ModelFileError(
                    found, f"no {manifest_path(found).name} beside it, so no run to resume: use --pretrained"
                )
        if found is not None:
            self._require_same_run(found)
        return found

    def begin(self, resumed: Path | None) -> int:
        """Write the configuration, cut the history back to the resumed epoch; returns the epochs that are done."""
        header = "".join(f"# {name} {version}\n" for name, version in self.versions.items())
        write_text(self.path / "config.yaml", header + dump_config(self.config))
        if resumed is None:
            return 0
        manifest = verified_manifest(resumed)
        self.history = [line for line in self._read_history() if line["epoch"] <= manifest.epoch]
        self._write_history()
        if self.best_epoch() == manifest.epoch:
            self._keep_best(resumed, manifest)
        return manifest.epoch

    def best_epoch(self) -> int | None:
        """The first epoch with the highest top-1; None before any evaluation."""
        evaluated = [line for line in self.history if "top1" in line]
        return max(evaluated, key=lambda line: line["top1"])["epoch"] if evaluated else None

    def record(self, line: dict[str, Any]) -> None:
        """Add an epoch to the history."""
        self.history.append(line)
        self._write_history()

    def save(self, tensors: Mapping[str, np.ndarray], epoch: int) -> Path:
        """Commit a checkpoint of the epoch that was recorded last, then drop what is older than wanted.

        Raises:
            NumbersError: a tensor that is not finite; nothing is written.
        """
        broken = [name for name, array in tensors.items() if not np.isfinite(array).all()]
        if broken:
            raise NumbersError("weights", "not finite, the last checkpoint is kept", ", ".join(broken[:3]))
        arch = self.config.model.arch
        target = self.path / f"{arch}{self.path.name.rpartition('_')[2]}-{epoch}_{self.steps_per_epoch}.ckpt"
        write_ckpt(target, tensors)
        manifest = Manifest(
            file=target.name,
            bytes=target.stat().st_size,
            sha256=sha256(target),
            arch=arch,
            epoch=epoch,
            step=epoch * self.steps_per_epoch,
            steps_per_epoch=self.steps_per_epoch,
            metrics=self.history[-1],
            class_names=list(self.class_names),
            shapes={name: list(array.shape) for name, array in tensors.items()},
            versions=self.versions,
            config=flat_config(self.config),
        )
        write_manifest(target, manifest)
        if self.best_epoch() == epoch:
            self._keep_best(target, manifest)
        for old in committed_checkpoints(self.path)[self.config.checkpoint.keep_checkpoint_max :]:
            # Without its mark first: what a kill leaves half-removed does not count as a checkpoint.
            manifest_path(old).unlink()
            old.unlink()
        return target

    def _newest_verified(self) -> Path | None:
        for path in committed_checkpoints(self.path):
            try:
                verified_manifest(path)
            except ModelFileError as error:
                print(f"warning: {error}; trying the one before", file=sys.stderr)
            else:
                return path
        return None

    def _require_same_run(self, checkpoint: Path) -> None:
        manifest = verified_manifest(checkpoint)
        before, now = manifest.config, flat_config(self.config)
        free = {key for section in _FREE_SECTIONS for key in type(getattr(self.config, section)).model_fields}
        bound = (now.keys() - free - _FREE_KEYS) | _BOUND_KEYS
        changed = [f"{key} {before.get(key)} -> {now[key]}" for key in sorted(bound) if before.get(key) != now[key]]
        if changed:
            rule = f"{checkpoint} belongs to a run with other settings: give them back, or choose another --output_dir"
            raise ConfigError("resume", rule, "; ".join(changed))
        if manifest.class_names != list(self.class_names) or manifest.steps_per_epoch != self.steps_per_epoch:
            received = f"{len(self.class_names)} classes, {self.steps_per_epoch} steps per epoch"
            known = f"{len(manifest.class_names)} classes, {manifest.steps_per_epoch} steps per epoch"
            raise ConfigError("data_url", f"holds other data than the run of {checkpoint}", received, known)

    def _keep_best(self, checkpoint: Path, manifest: Manifest) -> None:
        best = self.path / BEST
        with replacing(best) as temporary:
            try:
                os.link(checkpoint, temporary)
            except OSError:  # a file system without hard links
                shutil.copyfile(checkpoint, temporary)
        write_manifest(best, manifest.model_copy(update={"file": BEST}))

    def _read_history(self) -> list[dict[str, Any]]:
        try:
            return [json.loads(line) for line in (self.path / "metrics.jsonl").read_text().splitlines()]
        except (FileNotFoundError, ValueError):
            return []

    def _write_history(self) -> None:
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in self.history))
