"""What a user can ask of the converter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from src import schema
from src.config import load_flags
from src.errors import ConfigError, fault

SUFFIXES = (".ckpt", ".safetensors")


class ConvertConfig(schema.Section):
    """--from FILE [FILE ...]: weights to read, several are averaged; or --list [PATTERN]: the models there are."""

    to: schema.Path = Field(None, description="file to write, .ckpt or .safetensors")
    arch: schema.or_none(str) = Field(None, description="model name; empty for the one that a checkpoint of ours says")
    compat: schema.or_none(Literal["official", "zoo"]) = Field(None, description="numerics; empty: as the names are")
    num_classes: schema.or_none(schema.Count) = Field(None, description="outputs of the head; empty: as the weights")
    image_size: schema.or_none(schema.Count) = Field(
        None, description="side of the square input; empty: as the weights; another one resamples positions"
    )
    names: schema.or_none(Literal["ours", "timm", "zoo"]) = Field(
        None, description="names to write; empty: ours in a .ckpt, timm's (CCT: the authors') in a .safetensors"
    )
    details: bool = Field(False, description="list every tensor")


@dataclass(frozen=True)
class Request:
    """A command line: files to convert, or a pattern of models to list."""

    config: ConvertConfig
    sources: list[Path]
    pattern: str | None


def read_command_line(argv: list[str]) -> Request:
    """Flags, of which ``--from`` takes several values and ``--list`` none or one.

    Raises:
        ConfigError: every fault of the command line.
    """
    sources, rest = _take(argv, "--from")
    patterns, rest = _take(rest, "--list")
    config = load_flags(ConvertConfig, "convert", rest)
    if patterns is not None:
        if sources is not None or len(patterns) > 1:
            raise ConfigError("--list", "takes one pattern at most, and no --from", " ".join(patterns) or None)
        return Request(config, [], patterns[0] if patterns else "*")
    faults = []
    if not sources:
        faults.append(fault("--from", "must name the weight files to read, or --list the models there are"))
    if config.to is None:
        faults.append(fault("--to", "must name the file to write"))
    elif Path(config.to).suffix not in SUFFIXES:
        faults.append(fault("--to", "unknown kind of weight file", config.to, SUFFIXES))
    if faults:
        raise ConfigError.from_lines(faults)
    return Request(config, [Path(name) for name in sources], None)


def _take(argv: list[str], flag: str) -> tuple[list[str] | None, list[str]]:
    """The values of a flag, None where it is not given, and the other words."""
    values: list[str] | None = None
    rest, taking = [], False
    for word in argv:
        if word == flag or word.startswith(f"{flag}="):
            values, taking = values or [], True
            values += [word.removeprefix(f"{flag}=")] if word != flag else []
        elif taking and not word.startswith("-"):
            values.append(word)
        else:
            taking = False
            rest.append(word)
    return values, rest
