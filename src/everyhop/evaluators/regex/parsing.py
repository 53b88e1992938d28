# SPDX-License-Identifier: Apache-2.0
"""The text of a regular expression to its tree."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import Final, NoReturn

from everyhop.core.errors import InputError

MAX_TEXT: Final = 8192
MAX_REPEAT: Final = 1000  # RE2's own limit
MAX_DEPTH: Final = 100
TOP: Final = 0x10FFFF
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of these ranges, in order and apart; ``folds``: written as itself where case does not count."""

    ranges: Ranges
    folds: bool = False


@dataclass(frozen=True, slots=True)
class Begin:
    """The start of the text."""


@dataclass(frozen=True, slots=True)
class End:
    """The end of the text."""


@dataclass(frozen=True, slots=True)
class Concat:
    """One after the other; nothing at all where there are no parts."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alternate:
    """Any of them, the first that leads to a match preferred."""

    options: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """A node again and again; ``high`` None is without limit."""

    node: Node
    low: int
    high: int | None
    is_greedy: bool = True


@dataclass(frozen=True, slots=True)
class Capture:
    """A group that captures: no other match, only a larger program."""

    node: Node


Node = Chars | Begin | End | Concat | Alternate | Repeat | Capture


def is_nullable(node: Node) -> bool:
    """Tell whether a node can match nothing."""
    match node:
        case Chars():
            return False
        case Concat():
            return all(is_nullable(one) for one in node.parts)
        case Alternate():
            return any(is_nullable(one) for one in node.options)
        case Capture():
            return is_nullable(node.node)
        case Repeat():
            return node.low == 0 or is_nullable(node.node)
        case Begin() | End():
            return True


_NAMED: Final = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": "\x00-\x7f",
    "blank": "\t\t  ",
    "digit": "0-9",
    "lower": "a-z",
    "punct": "!-/:-@[-`{-~",
    "space": "\t-\r  ",
    "upper": "A-Z",
    "word": "0-9A-Za-z__",
    "xdigit": "0-9A-Fa-f",
}
_CLASSES: Final = {"d": "0-9", "w": "0-9A-Za-z__", "s": "\t-\n\f-\r  "}
_SINGLE: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}
_DOT: Final = ((0, 9), (11, TOP))
_HEX: Final = re.compile(r"x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,6})\})")
_REPEAT: Final = re.compile(r"\{(\d{1,5})(,(\d{1,5})?)?\}")
_POSIX: Final = re.compile(r"\[:(\^?)([a-z]+):\]")
_SCOPE: Final = re.compile(r"\?(-?i)?:")
_NAME: Final = re.compile(r"\?P?<([A-Za-z_][A-Za-z0-9_]*)>")


def parse(text: str) -> Node:
    """Read an expression; raises InputError for what is none, or is not read here."""
    if len(text) > MAX_TEXT:
        raise InputError(f"a regular expression has at most {MAX_TEXT} characters")
    return _Parser(text).read()


def ranges_of(pairs: str) -> Ranges:
    """Return ranges written as ``a-z0-9`` or as pairs of characters without a dash."""
    found, index = [], 0
    while index < len(pairs):
        step = 3 if index + 2 < len(pairs) and pairs[index + 1] == "-" else 2
        found.append((ord(pairs[index]), ord(pairs[index + step - 1])))
        index += step
    return joined(found)


def joined(ranges: list[tuple[int, int]]) -> Ranges:
    """Return ranges in order, those that touch made one."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return tuple(found)


def negated(ranges: Ranges) -> Ranges:
    """Return everything else."""
    found, start = [], 0
    for low, high in ranges:
        if start < low:
            found.append((start, low - 1))
        start = high + 1
    if start <= TOP:
        found.append((start, TOP))
    return tuple(found)


def _folded(ranges: Ranges) -> Ranges:
    """Return ranges with the other case of each ASCII letter."""
    found = list(ranges)
    for low, high in ranges:
        for start, end, shift in ((65, 90, 32), (97, 122, -32)):
            if max(low, start) <= min(high, end):
                found.append((max(low, start) + shift, min(high, end) + shift))
    return joined(found)


