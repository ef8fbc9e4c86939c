"""What train.py does: look at the images, train or only check, then export, verify and report, where that is wanted."""

from __future__ import annotations

import sys

from src.data.check import CheckConfig, check, look_through
from src.device import rank
from src.errors import ConfigError
from src.report.content import content_of, content_of_run
from src.report.delivery import deliver
from src.report.page import write_report
from src.schema import Config
from src.trainers.checkpoints import BEST
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
    if wanted.verified_export and not config.run.do_val:
        raise ConfigError("verified_export", "compares on the images of val, which needs do_val", False, "True")
    if wanted.check_images != "none" and rank() == 0:
        _check_images(config)
    if config.run.dry_run:
        dry_run(config)
        return
    trained = train_to_end(config)
    if rank() != 0:
        return
    if wanted.verified_export:
        deliver(trained.config, trained.folder / BEST)
    if wanted.report:
        _write_report(trained)
    if sys.stdout.isatty():
        print("\n".join(next_commands(trained.folder, trained.config.model.arch)))


def _check_images(config: Config) -> None:
    """What preprocess.py --check says of the images that this run will see.

    Raises:
        DataError: nothing to look at; with ``strict`` any finding.
    """
    data = config.data
    if data.set in ("digits", "synthetic"):
        rule = f"looks at images of your own, leave it out with the set {data.set}"
        raise ConfigError("check_images", rule, config.pipeline.check_images, "none")
    seen = CheckConfig(
        check=data.data_url,
        set=data.set,
        num_classes=with_class_count(config, new_head=True).model.num_classes,
        num_parallel_workers=data.num_parallel_workers,
        val_fraction=data.val_fraction,
    )
    if config.pipeline.check_images == "strict":
        check(seen)
        return
    findings = look_through(seen).findings
    if findings:
        print(f"warning: {sum(map(len, findings.values()))} findings in {data.data_url}, listed above", file=sys.stderr)


def _write_report(trained: Trained) -> None:
    target, best = trained.folder / REPORT, trained.best
    write_report(target, content_of_run(trained.config, trained.folder) if best is None else content_of(best))
    print(f"=> report in {target}")
