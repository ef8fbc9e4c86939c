"""A pickle followed opcode by opcode: nothing is imported or called on its word.

Python's own reader is not used for files of others: a few bytes can make it run any program, take any amount of memory,
or end the process.
"""

from __future__ import annotations

import pickletools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, BinaryIO

# Files of some 100,000 tensors or 350,000 records stay below.
MOST_OPCODES = 4_000_000
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


class PickleFollower(ABC):
    """Follows one pickle: its stack, its marks and what it remembers. A subclass decides what anything else means.

    Attributes:
        kind: what the file is meant to be.
        literals: opcodes whose argument is pushed as it is.
        actions: what other opcodes do, by their argument; a subclass may add to them.
        num_followed: opcodes so far.
    """

    kind = "pickle"
    literals = frozenset(
        {
            *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
            *("BYTEARRAY8", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
        }
    )

    def __init__(self):
        self.num_followed = 0
        self._stack: list = []
        self._below_marks: list[list] = []
        self._memo: dict[int, Any] = {}
        self.actions: dict[str, Callable[[Any], None]] = {
            "MARK": self._mark,
            "EMPTY_DICT": lambda _: self.push({}),
            "EMPTY_LIST": lambda _: self.push([]),
            "EMPTY_TUPLE": lambda _: self.push(()),
            "TUPLE": lambda _: self.push(tuple(self.above_mark())),
            "TUPLE1": lambda _: self.push(tuple(self.popped(1))),
            "TUPLE2": lambda _: self.push(tuple(self.popped(2))),
            "TUPLE3": lambda _: self.push(tuple(self.popped(3))),
            "APPEND": lambda _: self._append(self.popped(1)),
            "APPENDS": lambda _: self._append(self.above_mark()),
            "SETITEM": lambda _: self._set_items(self.popped(2)),
            "SETITEMS": lambda _: self._set_items(self.above_mark()),
            "BINPUT": self.remember,
            "LONG_BINPUT": self.remember,
            "MEMOIZE": lambda _: self.remember(len(self._memo)),
            "BINGET": self.recall,
            "LONG_BINGET": self.recall,
            "GLOBAL": lambda both: self.push(self.named(*both.split(" ", 1))),
            "STACK_GLOBAL": lambda _: self.push(self.named(*self.popped(2))),
            "REDUCE": lambda _: self.push(self.called(*self.popped(2))),
            "BUILD": lambda _: self._build(*self.popped(1)),
        }

    def follow(self, pickle: BinaryIO | bytes) -> Any:
        """The object that a pickle, or the one at a stream's place, describes.

        Raises:
            Exception: of any kind, where the pickle is damaged or does what is not allowed.
        """
        for opcode, argument, _ in pickletools.genops(pickle):
            self.num_followed += 1
            if self.num_followed > MOST_OPCODES:
                raise self.refusal(f"holds more objects than any {self.kind} has")
            if opcode.name in self.literals:
                self.push(argument)
            elif opcode.name in _CONSTANTS:
                self.push(_CONSTANTS[opcode.name])
            elif opcode.name in self.actions:
                self.actions[opcode.name](argument)
            elif opcode.name not in ("PROTO", "FRAME", "STOP"):
                raise self.refusal(f"is damaged or not a {self.kind}", f"opcode {opcode.name}")
        return self._stack.pop()

    # What a subclass decides

    @abstractmethod
    def refusal(self, rule: str, received: object = None) -> Exception:
        """The error that says why the pickle is not followed further."""

    @abstractmethod
    def named(self, module: Any, name: Any) -> Any:
        """What stands for a name to be imported; nothing makes sure that it is two texts."""

    @abstractmethod
    def called(self, made: Any, arguments: Any) -> Any:
        """What stands for the result of a call."""

    @abstractmethod
    def pairs(self, items: list) -> dict:
        """Keys and values in turns, as entries of a dictionary."""

    @abstractmethod
    def build(self, target: Any, state: Any) -> None:
        """Give an object its state."""

    # Stack and memo

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        # The stack is looked up after the value is made, since that may replace it.
        self._stack.append(value)

    def popped(self, count: int) -> list:
        """Take values from the stack, the deepest first."""
        return [self._stack.pop() for _ in range(count)][::-1]

    def above_mark(self) -> list:
        """Take everything from the stack down to the last mark."""
        items, self._stack = self._stack, self._below_marks.pop()
        return items

    def remember(self, place: int) -> None:
        """Keep the top of the stack under a number."""
        self._memo[place] = self._stack[-1]

    def recall(self, place: int) -> None:
        """Push what is kept under a number."""
        self.push(self._memo[place])

    def _mark(self, _: None) -> None:
        self._below_marks.append(self._stack)
        self._stack = []

    def _append(self, items: list) -> None:
        # Objects that are made of lists, and are not read, keep nothing.
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(items)

    def _set_items(self, items: list) -> None:
        if isinstance(self._stack[-1], dict):
            self._stack[-1].update(self.pairs(items))

    def _build(self, state: Any) -> None:
        self.build(self._stack[-1], state)
