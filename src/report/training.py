"""What train.py does: train, or only check; then the report that was asked for, and on a terminal what to do next."""

from __future__ import annotations

import sys

from src.device import rank
from src.report.content import content_of, content_of_run
from src.report.page import write_report
from src.schema import Config
from src.trainers.dry_run import dry_run
from src.trainers.plan import next_commands
from src.trainers.trainer import train_to_end

REPORT = "report.html"


def train_and_report(config: Config) -> None:
    """Train to the end, or with ``dry_run`` do everything that comes before.

    Raises:
        UserError: as `train_to_end`.
        KeyboardInterrupt: a signal, or ``stop_after``; the state is saved.
    """
    if config.run.dry_run:
        dry_run(config)
        return
    trained = train_to_end(config)
    if rank() != 0:
        return
    if config.run.report:
        target = trained.folder / REPORT
        best = trained.best
        write_report(target, content_of_run(trained.config, trained.folder) if best is None else content_of(best))
        print(f"=> report in {target}")
    if sys.stdout.isatty():
        print("\n".join(next_commands(trained.folder, trained.config.model.arch)))
