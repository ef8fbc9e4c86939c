"""train.py --dry_run: everything that a run would check, and its plan; nothing is trained and nothing written."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from src.data.workers import new_arrays
from src.device import rank
from src.errors import ConfigError
from src.schema import Config
from src.trainers.checkpoints import Resumed
from src.trainers.plan import print_plan, summary_lines
from src.trainers.schedules import run_epochs
from src.trainers.trainer import folder_of, open_run, put_weights


def dry_run(config: Config) -> None:
    """Do what comes before the first update: data, one batch of each split, network, weights to begin with.

    Raises:
        UserError: whatever would end the run before its first update.
    """
    with _without_new_data(config) as config:
        trainer, path = open_run(config)
        for batches in filter(None, (trainer.train_batches, trainer.val_batches)):
            batches.fill(0, new_arrays(batches.layout))
        if rank() == 0:
            _require_writable(path)
            folder = folder_of(trainer, path)
            found = folder.find_resume()
            put_weights(trainer, found)
            first = run_epochs(config.schedule).start * trainer.steps_per_epoch
            print_plan(trainer, max(first, folder.step_of(found.manifest) if found else 0))
            print("\n".join(summary_lines(trainer, path, _begin(config, found))))
    print("=> dry run: nothing was trained or written")


def _begin(config: Config, found: Resumed | None) -> str:
    if found is not None:
        return f"going on after update {found.manifest.step:,} of {found.path}"
    return f"starting with {config.model.pretrained}" if config.model.pretrained else "from the beginning"


@contextlib.contextmanager
def _without_new_data(config: Config) -> Iterator[Config]:
    """The configuration; the built-in images, which a run would write, go to a folder that vanishes."""
    if config.data.set != "digits" or Path(config.data.data_url).exists():
        yield config
        return
    with tempfile.TemporaryDirectory() as folder:
        data = config.data.model_copy(update={"data_url": str(Path(folder) / "digits")})
        yield config.model_copy(update={"data": data})


def _require_writable(path: Path) -> None:
    existing = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise ConfigError("output_dir", f"cannot be written, {existing} is no folder that allows it", path)
