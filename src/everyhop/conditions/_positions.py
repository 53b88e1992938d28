# SPDX-License-Identifier: Apache-2.0
"""Places in a condition's text, and mistakes at them in words for people."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from everyhop.conditions.limits import MAX_PROBLEMS
from everyhop.conditions.model import ConditionProblem
from everyhop.core.names import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable

_SKIPPED: Final = r"//[^\n]*"
_STRINGS: Final = r"""
    (?P<raw>[rR][bB]?|[bB][rR]) (?: \"\"\".*?\"\"\" | '''.*?''' | "[^"\n]*" | '[^'\n]*' )
    | \"\"\" (?:\\.|[^\\])*? \"\"\" | ''' (?:\\.|[^\\])*? ''' | " (?:\\.|[^"\\\n])* " | ' (?:\\.|[^'\\\n])* '
"""
_TOKEN: Final = re.compile(
    rf"{_STRINGS} | {_SKIPPED} | (?<![\w.]) (?P<has>has) (?: \s | {_SKIPPED} )* \( | \w+",
    re.VERBOSE | re.DOTALL,
)
_UNDECLARED: Final = re.compile(r"undeclared reference to '(.*)' \(in container ''\)")
_OVERLOAD: Final = re.compile(r"found no matching overload for '(.*)' applied to '(.*)'")
_OPERATOR: Final = re.compile(r"_?([^\w]+)_")
_MAX_SHOWN: Final = 80
_OTHER_LANGUAGES: Final = {"and": "write &&", "or": "write ||", "not": "write !", "=": "write =="}


def problem_at(offset: int, message: str, text: str, suggestion: str | None = None) -> ConditionProblem:
    """Return the problem at an offset that counts code points, as CEL's positions do."""
    before = text[:offset]
    return ConditionProblem(
        message, before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1, suggestion
    )


def problems_at(mistakes: Iterable[tuple[int, str]], text: str) -> list[ConditionProblem]:
    """Return the problems in the order of the text, each once, no more than one refusal reports."""
    return [problem_at(offset, message, text) for offset, message in sorted(set(mistakes))][:MAX_PROBLEMS]


def macros_named_has(text: str) -> list[int]:
    """Return where ``has(`` stands, outside of strings and comments, in a text that CEL has accepted."""
    return [match.start() for match in _TOKEN.finditer(text) if match["has"]]


def problems_of_cel(
    errors: list[tuple[int, int, str]], text: str, variables: Iterable[str], functions: Iterable[str]
) -> list[ConditionProblem]:
    """Return what CEL found wrong (line, column, message), in our words and with a suggestion where one is known."""
    lines = text.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    found = []
    for row, column, message in errors[:MAX_PROBLEMS]:
        at = min(starts[min(row, len(lines)) - 1] + column - 1, len(text))
        found.append(_of_cel(at, message, text, set(variables), set(functions)))
    return found


def _of_cel(
    offset: int, message: str, text: str, variables: set[str], functions: set[str]
) -> ConditionProblem:
    if match := _UNDECLARED.fullmatch(message):
        return _unknown_name(offset, match[1], text, variables, functions)
    if match := _OVERLOAD.fullmatch(message):
        operator = _OPERATOR.match(match[1])
        name = operator[1] if operator else match[1]
        kinds = match[2].strip("()")
        return problem_at(offset, f"{name} cannot be applied to ({kinds})"[:200], text)
    word = re.match(r"\w+|=", text[offset:])
    hint = _OTHER_LANGUAGES.get(word[0]) if word else None
    plain = message.partition(" expecting {")[0].replace("Syntax error: ", "syntax error: ")
    return problem_at(offset, _printable(plain), text, hint)


def _unknown_name(
    offset: int, name: str, text: str, variables: set[str], functions: set[str]
) -> ConditionProblem:
    is_call = text[offset : offset + 1] == "("
    for written in (
        name,
        name.rpartition(".")[0],
    ):  # CEL points at the bracket of a call, at the last dot of a name
        if written and text[:offset].endswith(written):
            offset -= len(written)
            break
    shown = _printable(name[:_MAX_SHOWN])
    if is_call and name in functions:
        return problem_at(offset, f"{shown}() does not take these arguments", text)
    near = nearest(name[:_MAX_SHOWN], functions if is_call else variables)
    kind = "function" if is_call else "variable"
    return problem_at(
        offset, f"there is no {kind} {shown!r}", text, f"did you mean {near!r}?" if near else None
    )


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:200])
