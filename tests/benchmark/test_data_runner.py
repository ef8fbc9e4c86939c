"""Input pipelines in turns: this project's own, decoding alone, and a stand-in for timm."""

import ast
import json
import pickle
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from src.benchmark import data_runner
from src.benchmark.data_cases import DATA_CASES, chosen_data_cases
from src.benchmark.data_images import HEIGHT, WIDTH, ArrayImages, jpeg_labels, jpeg_paths, write_arrays, write_jpegs
from src.benchmark.data_runner import benchmark_data, check_same_batches, summarise_pipeline
from src.benchmark.own_pipelines import KIND, OwnEpochs, build_own
from src.benchmark.serving import EpochTimer
from src.benchmark.settings import DataBenchmarkConfig, read_command_line
from src.benchmark.table import format_table
from src.data.image_source import ImageList
from src.data.workers import BatchReader
from src.errors import ConfigError, NumbersError
from tests.benchmark.stand_in import stand_in
from tests.oracles import PROJECT

TINY = {
    "imagenet_train": replace(DATA_CASES["imagenet_train"], num_images=5, batch_size=2, image_size=8, num_classes=10),
    "imagenet_eval": replace(DATA_CASES["imagenet_eval"], num_images=5, batch_size=2, image_size=8),
    "cifar_train": replace(DATA_CASES["cifar_train"], num_images=7, batch_size=3, image_size=8),
}
IMAGES = {"imagenet_train": 4, "imagenet_eval": 5, "cifar_train": 6}

# Answers as src.benchmark.peer_data_worker does.
_PEER = """\
class Batch(list):
    shape = request["batch_size"], 3, request["image_size"], request["image_size"]
    reshape = lambda self, _: [types.SimpleNamespace(item=float)]
timer = EpochTimer([(Batch(), {images})])
serve(answers, timer.run, dict(name="stand-in", versions=dict()), timer.report)
"""


def peer(folder: Path, images: int) -> str:
    """A peer that reads so many images."""
    return stand_in(folder, _PEER.format(images=images))


@pytest.fixture
def tiny_cases(monkeypatch):
    monkeypatch.setattr(data_runner, "chosen_data_cases", lambda names, peer: [TINY[name] for name in names.split(",")])
    monkeypatch.setattr(data_runner, "find_peer_python", lambda given: given)


@pytest.fixture
def request_of(tmp_path):
    def make(name: str, formulation: str = "own") -> dict:
        case, folder = TINY[name], tmp_path / name
        folder.mkdir()
        if case.is_jpeg:
            write_jpegs(folder, case.num_images)
        else:
            write_arrays(folder, case.num_images, case.image_size)
        return {**asdict(case), "workers": 1, "folder": str(folder), "formulation": formulation}

    return make


# ---------------------------------------------------------------------------------------------------------------------
# Whole runs


def test_decoding_alone_against_a_whole_pipeline(tiny_cases, tmp_path, monkeypatch, capsys):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    json_path = tmp_path / "figures.json"
    benchmark_data(
        DataBenchmarkConfig(arch="imagenet_eval", peer="decode", workers=1, rounds=2, json_path=str(json_path))
    )
    header, line = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["data", "batch", "workers"]
    assert line.startswith("imagenet_eval ")
    assert line.endswith("  decoding alone")
    figures = json.loads(json_path.read_text(encoding="utf-8"))
    (one,) = figures["cases"]
    assert (figures["mode"], figures["workers"], figures["rounds"], one["workers"]) == ("data", 1, 2, 1)
    assert one["own_images_per_second"] > 0
    assert one["peer_images_per_second"] > 0
    assert one["own_first_ms"] > 0
    assert not list((tmp_path / "temporary").iterdir()), "the images are still there"


def test_a_whole_run_with_arrays(tiny_cases, tmp_path, capsys):
    python = peer(tmp_path, IMAGES["cifar_train"])
    benchmark_data(DataBenchmarkConfig(arch="cifar_train", peer_python=python, workers=1, rounds=1))
    assert capsys.readouterr().out.splitlines()[1].endswith("  stand-in")


