"""One line on stderr and the promised exit code for whatever ends a command."""

import errno
import sys

import pytest

from src.errors import ConfigError, DataError, ModelFileError, NumbersError, UserError, fault
from src.startup import run


def end(monkeypatch, error: BaseException, *argv: str) -> int:
    """Exit code of a command that ends like this."""

    def main(given: list[str]) -> None:
        assert given == list(argv)
        raise error

    monkeypatch.setattr(sys, "argv", ["train.py", *argv])
    with pytest.raises(SystemExit) as caught:
        run(main)
    return caught.value.code


@pytest.mark.parametrize(
    ("kind", "code"), [(UserError, 1), (ConfigError, 2), (DataError, 3), (ModelFileError, 4), (NumbersError, 5)]
)
def test_exit_codes(kind, code, monkeypatch, capsys):
    assert end(monkeypatch, kind("net.ckpt", "is damaged", 5, ["a", "b"])) == code
    assert capsys.readouterr().err == "error: net.ckpt: is damaged. Received: 5. Known: a, b\n"


def test_several_faults_are_several_lines(monkeypatch, capsys):
    assert end(monkeypatch, ConfigError.from_lines(["a: wrong", "b: wrong"])) == 2
    assert capsys.readouterr().err == "error: a: wrong\nerror: b: wrong\n"


def test_interrupted_can_go_on(monkeypatch, capsys):
    assert end(monkeypatch, KeyboardInterrupt()) == 75
    assert capsys.readouterr().err == "error: interrupted, run the same command to go on\n"


def test_a_full_disk_is_one_line(monkeypatch, capsys):
    assert end(monkeypatch, OSError(errno.ENOSPC, "No space left on device", "net.ckpt")) == 1
    assert capsys.readouterr().err == "error: net.ckpt: no space left on device\n"


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])

    def main(_: list[str]) -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        run(main)


def test_verbose_shows_where_a_users_error_came_from(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--verbose"])

    def main(_: list[str]) -> None:
        raise DataError("x.png", "not an image")

    with pytest.raises(DataError):
        run(main)


def test_a_command_that_ends_well_does_not_exit(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--seed", "1"])
    seen = []
    run(seen.extend)
    assert seen == ["--seed", "1"]


def test_missing_packages_come_first(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit) as caught:
        run(lambda _: None, needs=("mindspore", "no-such-package"))
    assert caught.value.code == 1
    line = capsys.readouterr().err
    assert line.startswith("error: python: packages are missing, `pip install -r requirements.txt`")
    assert "Received: no-such-package" in line


def test_faults_stay_on_one_line():
    assert fault("a", "first\nsecond.") == "a: first second"
    assert fault("a", "rule", 0) == "a: rule. Received: 0"
    assert fault("a", "rule", None, "x or y") == "a: rule. Known: x or y"
