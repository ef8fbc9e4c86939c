"""A log with made-up updates."""

import os
import subprocess
import sys
from pathlib import Path

from src.schema import Config
from src.trainers.run_log import RunLog
from src.trainers.step_record import StepRecord
from tests.oracles import PROJECT

STEPS_PER_EPOCH = 7
FOLDER = Path("ckpt_0")


def configured(log_every: int = 3, epochs: int = 3) -> Config:
    return Config.model_validate({"run": {"log_every": log_every}, "schedule": {"epochs": epochs}})


def update(step: int, **numbers: object) -> StepRecord:
    """An update whose numbers follow from its step."""
    values = dict(loss=3 / step, lr=step / 1000, grad_norm=1.5, images=4, seconds=0.5, data_wait=0.05)
    return StepRecord(step=step, epoch=(step - 1) // STEPS_PER_EPOCH + 1, **{**values, **numbers})


def log_steps(log: RunLog, first: int, last: int, **numbers: object) -> None:
    """Updates of these steps, counted from 1, with an evaluation and a record after every epoch."""
    for step in range(first, last + 1):
        log.step(update(step, **numbers))
        if step % STEPS_PER_EPOCH == 0:
            log.evaluation({"val_loss": 1.0, "top1": 1 - 1 / step, "top5": 1.0, "val_images": 10})
            log.epoch()


def open_log(**arguments: object) -> RunLog:
    return RunLog(FOLDER, arguments.pop("config", configured()), STEPS_PER_EPOCH, **arguments)


def child(program: str, *arguments: object, **options: object) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], env=environment, **options)
