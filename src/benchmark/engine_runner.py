"""What train.py's loop adds to the bare step, and what options of the step cost: ``train --breakdown True``.

The loop and the bare step take turns in one process, on one compiled graph. A step with an option is another graph, so
each has a process, and these take turns.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from src.benchmark.cases import Case, chosen_cases
from src.benchmark.engine_parts import PARTS
from src.benchmark.engine_table import EngineMeasurement, format_engine
from src.benchmark.runner import started
from src.benchmark.settings import BenchmarkConfig
from src.config import load_config
from src.errors import ConfigError
from src.files import write_json
from src.schema import Config

SECONDS_PER_TURN = 4.0
_STEPS_PER_OPTION = 4
_PLAIN = {"amp_level": "O0", "with_ema": False, "clip_global_norm": False}
#: What each option changes of the plain step. On a CPU O2 computes in float32: what is left of it is the loss scale.
OPTIONS = {
    "plain": _PLAIN,
    "loss scale": {**_PLAIN, "amp_level": "O2", "amp_dtype": "float16"},
    "moving average": {**_PLAIN, "with_ema": True},
    "clipping": {**_PLAIN, "clip_global_norm": True, "clip_global_norm_value": 5.0},
}
# Nothing but updates: no evaluation, no checkpoint of its own, no end, no look at whether anything is learnt.
_ENDLESS = {
    **{"do_val": False, "divergence_guard_epochs": 0, "device_num": 1, "pretrained": None},
    **{"epochs": 1_000_000, "start_epoch": 0, "save_every": 1_000_000, "save_steps": 0, "keep_every": 0},
    **{"stop_after": None, "resume": "auto", "output_dir": "."},
}


def benchmark_engine(config: BenchmarkConfig) -> None:
    """Measure the recipe or all cases, print the figures as they come, write them if asked.

    Raises:
        ConfigError: an unknown case, a recipe that cannot be read or whose updates have several batches.
        UserError: a worker ended early.
    """
    cases = [None] if config.config else chosen_cases(config.arch, "timm")
    recipes = [recipe(case, config) for case in cases]
    measured = []
    for case, one in zip(cases, recipes, strict=True):
        measured.append(measure_engine(case.name if case else Path(config.config).stem, one, config))
        print(format_engine(measured[-1]), flush=True)
    if config.json_path is not None:
        settings = {"mode": "train", "breakdown": True, "threads": config.threads, "rounds": config.rounds}
        write_json(Path(config.json_path), {**settings, "cases": [asdict(one) for one in measured]})


def recipe(case: Case | None, config: BenchmarkConfig) -> Config:
    """What train.py would be told: the user's recipe, or a case on noise of its image size.

    Raises:
        ConfigError: every fault of the recipe.
    """
    if case is None:
        argv = ["--config", config.config]
    else:
        flags = dict(arch=case.arch, image_size=case.image_size, num_classes=case.num_classes, set="synthetic")
        flags |= {"batch_size": case.batch_size, "num_parallel_workers": 2, **case.sizes}
        argv = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    if config.batch_size is not None:
        argv += ["--batch_size", str(config.batch_size)]
    # It prints all keys.
    with contextlib.redirect_stdout(io.StringIO()):
        found = load_config("train", argv)
    if found.optim.accumulation_step > 1:
        raise ConfigError("accumulation_step", "must be 1: the bare step has one batch", found.optim.accumulation_step)
    # Workers run in folders of their own.
    return with_keys(found, **_ENDLESS, data_url=str(Path(found.data.data_url).absolute()))


def with_keys(config: Config, **values: Any) -> Config:
    """A configuration with some keys changed."""
    sections = {}
    for name, section in config:
        own = {key: value for key, value in values.items() if key in type(section).model_fields}
        sections[name] = section.model_copy(update=own)
    return Config(**sections)


def measure_engine(name: str, config: Config, settings: BenchmarkConfig) -> EngineMeasurement:
    """One recipe: the loop against the bare step, then the options."""
    with started(sys.executable, "engine_worker", request(config, settings, engine=True)) as worker:
        # The first turns of a process are slow ones.
        worker.run(1)
        answer = worker.run(settings.rounds)
        facts = worker.description
    return summarise_engine(name, facts, answer, settings, option_ratios(config, settings))


def request(config: Config, settings: BenchmarkConfig, *, engine: bool) -> dict[str, Any]:
    """What a worker is told."""
    return {
        "config": config.model_dump(mode="json"),
        "threads": settings.threads,
        "engine": engine,
        "seconds_per_turn": SECONDS_PER_TURN,
    }


def option_ratios(config: Config, settings: BenchmarkConfig) -> dict[str, float]:
    """Time of a step with each option over that of the plain step."""
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, keys in OPTIONS.items():
            told = request(with_keys(config, **keys), settings, engine=False)
            workers[name] = stack.enter_context(started(sys.executable, "engine_worker", told))
            # Compiles.
            workers[name].run(2)
        rounds = [
            {name: statistics.median(worker.run(_STEPS_PER_OPTION)["seconds"]) for name, worker in workers.items()}
            for _ in range(settings.rounds)
        ]
    return {name: statistics.median(one[name] / one["plain"] for one in rounds) for name in OPTIONS if name != "plain"}


def summarise_engine(
    name: str,
    facts: dict[str, Any],
    answer: dict[str, Any],
    settings: BenchmarkConfig,
    options: dict[str, float],
) -> EngineMeasurement:
    """Medians over the rounds, overheads within each; means of the parts, of which some cost much and seldom."""
    rounds = answer["rounds"][-settings.rounds :]

    def median_ms(key: str) -> float:
        return 1e3 * statistics.median(one[key] for one in rounds)

    def overhead(of: str, over: str) -> float:
        return 100 * statistics.median(one[of] / one[over] - 1 for one in rounds)

    return EngineMeasurement(
        case=name,
        arch=facts["arch"],
        batch_size=facts["batch_size"],
        workers=facts["workers"],
        updates=facts["updates"],
        bare_ms=median_ms("bare"),
        engine_ms=median_ms("engine"),
        overhead=overhead("engine", "bare"),
        outside=100 * statistics.median(sum(one["parts"].values()) / one["parts"]["step"] - 1 for one in rounds),
        bare_cpu_ms=median_ms("bare_cpu"),
        engine_cpu_ms=median_ms("engine_cpu"),
        cpu_overhead=overhead("engine_cpu", "bare_cpu"),
        worker_cpu_ms=None if answer["worker_cpu"] is None else 1e3 * answer["worker_cpu"],
        spread=100 * spread([one["bare"] for one in rounds]),
        load_average=facts["load_average"],
        parts_ms={part: 1e3 * statistics.fmean(one["parts"][part] for one in rounds) for part in PARTS},
        checkpoint_ms=median_ms("checkpoint"),
        steps_per_epoch=facts["steps_per_epoch"],
        options=options,
        rounds=rounds,
        versions=facts["versions"],
    )


def spread(values: list[float]) -> float:
    """Distance of the quartiles over the median; 0 of a single value."""
    if len(values) == 1:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / middle
