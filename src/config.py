"""From a YAML file and flags to a frozen `Config`: the one place that reads either.

    config = load_config("train", ["--config", "configs/cct_2_3x2_digits.yaml", "--epochs", "2"])

Flags beat the YAML, the YAML beats the YAML that it names as its ``base``, that beats the defaults of `src.schema`.
All faults are reported at once, each with its file or flag, the rule, what was received and the nearest known names.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from src import aliases
from src.errors import ConfigError, fault
from src.schema import Config, Section
from src.strict_yaml import read_yaml, write_value

CONFIG_FOLDER = Path(__file__).parents[1] / "configs"
_NO_EFFECT = "never had an effect in the zoo and has none here"
SectionT = TypeVar("SectionT", bound=Section)


def sections() -> dict[str, type[Section]]:
    """Section name -> class, in the order of `Config`."""
    return {name: field.annotation for name, field in Config.model_fields.items()}


def leaf_sections() -> dict[str, str]:
    """Key -> name of its section."""
    return {leaf: name for name, section in sections().items() for leaf in section.model_fields}


def load_config(command: str, argv: list[str]) -> Config:
    """The configuration of one command, printed on one line as the zoo does.

    ``--print_config`` prints it as YAML instead, and leaves.

    Args:
        command: train, eval, export or verify; decides what a few flags mean.
        argv: the command line without the program's name.

    Raises:
        ConfigError: every fault of the YAML and the flags.
    """
    parser = _config_parser(command, sections().values())
    parsed, faults, warnings = _parse(parser, argv)
    path = parsed.get("config")
    config = _configured(parsed, faults, warnings)
    if path is not None:
        print(f"=> Reading YAML config from {path}")
    flat = {key: value for _, section in config for key, value in section}
    print(argparse.Namespace(**flat))
    return config


def load_request(
    command: str,
    argv: list[str],
    own: type[SectionT],
    recorded: Callable[[SectionT, Mapping[str, Any]], dict[str, Any]],
) -> tuple[Config, SectionT, list[str]]:
    """The configuration of a command that has keys of its own too and takes words, such as names of files.

    Words are what belongs to no flag, and all that follows ``--``. Nothing is printed, but for ``--print_config``.

    Args:
        command: its name.
        argv: the command line without the program's name.
        own: the section of its own keys.
        recorded: values of the configuration's keys where no YAML is named, by the own keys and the flags given; flags
            beat them.

    Returns:
        The configuration, the command's own keys, and the words.

    Raises:
        ConfigError: every fault of the YAML and the flags.
    """
    end = argv.index("--") if "--" in argv else len(argv)
    words: list[str] = []
    parser = _config_parser(command, [own, *sections().values()])
    parsed, faults, warnings = _parse(parser, _with_values(argv[:end], own), words)
    given = {key: _value_alias(key, parsed.pop(key)) for key in own.model_fields if key in parsed}
    settings = _validate(own, given, {key: f"--{key}" for key in own.model_fields}, faults)
    config = _configured(parsed, faults, warnings, lambda flags: recorded(settings, flags))
    return config, settings, words + argv[end + 1 :]


def load_flags(section: type[SectionT], command: str, argv: list[str]) -> SectionT:
    """The flags of a command that has no YAML, as one section.

    Raises:
        ConfigError: every fault of the flags.
    """
    parsed, faults, _ = _parse(_parser(command, [section], {}), argv)
    parsed = {key: _value_alias(key, value) for key, value in parsed.items()}
    built = _validate(section, parsed, {key: f"--{key}" for key in section.model_fields}, faults)
    if faults:
        raise ConfigError.from_lines(faults)
    return built


def dump_config(config: Config) -> str:
    """Flat YAML that `load_config` reads back to an equal configuration."""
    lines = []
    for name, section in config:
        lines.append(f"# {name}: {type(section).__doc__.splitlines()[0]}")
        for key, value in section.model_dump(mode="json").items():
            lines.append(f"{key}: {write_value(value)}")
    return "\n".join(lines) + "\n"


def require_built(config: Config, built: dict[str, tuple]) -> None:
    """Refuse keys whose feature does not exist yet, all at once.

    Args:
        config: what the user wants.
        built: `schema.BUILT_FOR_TRAINING` or `schema.BUILT_FOR_EVALUATION`.

    Raises:
        ConfigError: naming each such key, its value and the values that work.
    """
    values = {leaf: getattr(getattr(config, section), leaf) for leaf, section in leaf_sections().items()}
    faults = [
        fault(key, "not built yet", values[key], [str(choice) for choice in choices])
        for key, choices in built.items()
        if values[key] not in choices
    ]
    if faults:
        raise ConfigError.from_lines(faults)


# ---------------------------------------------------------------------------------------------------------------------
# Flags


class _Parser(argparse.ArgumentParser):
    """argparse that raises our error instead of leaving."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError("command line", message)


