"""What the benchmark accepts, and how it says that it has no peer."""

import importlib.util
import sys

import pytest

from src.benchmark import settings
from src.benchmark.settings import find_peer_python, read_command_line
from src.errors import ConfigError


def test_mode_and_flags():
    mode, config = read_command_line(["train", "--arch", "cct_7_3x1_32", "--threads", "2", "--json_path", "a.json"])
    assert mode == "train"
    assert (config.arch, config.threads, config.json_path, config.batch_size) == ("cct_7_3x1_32", 2, "a.json", None)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the first word says what is measured. Received: nothing. Known: infer, train, data, deploy"),
        (["--threads", "2"], "Received: --threads"),
        (["infer", "--threads", "0"], "--threads: must be greater than or equal to 1. Received: 0"),
        (["infer", "--peer", "jax"], "--peer: not one of the choices. Received: jax. Known: timm, zoo"),
        (["infer", "--thread", "2"], "--thread: no such flag. Known: --threads"),
    ],
)
def test_command_lines_that_are_refused(argv, message):
    with pytest.raises(ConfigError, match=message):
        read_command_line(argv)


@pytest.fixture
def no_torch(monkeypatch, tmp_path):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in {"torch", "timm"} else find_spec(name)
    )
    monkeypatch.setattr(settings, "OWN_ENVIRONMENT", tmp_path / "environment")
    return tmp_path / "environment"


def test_without_a_peer_it_says_how_to_get_one(no_torch):
    with pytest.raises(ConfigError, match=r"no interpreter with torch and timm.*install -r requirements-bench"):
        find_peer_python(None)


def test_the_environment_made_for_it_is_found(no_torch):
    python = no_torch / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert find_peer_python(None) == str(python)


def test_this_interpreter_serves_where_it_can(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert find_peer_python(None) == sys.executable


@pytest.mark.parametrize("given", ["/no/such/python", "/bin/false"])
def test_a_given_interpreter_must_have_the_peer(given):
    with pytest.raises(ConfigError, match=f"--peer_python: must have torch and timm.*Received: {given}"):
        find_peer_python(given)
