"""How the C++ runner is built and MindSpore Lite is fetched."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.cpp_runner import BUILD, FETCH, ROOT
from tests.runner.cases import check_error, read, run


def test_build_is_reused(runner):
    before = runner.stat().st_mtime_ns
    done = subprocess.run(["bash", BUILD], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    assert runner.stat().st_mtime_ns == before


def test_build_without_lite(tmp_path):
    missing = subprocess.run(["bash", BUILD], capture_output=True, text=True, env={**os.environ, "LITE_HOME": "/none"})
    check_error(missing, 2, "LITE_HOME", "/none")
    empty = subprocess.run(
        ["bash", BUILD], capture_output=True, text=True, env={**os.environ, "LITE_HOME": str(tmp_path)}
    )
    check_error(empty, 2, "LITE_HOME", str(tmp_path))
    shutil.copytree(BUILD.parent, tmp_path / "project" / "infer", ignore=shutil.ignore_patterns("build", "out"))
    environment = {name: value for name, value in os.environ.items() if name != "LITE_HOME"}
    script = tmp_path / "project" / "infer" / "build.sh"
    alone = subprocess.run(["bash", script], capture_output=True, text=True, env=environment)
    check_error(alone, 2, "LITE_HOME: is not set", "fetch_mindspore_lite.sh")


def fetch(project: Path, tools: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run a copy of the fetch script in a project of its own, with stand-ins for some programs."""
    (project / "scripts").mkdir(parents=True, exist_ok=True)
    script = Path(shutil.copy(FETCH, project / "scripts"))
    tools.mkdir(exist_ok=True)
    known = {name: value for name, value in os.environ.items() if name != "LITE_HOME"}
    path = f"{tools}:{os.environ['PATH']}"
    return subprocess.run(["bash", script], capture_output=True, text=True, env={**known, "PATH": path, **environment})


def stand_in(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)


def test_fetch(tmp_path):
    project, tools = tmp_path / "a project", tmp_path / "tools"
    stand_in(tools / "python3", "exit 1")
    done = fetch(project, tools, LITE_HOME="/opt/lite")
    assert (done.returncode, done.stderr) == (0, "")

    stand_in(tools / "uname", "echo Plan9")
    check_error(fetch(project, tools), 1, "no wheel", "Plan9", "Known: Linux x86_64")
    stand_in(tools / "uname", "if [[ $1 == -s ]]; then echo Linux; else echo x86_64; fi")
    check_error(fetch(project, tools), 1, "cannot be downloaded")
    # pip that brings another content than the pinned one.
    stand_in(
        tools / "python3", 'if [[ $2 == pip ]]; then touch "${@: -2:1}/mindspore_lite-2.0.0-x.whl"; else echo 0; fi'
    )
    check_error(fetch(project, tools), 1, "sha256", "Received: 0")
    assert list((project / ".lite").iterdir()) == []

    (project / ".lite" / "mindspore_lite").mkdir()
    assert fetch(project, tools).returncode == 0


@pytest.mark.slow
def test_release_layouts(runner, case, tmp_path):
    """A release tarball keeps headers and libraries in runtime/, newer ones the headers in include/cxx_api."""
    wheel = Path(os.environ.get("LITE_HOME") or ROOT / ".lite" / "mindspore_lite")
    for api in ("api", "cxx_api"):
        project, lite = tmp_path / f"prüf ling {api}", tmp_path / f"lite {api}"
        shutil.copytree(BUILD.parent, project, ignore=shutil.ignore_patterns("build", "out"))
        shutil.copytree(wheel / "include", lite / "runtime" / "include")
        if api != "api":
            (lite / "runtime" / "include" / "api").rename(lite / "runtime" / "include" / api)
        for header in lite.rglob("*.h"):
            header.write_text(header.read_text().replace('"include/api/', f'"include/{api}/'))
        (lite / "runtime" / "lib").mkdir()
        for library in (wheel / "lib").iterdir():
            (lite / "runtime" / "lib" / library.name).symlink_to(library)
        (lite / "runtime" / "lib" / "libmindspore-lite.so").symlink_to(
            wheel / "lib" / "libmindspore-extendrt_python.so"
        )
        done = subprocess.run(
            ["bash", project / "build.sh"], capture_output=True, text=True, env={**os.environ, "LITE_HOME": str(lite)}
        )
        assert done.returncode == 0, done.stdout + done.stderr
        moved = run(project / "out" / "main", tmp_path, case.model, case.folder)
        assert moved.returncode == 0, moved.stderr
        np.testing.assert_allclose(read(tmp_path / "result_Files"), case.logits_NK, rtol=0, atol=1e-5)
        cache = (project / "build" / "CMakeCache.txt").read_text()
        assert f"LITE_LIBRARY:FILEPATH={lite}/runtime/lib/libmindspore-lite.so" in cache
