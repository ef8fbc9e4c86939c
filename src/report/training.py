"""What train.py does: train, then write the report that was asked for."""

from __future__ import annotations

from src.device import rank
from src.report.content import content_of, content_of_run
from src.report.page import write_report
from src.schema import Config
from src.trainers.trainer import train_to_end

REPORT = "report.html"


def train_and_report(config: Config) -> None:
    """Train to the end.

    Raises:
        UserError: as `train_to_end`.
        KeyboardInterrupt: a signal, or ``stop_after``; the state is saved.
    """
    trained = train_to_end(config)
    if rank() != 0:
        return
    if config.run.report:
        target = trained.folder / REPORT
        best = trained.best
        write_report(target, content_of_run(trained.config, trained.folder) if best is None else content_of(best))
        print(f"=> report in {target}")
