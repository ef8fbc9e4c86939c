"""What train.py does: look at the images, train or only check, then export, verify and report, where that is wanted."""

from __future__ import annotations

import sys
from pathlib import Path

from src.data.check import CheckConfig, check, look_through
from src.device import num_ranks, rank
from src.errors import ConfigError, ModelFileError
from src.models import resolved
from src.report.content import content_of, content_of_run
from src.report.delivery import deliver, require_deliverable
from src.report.page import write_report
from src.schema import Config
from src.trainers.checkpoints import BEST, committed_checkpoints
from src.trainers.dry_run import dry_run
from src.trainers.plan import next_commands
from src.trainers.trainer import Trained, train_to_end
from src.weights.class_count import with_class_count

REPORT = "report.html"


def train_and_report(config: Config) -> None:
    """Train to the end, or with ``dry_run`` do everything that comes before.

    Raises:
        UserError: as `train_to_end` and `deliver`.
        KeyboardInterrupt: a signal, or ``stop_after``; the state is saved.
    """
    wanted = config.pipeline
    if wanted.verified_export:
        require_deliverable(config)
    if wanted.check_images != "none":
        _check_images(config)
    if config.run.dry_run:
        dry_run(config)
        return
    trained = train_to_end(config)
    if rank() != 0:
        return
    try:
        if wanted.verified_export:
            deliver(trained.config, trained.folder / BEST)
    finally:
        # It shows what the backends gave, above all where they differ.
        if wanted.report:
            _write_report(trained)
    if sys.stdout.isatty():
        print("\n".join(next_commands(trained.folder, trained.config)))


def _check_images(config: Config) -> None:
    """What preprocess.py --check says of the images that this run will see; once, before its first checkpoint.

    Raises:
        ConfigError: no images of the user's own, or several ranks, of which one would look and the others wait.
        ModelFileError: weights to start from that are not there.
        DataError: nothing to look at; with ``strict`` any finding.
    """
    data, wanted, pretrained = config.data, config.pipeline.check_images, config.model.pretrained
    if data.set in ("digits", "synthetic"):
        rule = f"looks at images of your own, leave it out with the set {data.set}"
        raise ConfigError("check_images", rule, wanted, "none")
    if num_ranks() > 1:
        raise ConfigError("check_images", "is for one process: preprocess.py --check looks at images", wanted, "none")
    if pretrained is not None and not Path(pretrained).is_file():
        # Said now, and not after an hour of decoding.
        raise ModelFileError(pretrained, "no such file")
    if config.checkpoint.resume == "auto" and committed_checkpoints(Path(config.checkpoint.output_dir) / "ckpt_0"):
        print("=> images were looked at when the run began")
        return
    seen = CheckConfig(
        check=data.data_url,
        set=data.set,
        num_classes=resolved(with_class_count(config, by_weights=False, by_images=True)).model.num_classes,
        num_parallel_workers=data.num_parallel_workers,
        val_fraction=data.val_fraction,
    )
    if wanted == "strict":
        check(seen, "data_url")
        return
    findings = look_through(seen, "data_url").findings
    if findings:
        print(f"warning: {sum(map(len, findings.values()))} findings in {data.data_url}, listed above", file=sys.stderr)


def _write_report(trained: Trained) -> None:
    target, best = trained.folder / REPORT, trained.best
    write_report(target, content_of_run(trained.config, trained.folder) if best is None else content_of(best))
    print(f"=> report in {target}")