def test_a_peer_that_reads_fewer_images_is_refused(tiny_cases, tmp_path):
    python = peer(tmp_path, 5)
    with pytest.raises(NumbersError, match=r"cifar_train: both sides must read .*Received: \(6, .*here, \(5, "):
        benchmark_data(DataBenchmarkConfig(arch="cifar_train", peer_python=python, workers=1, rounds=1))


# ---------------------------------------------------------------------------------------------------------------------
# What is measured


@pytest.mark.parametrize("name", TINY)
def test_an_epoch_of_ours(name, request_of):
    with BatchReader({KIND: build_own(request_of(name))}, 0) as reader:
        timer = EpochTimer(OwnEpochs(reader))
        timer.run()
        report = timer.report()
    assert report["images"] == IMAGES[name]
    assert report["shape"] == (TINY[name].batch_size, 3, 8, 8)
    assert report["first_batch_seconds"] > 0


def test_training_epochs_differ_and_evaluation_is_the_same_again(request_of):
    for name, same in (("cifar_train", False), ("imagenet_eval", True)):
        epochs = OwnEpochs(BatchReader({KIND: build_own(request_of(name))}, 0))
        first, second = ([batch.copy() for batch, _ in epochs] for _ in range(2))
        assert np.array_equal(first, second) == same


@pytest.mark.parametrize(("name", "images"), [("imagenet_train", 4), ("imagenet_eval", 5)])
def test_decoding_reads_as_many_images_as_the_case_and_not_more(name, images, request_of, monkeypatch):
    read = []
    batches = build_own(request_of(name, "decode"))
    monkeypatch.setattr(ImageList, "read", lambda self, index: read.append(index))
    assert sum(count for _, count in OwnEpochs(BatchReader({KIND: batches}, 0))) == images
    assert read == list(range(images))


def test_nothing_is_read_ahead_of_an_epoch(request_of, monkeypatch):
    batches, asked = build_own(request_of("imagenet_eval")), []
    with BatchReader({KIND: batches}, 1) as reader:
        submit = reader._pool.submit
        monkeypatch.setattr(reader._pool, "submit", lambda *work: (asked.append(work), submit(*work))[1])
        for epoch in (1, 2):
            assert sum(count for _, count in OwnEpochs(reader)) == 5
            assert len(asked) == epoch * len(batches)


def test_cases_have_the_settings_of_the_recipes(request_of):
    train, evaluate = build_own(request_of("imagenet_train")), build_own(request_of("imagenet_eval"))
    assert (train.mixup.mixup_alpha, train.mixup.cutmix_alpha, train.mixup.label_smoothing) == (0.8, 1.0, 0.1)
    assert (train.transform.erasing.prob, train.transform.erasing.mode) == (0.25, "pixel")
    assert train.transform.policy.layers == 2
    assert replace(evaluate.transform, image_size=224).resize_size == 248
    cifar = build_own(request_of("cifar_train"))
    assert (cifar.transform.train_crop, cifar.transform.crop_padding, cifar.mixup.mixes) == ("pad", 4, False)


# ---------------------------------------------------------------------------------------------------------------------
# Images


def test_generated_files_have_the_size_of_photographs(tmp_path):
    write_jpegs(tmp_path, 20)
    paths = jpeg_paths(20)
    sizes = [(tmp_path / path).stat().st_size for path in paths]
    assert sum(sizes) / 20 == pytest.approx(95e3, rel=0.1)
    source = ImageList(tmp_path, paths, jpeg_labels(20), tuple(map(str, range(10))))
    assert source.read(19).size == (WIDTH, HEIGHT)
    # As a folder of class folders is read in sorted order.
    assert paths == sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jpg"))
    assert jpeg_labels(20) == [int(path.split("/")[0].removeprefix("class_")) for path in paths]