def _parser(command: str, classes: Iterable[type[Section]], renamed: dict[str, str]) -> _Parser:
    """Flat flags from section classes; values stay text, pydantic reads them."""
    parser = _Parser(prog=f"{command}.py", usage=f"python {command}.py [--key value ...]", allow_abbrev=False)
    others: dict[str, list[str]] = {}
    for alias, key in {**aliases.ALIASES, **aliases.SHORT_FLAGS, **renamed}.items():
        others.setdefault(key, []).append(alias)
    classes, taken = tuple(classes), set(renamed)
    # A command's own key may have the name that another codebase gave to another key.
    keys = {key for cls in classes for key in cls.model_fields}
    for cls in classes:
        group = parser.add_argument_group(cls.__name__.removesuffix("Config").lower(), cls.__doc__.splitlines()[0])
        for key, field in cls.model_fields.items():
            names = [alias for alias in others.get(key, ()) if renamed.get(alias) == key or alias not in taken | keys]
            names = ([] if key in taken else [key]) + names
            flags = [f"-{n}" if len(n) == 1 else f"--{n}" for n in names]
            if not flags:
                continue
            default = "required" if field.default is PydanticUndefined else f"default {_shown(field.default)}"
            optional = dict(nargs="?", const="True") if field.annotation is bool else {}
            choices = ", ".join(map(str, _choices(field.annotation)))
            facts = f"one of {choices}; {default}" if choices else default
            text = f"{field.description} ({facts})".replace("%", "%%")
            group.add_argument(*flags, dest=key, metavar="X", default=argparse.SUPPRESS, help=text, **optional)
    # `src.startup` acts on this one, before there is a configuration.
    parser.add_argument("--verbose", action="store_true", help="tracebacks, and MindSpore's own warnings")
    for key in aliases.DEAD_KEYS:
        parser.add_argument(f"--{key}", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _config_parser(command: str, classes: Iterable[type[Section]]) -> _Parser:
    """Flags of a command that takes a YAML."""
    parser = _parser(command, classes, aliases.COMMAND_FLAGS.get(command, {}))
    flags = [f"--{name}" for name in aliases.CONFIG_FLAGS]
    help_text = "file of keys and values; a flag beats its line (see configs/)"
    parser.add_argument(*flags, dest="config", metavar="YAML", default=argparse.SUPPRESS, help=help_text)
    parser.add_argument("--print_config", action="store_true", help="print the resolved configuration and leave")
    return parser


def _with_values(argv: list[str], own: type[Section]) -> list[str]:
    """The command line with ``=True`` behind a switch of ``own`` that a word follows: it would pass for its value."""
    switches = {f"--{key}" for key, field in own.model_fields.items() if field.annotation is bool}
    following = [*argv[1:], ""]
    return [
        f"{word}=True" if word in switches and after.lower() not in {"true", "false"} else word
        for word, after in zip(argv, following, strict=True)
    ]


def _shown(value: Any) -> str:
    """A default as a flag's text."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "empty"
    return "empty" if value is None else str(value)


def _choices(annotation: Any) -> tuple:
    """The values of a Literal, also inside of Optional."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next((found for part in get_args(annotation) if (found := _choices(part))), ())


def _parse(
    parser: _Parser, argv: list[str], words: list[str] | None = None
) -> tuple[dict[str, Any], list[str], list[str]]:
    """Values that were given, a fault for each word that is no flag, and warnings.

    Where ``words`` is given, what belongs to no flag is no fault, but is put there.
    """
    namespace, unknown = parser.parse_known_args(argv)
    known = [option for action in parser._actions for option in action.option_strings]
    faults = []
    for word in unknown:
        if word.startswith("-") and not _is_number(word):
            name = word.split("=")[0]
            faults.append(fault(name, "no such flag", None, difflib.get_close_matches(name, known, n=3) or None))
        elif words is not None:
            words.append(word)
        elif not any(previous.startswith("-") for previous in unknown[: unknown.index(word)]):
            faults.append(fault("command line", "expects --key value", word))
    values = {key: value for key, value in vars(namespace).items() if key != "verbose"}
    dead = [key for key in aliases.DEAD_KEYS if values.pop(key, None) is not None]
    return values, faults, [f"--{key} {_NO_EFFECT}" for key in dead]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


# ---------------------------------------------------------------------------------------------------------------------
# YAML


def _read_yaml_chain(name: str, faults: list[str]) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Values and their origins of a YAML and the file that it names as its ``base``."""
    path, warnings = _find_yaml(name)
    tree, more = read_yaml(path)
    warnings += more
    base = tree.pop("base", None)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if base is not None:
        base_path = path.parent / str(base)
        below, more = read_yaml(base_path)
        warnings += more
        if "base" in below:
            faults.append(fault(f"{base_path}: base", "a base file cannot have a base itself", below.pop("base")))
        _merge(below, base_path, values, origins, faults, warnings)
    _merge(tree, path, values, origins, faults, warnings)
    return values, origins, warnings


def _find_yaml(name: str) -> tuple[Path, list[str]]:
    """The file of this name, or the one of ours that replaces a zoo path."""
    path = Path(name)
    if path.exists():
        return path, []
    stem = path.name.removesuffix(".yaml").removesuffix(".yaml")
    known = {file.stem: file for file in sorted(CONFIG_FOLDER.rglob("*.yaml")) if file.parent.name != "base"}
    if stem in known:
        return known[stem], [f"{name} is now configs/{known[stem].relative_to(CONFIG_FOLDER)}"]
    raise ConfigError("--config", "no such file", name, difflib.get_close_matches(stem, known, n=3) or None)


def _merge(
    tree: dict[str, Any],
    path: Path,
    values: dict[str, Any],
    origins: dict[str, str],
    faults: list[str],
    warnings: list[str],
) -> None:
    known = leaf_sections()
    for word, value in tree.items():
        key = aliases.ALIASES.get(str(word), str(word))
        if key in aliases.DEAD_KEYS:
            warnings.append(f"{path}: {key} {_NO_EFFECT}")
        elif key not in known:
            nearest = difflib.get_close_matches(key, [*known, *aliases.ALIASES], n=3)
            faults.append(fault(f"{path}: {word}", "no such key", value, nearest or None))
        elif key != word and key in tree:
            warnings.append(f"{path}: {word} is ignored beside {key}")
        elif origins.get(key, "").startswith(f"{path}: "):
            faults.append(fault(f"{path}: {word}", f"is another name of {origins[key].split()[-1]}, give one", value))
        else:
            values[key], origins[key] = value, f"{path}: {word}"


# ---------------------------------------------------------------------------------------------------------------------
# Validation


def _configured(
    parsed: dict[str, Any],
    faults: list[str],
    warnings: list[str],
    recorded: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None,
) -> Config:
    """The configuration of parsed flags and the YAML among them, or else of recorded values; prints the warnings."""
    print_config = parsed.pop("print_config")
    values, origins = {}, {}
    path = parsed.pop("config", None)
    if path is not None:
        values, origins, more = _read_yaml_chain(path, faults)
        warnings += more
    elif recorded is not None and not faults:
        values = recorded(parsed)
    for key, value in parsed.items():
        values[key], origins[key] = value, f"--{key}"
    config = _build(values, origins, faults)
    if print_config:
        print(dump_config(config), end="")
        sys.exit(0)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return config


def _build(values: dict[str, Any], origins: dict[str, str], faults: list[str]) -> Config:
    home = leaf_sections()
    trees: dict[str, dict[str, Any]] = {name: {} for name in sections()}
    for key, value in values.items():
        trees[home[key]][key] = _value_alias(key, value)
    built = {name: _validate(cls, trees[name], origins, faults) for name, cls in sections().items()}
    if faults:
        raise ConfigError.from_lines(faults)
    return Config(**built)


def _value_alias(key: str, value: Any) -> Any:
    return aliases.VALUE_ALIASES.get(key, {}).get(value, value) if isinstance(value, str) else value


def _validate(cls: type[SectionT], tree: dict[str, Any], origins: dict[str, str], faults: list[str]) -> SectionT | None:
    try:
        return cls.model_validate(tree)
    except ValidationError as error:
        for item in error.errors():
            key = str(item["loc"][0])
            line = _fault_line(cls, key, origins.get(key, key), item, tree)
            if line not in faults:
                faults.append(line)
        return None


_RULES = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be True or False",
    "bool_type": "must be True or False",
    "string_type": "must be text",
    "tuple_type": "must be a list of numbers",
    "finite_number": "must be a finite number",
}


def _fault_line(cls: type[BaseModel], key: str, origin: str, item: Any, tree: dict[str, Any]) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "missing" and len(item["loc"]) == 1:
        return fault(origin, "must be given")
    if kind == "literal_error":
        choices = context["expected"].replace(" or ", ", ").replace("'", "")
        return fault(origin, "not one of the choices", tree[key], choices)
    if kind in ("missing", "too_long"):
        length = len(cls.model_fields[key].get_default() or (0, 0, 0))
        return fault(origin, f"must be a list of {length} numbers", tree[key])
    rule = _RULES.get(kind, item["msg"].replace("Input should", "must"))
    return fault(origin, rule, tree[key])
