"""The engine's overhead: a whole run on a tiny recipe, the parts of an update, and the summary of the rounds."""

import dataclasses
import json
import multiprocessing
import time
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from src.benchmark import engine_runner
from src.benchmark.cases import CASES
from src.benchmark.engine_parts import PARTS, Stopwatch, TimedLoop
from src.benchmark.engine_runner import benchmark_engine, option_ratios, recipe, spread, summarise_engine, with_keys
from src.benchmark.engine_table import format_engine
from src.benchmark.serving import children_cpu_seconds
from src.benchmark.settings import BenchmarkConfig, read_command_line
from src.errors import ConfigError
from tests.small_run import SIZES, write_images


@pytest.fixture
def settings(tmp_path):
    """Of a recipe in a YAML, with its images."""
    keys = {**SIZES, "set": "folder", "data_url": str(write_images(tmp_path / "images"))}
    keys |= {"batch_size": 4, "num_parallel_workers": 1, "save_steps": 1, "stop_after": 1}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(keys), encoding="utf-8")
    return BenchmarkConfig(breakdown=True, config=str(path), rounds=2, json_path=str(tmp_path / "figures.json"))


def test_a_whole_run(settings, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(engine_runner, "SECONDS_PER_TURN", 0.01)
    monkeypatch.setattr(engine_runner, "option_ratios", lambda config, settings: {"clipping": 1.0})
    benchmark_engine(settings)
    header, line, parts, checkpoint, options = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["train,", "ms", "per", "update"]
    assert line.split()[:3] == ["tiny", "4", "1"]
    assert [name for name in PARTS if name in parts] == list(PARTS)
    assert "3 updates per epoch" in checkpoint
    assert options.endswith("clipping 1.00")
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    (one,) = figures["cases"]
    assert (figures["mode"], figures["breakdown"], figures["rounds"], len(one["rounds"])) == ("train", True, 2, 2)
    for turn in one["rounds"]:
        # A checkpoint has its own figure: no turn saves, although the recipe says so.
        assert sum(turn["parts"].values()) == pytest.approx(turn["engine"], rel=0.2)
        assert min(turn["bare"], turn["parts"]["step"], turn["checkpoint"]) > 0


def test_options_are_measured_against_the_plain_step(settings, monkeypatch):
    sent = []

    class Stand:
        def __init__(self, told):
            self.seconds = 2.0 if told["config"]["optim"]["with_ema"] else 1.0
            sent.append(told["config"])

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def run(self, steps):
            return {"seconds": [self.seconds] * steps}

    monkeypatch.setattr(engine_runner, "started", lambda python, module, told: Stand(told))
    ratios = option_ratios(recipe(None, settings), settings)
    assert ratios == {"loss scale": 1.0, "moving average": 2.0, "clipping": 1.0}
    chosen = [
        (one["precision"]["amp_level"], one["optim"]["with_ema"], one["optim"]["clip_global_norm"]) for one in sent
    ]
    assert chosen == [("O0", False, False), ("O2", False, False), ("O0", True, False), ("O0", False, True)]


def test_parts_add_up_and_the_rest_is_what_is_left():
    def step(*arrays):
        time.sleep(2e-3)
        return [SimpleNamespace(asnumpy=float)]

    @dataclasses.dataclass(frozen=True)
    class Stand:
        updates: object

    class Updates:
        whole = staticmethod(step)

        def __call__(self, batches):
            for batch in batches:
                self.whole(*batch)

    loop = TimedLoop(Stand(Updates()))
    run = SimpleNamespace(
        next_batches=lambda: iter([(1, 2), (3, 4)]),
        log=SimpleNamespace(step=lambda: time.sleep(1e-3), epoch=lambda: None),
        guards=SimpleNamespace(check=lambda: None),
        scale=SimpleNamespace(update=lambda: None),
        reader=SimpleNamespace(waited=5.0),
    )
    loop.begin(run)
    started = time.perf_counter()
    loop.trainer.updates(run.next_batches())
    run.log.step()
    parts = loop.parts()
    assert tuple(parts) == PARTS
    assert parts["data wait"] == 0
    assert parts["step"] >= 4e-3
    assert parts["log and guards"] >= 1e-3
    assert sum(parts.values()) <= time.perf_counter() - started
    loop.restart()
    assert loop.parts()["step"] == 0


def test_a_timed_function_counts_when_it_fails_too():
    watch = Stopwatch()
    with pytest.raises(ZeroDivisionError):
        watch.timed("division", lambda: 1 / 0)()
    assert watch.seconds["division"] > 0


def figures(bare: float, engine: float) -> dict:
    parts = dict.fromkeys(PARTS, 0.0) | {"step": 0.8 * engine, "rest": 0.2 * engine}
    return {
        **{"bare": bare, "engine": engine, "bare_cpu": 2 * bare, "engine_cpu": 2 * bare},
        **{"parts": parts, "checkpoint": 0.1},
    }


def test_overhead_is_the_median_of_the_rounds_overheads():
    facts = dict(
        arch="a", batch_size=8, workers=2, updates=5, steps_per_epoch=20, load_average=0.5, versions={"python": "3"}
    )
    # The first round is not one of the three; a machine that slows down slows both.
    rounds = [figures(1.0, 9.0), figures(0.10, 0.11), figures(0.20, 0.21), figures(0.10, 0.14)]
    settings = BenchmarkConfig(rounds=3)
    one = summarise_engine("name", facts, {"rounds": rounds, "worker_cpu": None}, settings, {"clipping": 1.1})
    assert one.overhead == pytest.approx(10.0)
    assert one.outside == pytest.approx(25.0)
    assert (one.bare_ms, one.engine_ms, one.cpu_overhead) == pytest.approx((100.0, 140.0, 0.0))
    assert one.parts_ms["rest"] == pytest.approx(1e3 * 0.2 * (0.11 + 0.21 + 0.14) / 3)
    assert one.checkpoint_per_update_ms == pytest.approx(5.0)
    assert one.spread == pytest.approx(50.0)
    header, line, *_ = format_engine(one).splitlines()
    assert len(header) == len(line)
    assert line.split()[-2:] == ["-", "50.0"]
    assert spread([1.0]) == 0.0


def test_a_case_becomes_a_recipe_on_noise():
    case = CASES["vit_d128_l4_patch4_32"]
    found = recipe(case, BenchmarkConfig(batch_size=3))
    assert (found.model.arch, found.model.embed_dim, found.model.image_size) == (case.arch, 128, 32)
    assert (found.data.set, found.data.batch_size) == ("synthetic", 3)
    assert (found.run.do_val, found.checkpoint.save_steps, found.checkpoint.stop_after) == (False, 0, None)


def test_updates_of_several_batches_are_refused(settings, tmp_path):
    with open(settings.config, "a", encoding="utf-8") as file:
        file.write("accumulation_step: 2\n")
    with pytest.raises(ConfigError, match=r"accumulation_step: must be 1: the bare step has one batch. Received: 2"):
        recipe(None, settings)


def test_only_keys_that_are_given_change(settings):
    found = recipe(None, settings)
    assert with_keys(found) == found
    assert with_keys(found, with_ema=True).optim == found.optim.model_copy(update={"with_ema": True})


def test_flags():
    mode, config = read_command_line(["train", "--breakdown", "True", "--config", "a.yaml"])
    assert (mode, config.breakdown, config.config) == ("train", True, "a.yaml")
    with pytest.raises(ConfigError, match=r"--breakdown: is of train alone. Received: infer"):
        read_command_line(["infer", "--breakdown", "True"])
    with pytest.raises(ConfigError, match=r"--config: needs --breakdown True. Received: a.yaml"):
        read_command_line(["train", "--config", "a.yaml"])


def test_processor_time_of_children():
    assert children_cpu_seconds() in (0, None) or multiprocessing.active_children()
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(30,))
    child.start()
    try:
        seconds = children_cpu_seconds()
        assert seconds is None or np.isfinite(seconds)
    finally:
        child.kill()
        child.join()