class _Parser:
    """Recursive descent, of bounded depth."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._folds = text.startswith("(?i)")
        if self._folds:
            self._at = 4

    def read(self) -> Node:
        found = self._alternate()
        if self._at < len(self._text):
            self._fail("a group ends that has not begun")
        return found

    def _fail(self, message: str) -> NoReturn:
        raise InputError(f"the regular expression {self._text[:80]!r}: {message} (at {self._at + 1})")

    def _peek(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else ""

    def _alternate(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail("groups lie too deep")
        options = [self._concat()]
        while self._peek() == "|":
            self._at += 1
            options.append(self._concat())
        self._depth -= 1
        return options[0] if len(options) == 1 else Alternate(tuple(options))

    def _concat(self) -> Node:
        parts: list[Node] = []
        while self._peek() not in {"", "|", ")"}:
            parts.append(self._repeated(self._atom()))
        return parts[0] if len(parts) == 1 else Concat(tuple(parts))

    def _repeated(self, node: Node) -> Node:
        bounds = self._bounds()
        if bounds is None:
            return node
        is_greedy = self._peek() != "?"
        if not is_greedy:
            self._at += 1
        if self._peek() in {"*", "+", "?", "{"}:
            self._fail("a repetition of a repetition")
        if isinstance(node, Begin | End):
            self._fail("a repetition of a place")
        return Repeat(node, *bounds, is_greedy)

    def _bounds(self) -> tuple[int, int | None] | None:
        sign = self._peek()
        if simple := {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(sign):
            self._at += 1
            return simple
        if sign != "{":
            return None
        found = _REPEAT.match(self._text, self._at)
        if found is None:
            self._fail("a brace that is no repetition is to be escaped")
        low = int(found[1])
        high = low if found[2] is None else int(found[3]) if found[3] else None
        if max(low, high or 0) > MAX_REPEAT or (high is not None and high < low):
            self._fail("bounds of a repetition")
        self._at = found.end()
        return low, high

    def _atom(self) -> Node:
        sign = self._peek()
        self._at += 1
        match sign:
            case "(":
                return self._group()
            case "[":
                return Chars(self._set())
            case ".":
                return Chars(_DOT)
            case "^":
                return Begin()
            case "$":
                return End()
            case "\\":
                return self._escape()
            case "*" | "+" | "?" | "{":
                self._fail("a repetition of nothing")
        return self._chars(((ord(sign), ord(sign)),))

    def _chars(self, ranges: Ranges) -> Chars:
        return Chars(_folded(ranges), folds=True) if self._folds else Chars(ranges)

    def _group(self) -> Node:
        captures, folds = True, self._folds
        if scoped := _SCOPE.match(self._text, self._at):
            self._at = scoped.end()
            captures = False
            self._folds = {"i": True, "-i": False}.get(scoped[1] or "", folds)
        elif found := _NAME.match(self._text, self._at):
            self._at = found.end()
        elif self._peek() == "?":
            self._fail("this kind of group is not read")
        node = self._alternate()
        if self._peek() != ")":
            self._fail("a group has no end")
        self._at += 1
        self._folds = folds
        return Capture(node) if captures else node

    def _escape(self) -> Node:
        sign = self._peek()
        if sign == "A":
            self._at += 1
            return Begin()
        if sign == "z":
            self._at += 1
            return End()
        return self._chars(self._escaped())

    def _escaped(self) -> Ranges:
        """Read what follows a backslash, in a set or outside."""
        sign = self._peek()
        if sign.lower() in _CLASSES and sign:
            self._at += 1
            found = ranges_of(_CLASSES[sign.lower()])
            return found if sign.islower() else negated(found)
        if found_hex := _HEX.match(self._text, self._at):
            self._at = found_hex.end()
            code = int(found_hex[1] or found_hex[2], 16)
            if code > TOP:
                self._fail("no such character")
            return ((code, code),)
        if sign not in _SINGLE and (not sign or sign not in string.punctuation):
            self._fail("this escape is not read")
        self._at += 1
        code = ord(_SINGLE.get(sign, sign))
        return ((code, code),)

    def _set(self) -> Ranges:
        negates = self._peek() == "^"
        if negates:
            self._at += 1
        found: list[tuple[int, int]] = []
        is_first = True
        while self._peek() != "]" or is_first:
            found += self._member(is_first=is_first)
            is_first = False
        self._at += 1
        ranges = joined(found)
        if self._folds:
            ranges = _folded(ranges)
        return negated(ranges) if negates else ranges

    def _member(self, *, is_first: bool) -> Ranges:
        if self._text[self._at : self._at + 2] in {"&&", "--", "~~"}:
            self._fail("operations on sets are not read")
        if posix := _POSIX.match(self._text, self._at):
            if posix[2] not in _NAMED:
                self._fail("no such class")
            self._at = posix.end()
            named = ranges_of(_NAMED[posix[2]])
            return negated(named) if posix[1] else named
        if self._peek() == "-" and not is_first and self._text[self._at + 1 : self._at + 2] != "]":
            self._fail("a dash stands first, last, or between two characters")
        low = self._one()
        if self._peek() != "-" or self._text[self._at + 1 : self._at + 2] in {"]", ""}:
            return low
        self._at += 1
        high = self._one()
        if len(low) != 1 or len(high) != 1 or low[0][0] != low[0][1] or high[0][0] != high[0][1]:
            self._fail("a range goes from a character to a character")
        if high[0][0] < low[0][0]:
            self._fail("a range goes upwards")
        return ((low[0][0], high[0][0]),)

    def _one(self) -> Ranges:
        sign = self._peek()
        if sign in {"", "["}:
            self._fail("a set has no end, or holds a bracket that is to be escaped")
        self._at += 1
        if sign == "\\":
            return self._escaped()
        return ((ord(sign), ord(sign)),)
