"""Errors that are the user's to mend: one line each, with the exit code that scripts can rely on."""

from __future__ import annotations

from typing import TypeVar

# Exit code of a run that a signal stopped and that can go on.
INTERRUPTED = 75
UserErrorT = TypeVar("UserErrorT", bound="UserError")


class UserError(Exception):
    """Something outside the program is wrong; the message is one line that says how to mend it.

    Args:
        subject: the file, key or flag that is at fault.
        rule: what has to hold, or what went wrong.
        received: the offending value, if there is one.
        known: the possible values or the nearest names, if there are any.
    """

    exit_code = 1

    def __init__(self, subject: object, rule: str, received: object = None, known: object = None):
        self.lines = [fault(subject, rule, received, known)]
        super().__init__(self.lines[0])

    def __reduce__(self) -> tuple:
        # An error crosses from a worker process with its lines; they are no arguments of the constructor.
        return _with_lines, (type(self), self.lines)


class ConfigError(UserError, ValueError):
    """A flag, a YAML key or their combination; may carry several faults, one line each."""

    exit_code = 2

    @classmethod
    def from_lines(cls, lines: list[str]) -> ConfigError:
        """One error out of all the faults found."""
        return _with_lines(cls, lines)


class DataError(UserError):
    """Images, labels, folders of a data set, preprocessed inputs and results."""

    exit_code = 3


class ModelFileError(UserError):
    """A checkpoint, weights of another source, or an exported model."""

    exit_code = 4


class NumbersError(UserError):
    """Not a number, divergence, or two backends that disagree."""

    exit_code = 5


def _with_lines(cls: type[UserErrorT], lines: list[str]) -> UserErrorT:
    error = cls("", "")
    error.lines = lines
    error.args = ("\n".join(lines),)
    return error


def fault(subject: object, rule: str, received: object = None, known: object = None) -> str:
    """``subject: rule. Received: value. Known: choices`` without the parts that are None."""
    parts = [f"{subject}: {rule.rstrip('.')}"]
    if received is not None:
        parts.append(f"Received: {received}")
    if known is not None:
        parts.append(f"Known: {known if isinstance(known, str) else ', '.join(map(str, known))}")
    return " ".join(". ".join(parts).split("\n"))
