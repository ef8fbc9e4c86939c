"""YAML without surprises: ``5e-4`` is a number, ``no`` and ``12:30`` are text, and a key stands once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from src.errors import ConfigError

# A tab between a value and a comment or the line's end: the Twins recipe of the zoo has them, YAML forbids them.
_SEPARATING_TAB = re.compile(r"(?m)(?<=\S)[ ]*\t[ \t]*(?=#|$)")


class _StrictLoader(yaml.SafeLoader):
    """Safe loading with YAML 1.2 scalars, without aliases, tags and duplicate keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not allowed", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key_node.start_mark)
            if key_node.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key_node.value!r} stands twice", problem_mark=key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_StrictLoader.yaml_implicit_resolvers = {}
_NUMBER = r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?"
_FLOAT = rf"^{_NUMBER}$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("float", _FLOAT, "-+0123456789."),
):
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


class _StrictDumper(yaml.SafeDumper):
    """Quotes what this reader or a reader of YAML 1.1 would take for something else than text."""


_OURS, _THEIRS = _StrictLoader.yaml_implicit_resolvers, yaml.SafeDumper.yaml_implicit_resolvers
_StrictDumper.yaml_implicit_resolvers = {
    first: _OURS.get(first, []) + _THEIRS.get(first, []) for first in _OURS.keys() | _THEIRS.keys()
}


def read_yaml(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The mapping of a YAML file, and warnings about what had to be mended.

    Raises:
        ConfigError: missing file, not UTF-8, not YAML, or not a mapping of words to values.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(path, "no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, f"cannot be read: {error}") from None
    warnings = []
    if _SEPARATING_TAB.search(text):
        text = _SEPARATING_TAB.sub(" ", text)
        warnings.append(f"{path}: tabs before comments are read as blanks")
    try:
        tree = _StrictLoader(text).get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        raise ConfigError(where, f"not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError(path, "must hold lines of `key: value`", type(tree).__name__)
    return tree, warnings


def write_value(value: Any) -> str:
    """A value on one line, as it may stand behind a key; `read_yaml` reads it back equal."""
    text = yaml.dump(value, Dumper=_StrictDumper, default_flow_style=True, allow_unicode=True, width=float("inf"))
    return text.rstrip().removesuffix("...").rstrip()
