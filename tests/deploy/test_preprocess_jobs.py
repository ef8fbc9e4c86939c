"""preprocess.py: which job a command line is for, and which of them need MindSpore."""

from pathlib import Path

import pytest

from src.data.check import CheckConfig
from src.deploy.preprocess_jobs import PreviewRequest, read_command_line
from src.deploy.runner_inputs import PreprocessConfig
from src.errors import ConfigError
from tests import small_run
from tests.command import python
from tests.data.images import write_cifar


@pytest.fixture
def data(tmp_path):
    return small_run.write_images(tmp_path / "data")


def test_three_jobs(data):
    assert read_command_line(["--data_path", "x"]) == PreprocessConfig(data_path="x")
    assert read_command_line(["--check", "x", "-j", "2"]) == CheckConfig(check="x", num_parallel_workers=2)
    flags = small_run.arguments(data, Path("out"))
    config = small_run.config(data, Path("out"))
    for words in (["--preview", "x.png", *flags], [*flags, "--preview=x.png"], [*flags, "--preview", "x.png"]):
        assert read_command_line(words) == PreviewRequest(Path("x.png"), config)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--preview x.png --check y", "--check: does not go together with --preview"),
        ("--check y --preview=x.png", "--check: does not go together with --preview"),
        ("--preview x.png --data_path y --details", "--preview: does not go together with --data_path, --details"),
        ("--check y --model_info z --config=c", "--check: does not go together with --model_info, --config"),
        ("--preview --epochs 3", "--preview: must name the picture to write"),
        ("--epochs 3 --preview", "--preview: must name the picture to write"),
        ("--preview= x.png", "--preview: must name the picture to write"),
        ("--preview x.png --epoch 3", "--epoch: no such flag"),
        ("--check y --crop 3", "--crop: no such flag"),
        ("--data_path y --config c", "--config: no such flag"),
    ],
)
def test_contradictory_flags(words, message):
    with pytest.raises(ConfigError, match=message):
        read_command_line(words.split())


def of_folders(data: Path) -> list[object]:
    return ["--data_path", data / "val", "--output_path", data.parent / "output"]


def of_cifar(data: Path) -> list[object]:
    folder = write_cifar(data.parent, "CIFAR10", "binary")
    return ["--data_path", folder, "--dataset_name", "cifar10", "--output_path", data.parent / "output"]


@pytest.mark.parametrize(
    ("words", "last"),
    [
        (lambda data: ["--check", data, "-j", 2], "19 images, no findings"),
        (of_folders, "[INFO] Completed! Total 7 data."),
        (of_cifar, "[INFO] Completed! Total 4 data."),
    ],
)
def test_without_mindspore(words, last, data):
    # None in its place: an import of it fails.
    code = "import sys; sys.modules['mindspore'] = None; import preprocess; preprocess.main(sys.argv[1:])"
    done = python("-c", code, *words(data))
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, [last]), done.stderr