def test_arrays_travel_without_their_pixels(tmp_path):
    write_arrays(tmp_path, 50, 32)
    source = ArrayImages(tmp_path, 10)
    stored = pickle.dumps(source)
    assert len(stored) < 1000
    again = pickle.loads(stored)
    assert len(again) == 50
    assert list(again.labels[:11]) == [*range(10), 0]
    assert again.read(49).tobytes() == source.read(49).tobytes() != source.read(48).tobytes()


# ---------------------------------------------------------------------------------------------------------------------
# Settings and table


def test_mode_and_flags():
    mode, config = read_command_line(["data", "--arch", "cifar_train", "--workers", "1", "--peer", "decode"])
    assert (mode, config.arch, config.workers, config.peer, config.rounds) == ("data", "cifar_train", 1, "decode", 5)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["data", "--workers", "0"], "--workers: must be greater than or equal to 1. Received: 0"),
        (["data", "--threads", "2"], "--threads: no such flag"),
        (["data", "--peer", "zoo"], "--peer: not one of the choices. Received: zoo. Known: timm, decode"),
        (["infer", "--workers", "2"], "--workers: no such flag"),
    ],
)
def test_command_lines_that_are_refused(argv, message):
    with pytest.raises(ConfigError, match=message):
        read_command_line(argv)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (dict(arch="imagenet_test"), "--arch: no such case for data --peer timm. Received: imagenet_test. Known: all"),
        (dict(arch="cifar_train", peer="decode"), "--arch: no such case for data --peer decode"),
        (dict(arch="imagenet_train", batch_size=7), "--batch_size: must be even for imagenet_train"),
        (dict(arch="cifar_train", batch_size=10_001), "--batch_size: must be at most the 10000 images of cifar_train"),
    ],
)
def test_settings_that_no_case_has(flags, message):
    with pytest.raises(ConfigError, match=message):
        benchmark_data(DataBenchmarkConfig(**flags))


def test_cases_by_name():
    assert [case.name for case in chosen_data_cases("all", "timm")] == list(DATA_CASES)
    assert [case.name for case in chosen_data_cases("all", "decode")] == ["imagenet_train", "imagenet_eval"]


def answer(seconds: float, first: float, worker_mb: float | None) -> dict:
    return {
        "images": 100,
        "shape": [2, 3, 8, 8],
        "seconds": [seconds],
        "first_batch_seconds": first,
        "worker_mb": worker_mb,
    }


def test_table_has_the_median_of_the_rounds_ratios():
    rounds = [
        [answer(1.0, 0.1, 50.0), answer(2.0, 0.3, 400.0)],
        [answer(2.0, 0.3, 50.0), answer(3.0, 0.4, 400.0)],
        [answer(1.0, 0.2, 60.4), answer(4.0, 0.5, None)],
    ]
    one = summarise_pipeline(DATA_CASES["cifar_train"], 128, 2, rounds, "timm 1", {})
    header, line = format_table("data", [one]).splitlines()
    # 2.0, 1.5 and 4.0, not the ratio of the medians.
    assert line.split() == ["cifar_train", "128", "2", "100", "33", "2.00", "200", "400", "60", "-", "timm", "1"]
    assert header.rindex("  peer") == line.index("  timm 1")


def test_batches_of_another_shape_are_not_compared():
    ours, theirs = answer(1.0, 0.1, None), {**answer(1.0, 0.1, None), "shape": [2]}
    check_same_batches(DATA_CASES["cifar_train"], ours, theirs, only_count=True)
    with pytest.raises(NumbersError, match="batches of the same shape"):
        check_same_batches(DATA_CASES["cifar_train"], ours, theirs, only_count=False)


@pytest.mark.parametrize("name", ["peer_data_worker", "peer_pipelines", "serving"])
def test_the_peers_process_needs_nothing_of_ours(name):
    tree = ast.parse((PROJECT / "src" / "benchmark" / f"{name}.py").read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    own = {module for module in imported if module.split(".")[0] == "src"}
    assert own <= {"src.benchmark.serving", "src.benchmark.peer_pipelines"}
    installed = {"torch", "torchvision", "timm", "numpy", "PIL"}
    assert {module.split(".")[0] for module in imported - own} <= installed | sys.stdlib_module_names
