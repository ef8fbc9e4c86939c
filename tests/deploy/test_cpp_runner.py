"""The C++ runner as verify.py starts it: when it is built, and what its failures become."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from src.deploy import cpp_runner
from src.deploy.cpp_runner import CppRunner, built_runner
from src.deploy.model_info import InputInfo
from src.errors import ConfigError, DataError, ModelFileError, NumbersError, UserError
from tests.cpp_runner import ROOT
from tests.deploy.descriptions import description

NEVER = 1_000_000_000


def write_program(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def project(tmp_path):
    """A project whose binary is newer than its sources, and whose build says so."""
    root = tmp_path / "a project"
    for name in ("CMakeLists.txt", "src/main.cc"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
        os.utime(root / name, (NEVER, NEVER))
    write_program(root / "build.sh", 'echo built >>"${BASH_SOURCE[0]%/*}/builds"')
    os.utime(root / "build.sh", (NEVER, NEVER))
    write_program(root / "out" / "main", "exit 0")
    return root


def builds(project: Path) -> int:
    path = project / "builds"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.parametrize("source", ["build.sh", "CMakeLists.txt", "src/main.cc", None])
def test_built_when_a_source_is_newer(source, project):
    assert built_runner(project) == project / "out" / "main"
    assert builds(project) == 0
    if source is None:
        (project / "out" / "main").unlink()
    else:
        os.utime(project / source)
    built_runner(project)
    assert builds(project) == 1


@pytest.mark.parametrize(
    ("script", "error", "line"),
    [
        ("echo 'error: cmake: is needed' >&2; exit 2", ConfigError, "cannot be built: cmake: is needed"),
        ("echo one; echo 'CMake Error' >&2; exit 1", UserError, "cannot be built: CMake Error"),
        ("kill -9 $$", UserError, "cannot be built: ended by signal 9"),
        ("exit 7", UserError, "cannot be built: exit code 7"),
    ],
)
def test_a_build_that_fails_is_one_line(script, error, line, project):
    write_program(project / "build.sh", script)
    with pytest.raises(UserError) as caught:
        built_runner(project)
    assert type(caught.value) is error
    assert caught.value.lines == [f"C++ runner: {line}"]


@pytest.mark.parametrize("missing", ["cmake", "c++", "lite"])
def test_what_a_build_lacks_is_one_line(missing, tmp_path, monkeypatch):
    project = tmp_path / "ascend310_infer"
    shutil.copytree(ROOT / "ascend310_infer", project, ignore=shutil.ignore_patterns("build", "out"))
    lite = tmp_path / "lite" / "include" / "api"
    lite.mkdir(parents=True)
    (lite / "model.h").write_text("")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in {"bash", "dirname", "pwd", "make", "cmake", "c++"} - {missing}:
        (tools / name).symlink_to(shutil.which(name) or sys.executable)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("LITE_HOME", str(tmp_path / ("none" if missing == "lite" else "lite")))
    with pytest.raises(ConfigError) as caught:
        built_runner(project)
    (line,) = caught.value.lines
    assert line.startswith("C++ runner: cannot be built: " + ("LITE_HOME: " if missing == "lite" else f"{missing}: "))


@pytest.fixture(params=[1, None])
def info(request):
    """Of a model for one image, or for any number."""
    shape = (request.param, 3, 16, 16)
    return description(quantization="int8", input=InputInfo(name="image_BCYX", shape=shape, dtype="float32"))


@pytest.fixture
def runner(project, tmp_path, monkeypatch, info):
    """The project's program on two images."""
    monkeypatch.setattr(cpp_runner, "PROJECT", project)
    folder = tmp_path / "images and results"
    folder.mkdir()
    runner = CppRunner(Path("model.mindir"), info, 3, folder)
    image_BCYX = np.arange(24, dtype=np.float32).reshape(3, 2, 2, 2)
    runner.add(image_BCYX, 2)
    for index in (0, 1):
        written = np.fromfile(folder / "images" / f"{index:08d}.bin", np.float32)
        np.testing.assert_array_equal(written, image_BCYX[index].ravel())
    return runner


def test_results_and_time_are_read(runner, project, info):
    # Its results are its images.
    copies = 'for n in 0 1; do cp "images/0000000$n.bin" "result_Files/0000000${n}_0.bin"; done'
    times = "mkdir time_Result; printf 'p50: 1.5e+01 ms\\np90: 9 ms\\n' >time_Result/test_perform_static.txt"
    write_program(project / "out" / "main", f'echo "$@" >words; mkdir result_Files; {copies}; {times}')
    answers = runner.answers()
    np.testing.assert_array_equal(answers.logits_NK, np.arange(16, dtype=np.float32).reshape(2, 8))
    assert (answers.ms_per_image, answers.quantization) == (15, "int8")
    words = (project.parent / "images and results" / "words").read_text().split()
    model = Path("model.mindir").resolve()
    usual = f"--mindir_path {model} --input0_path images --device_target CPU --threads 3".split()
    assert words == usual + (["--batch", "3"] if info.input.shape[0] is None else [])


@pytest.mark.parametrize(
    ("code", "error"), [(1, UserError), (2, ConfigError), (3, DataError), (4, ModelFileError), (5, NumbersError)]
)
def test_a_failure_has_the_class_of_its_exit_code(code, error, runner, project):
    write_program(project / "out" / "main", f"echo noise; echo 'error: x.mindir: is damaged' >&2; exit {code}")
    with pytest.raises(UserError) as caught:
        runner.answers()
    assert type(caught.value) is error
    assert caught.value.lines == ["C++ runner: x.mindir: is damaged"]


def test_a_crash_is_one_line(runner, project):
    write_program(project / "out" / "main", "kill -SEGV $$")
    with pytest.raises(UserError, match=r"C\+\+ runner: ended by signal 11"):
        runner.answers()


def test_space_for_the_images(runner):
    runner.reserve(10, 1000)
    with pytest.raises(UserError, match=r"100000 images take 931322\.6 GiB, choose a smaller --num_images"):
        runner.reserve(100_000, 10**10)
