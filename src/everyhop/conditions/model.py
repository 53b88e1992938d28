# SPDX-License-Identifier: Apache-2.0
"""Values of the room: the vocabulary of a condition, its outcome, its clauses, and what is wrong with its text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final

from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}(?:\.[A-Za-z_][A-Za-z0-9_]{0,63}){0,7}", re.ASCII)
_RESERVED: Final = frozenset(
    [
        "as",
        "break",
        "const",
        "continue",
        "else",
        "false",
        "for",
        "function",
        "if",
        "import",
        "in",
        "let",
        "loop",
        "namespace",
        "null",
        "package",
        "return",
        "true",
        "var",
        "void",
        "while",
    ]
)
"""Words that CEL keeps for itself (cel-spec, language definition, section "Syntax")."""

_TYPE_NAMES: Final = frozenset(
    [
        "bool",
        "bytes",
        "cel",
        "double",
        "duration",
        "dyn",
        "google",
        "has",
        "int",
        "list",
        "map",
        "null_type",
        "optional_type",
        "string",
        "timestamp",
        "type",
        "uint",
    ]
)
"""Names that mean a type, a macro or a package; a variable that begins with one would be read as that."""


class ValueType(StrEnum):
    """The types that a variable of a condition may have."""

    BOOL = "bool"
    INT = "int"
    DOUBLE = "double"
    STRING = "string"
    STRINGS = "strings"
    TIMESTAMP = "timestamp"
    STRING_MAP = "string_map"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The variables that a condition may read: dotted name -> type.

    Two vocabularies with the same names and types are equal and share everything that is cached.  Raises
    InputError for a name that is no dotted CEL identifier of at most 8 parts, or of which another name is a
    prefix (``user`` beside ``user.id``): such a pair would make ``user.id`` ambiguous.
    """

    variables: Mapping[str, ValueType]

    def __post_init__(self) -> None:
        """Check the names and keep a sorted copy that nobody can change."""
        names = sorted(self.variables)
        for name in names:
            parts = name.split(".")
            if not _NAME.fullmatch(name) or parts[0] in _TYPE_NAMES or not _RESERVED.isdisjoint(parts):
                raise InputError(f"{name[:80]!r} cannot be the name of a variable in a condition")
            if any(".".join(parts[:n]) in self.variables for n in range(1, len(parts))):
                raise InputError(f"{name!r} begins with the name of another variable")
        ordered = {name: ValueType(self.variables[name]) for name in names}
        object.__setattr__(self, "variables", MappingProxyType(ordered))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return dict(self.variables) == dict(other.variables)

    def __hash__(self) -> int:
        return hash(tuple(self.variables.items()))


class Truth(StrEnum):
    """What an evaluation gives.  Only TRUE permits anything; FALSE and ERROR differ for people alone."""

    TRUE = "true"
    FALSE = "false"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one evaluation; ``error`` is one short line without request data, set with ERROR only."""

    truth: Truth
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Clause:
    """One conjunct or disjunct of a condition, evaluated alone.

    ``text`` is the clause in normal form, ``inputs`` the values that it saw, shortened for people: variable, or
    ``map['key']``, to text; what was absent is not in it.
    """

    text: str
    truth: Truth
    inputs: Mapping[str, str]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ConditionProblem:
    """One mistake in a condition: ``line`` and ``column`` count from 1, within the condition's own text."""

    message: str
    line: int
    column: int
    suggestion: str | None = None

    def render(self) -> str:
        """Return one line for people."""
        tail = f" ({self.suggestion})" if self.suggestion else ""
        return f"{self.line}:{self.column}: {self.message}{tail}"


class ConditionError(InputError):
    """A condition that is refused when it is read; ``problems`` holds every mistake with its position."""

    code: ClassVar[str] = "CONDITION_INVALID"

    def __init__(self, problems: Sequence[ConditionProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problem.render() for problem in self.problems))
