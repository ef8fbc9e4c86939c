"""A naming: how one source calls and stores the parameters of a network, read in either direction.

A table holds one `Origin` per parameter of ours. Tables are made of rules over names, so that each source is a page of
names and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from src.weights.resample import BICUBIC_ANTIALIAS


@dataclass(frozen=True)
class Layout:
    """How a source stores an array: ``read`` gives ours, ``write`` undoes it."""

    read: Callable[[np.ndarray], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray]


AS_IS = Layout(lambda array: array, lambda array: array)


@dataclass(frozen=True)
class Origin:
    """The tensors of one parameter: equal parts that follow each other on its first axis. None: the source has none."""

    names: tuple[str, ...]
    layout: Layout = AS_IS

    def read(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """Our array.

        Raises:
            ValueError: parts of different shapes, or a shape that this layout does not have.
        """
        parts = [self.layout.read(tensors[name]) for name in self.names]
        if len({part.shape for part in parts}) > 1:
            raise ValueError("parts differ")
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def write(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """The source's tensors."""
        parts = np.split(array, len(self.names)) if self.names else []
        return {name: self.layout.write(part) for name, part in zip(self.names, parts, strict=True)}


@dataclass(frozen=True)
class Naming:
    """One source's names for the parameters of one network.

    Args:
        name: what reports call it.
        origins: our name -> where its values come from.
        aliases: another name of the same source -> the one in ``origins``.
        position_rule: how the source itself resamples position embeddings.
        objection: given the source's names, why they are of another network, or nothing.
    """

    name: str
    origins: dict[str, Origin]
    aliases: dict[str, str] = field(default_factory=dict)
    position_rule: str = BICUBIC_ANTIALIAS
    objection: Callable[[set[str]], str] = field(default=lambda names: "")

    def known_names(self) -> set[str]:
        """Every name that a source of this naming may have."""
        return {name for origin in self.origins.values() for name in origin.names} | self.aliases.keys()

    def write(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by our names -> tensors by this source's; without those that the source has no place for."""
        tensors: dict[str, np.ndarray] = {}
        for ours, array in arrays.items():
            tensors.update(self.origins[ours].write(array))
        return tensors


@dataclass(frozen=True)
class Rule:
    """Names that match a pattern as a whole come from the tensors of these templates, which hold its groups."""

    pattern: str
    templates: tuple[str, ...]
    layout: Layout = AS_IS


def rule(pattern: str, *templates: str, layout: Layout = AS_IS) -> Rule:
    """A `Rule`; several templates are parts of one parameter, none says that the source lacks it."""
    return Rule(pattern, templates, layout)


def origins_by_rules(spelling: Mapping[str, str], rules: Iterable[Rule]) -> dict[str, Origin]:
    """Our name -> origin, by the first rule that matches; a name without one comes from the same name.

    Args:
        spelling: our name -> the name that the rules are written for.
        rules: in order of precedence.
    """
    rules = tuple(rules)
    return {ours: _origin(name, rules) or Origin((name,)) for ours, name in spelling.items()}


def complete_origins(spelling: Mapping[str, str], rules: Iterable[Rule]) -> dict[str, Origin] | None:
    """As `origins_by_rules`, but None if a name has no rule: the source has no such network."""
    rules = tuple(rules)
    origins = {ours: _origin(name, rules) for ours, name in spelling.items()}
    return None if None in origins.values() else origins


def _origin(name: str, rules: tuple[Rule, ...]) -> Origin | None:
    for candidate in rules:
        match = re.fullmatch(candidate.pattern, name)
        if match:
            return Origin(tuple(match.expand(template) for template in candidate.templates), candidate.layout)
    return None
