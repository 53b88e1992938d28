# SPDX-License-Identifier: Apache-2.0
"""The paths that belong to one route and to no other, as regular expressions.

For systems in which no order decides between two routes that match: every path has to match at most one.  Their expressions have
no look-around, so what a more specific route takes away is spelt out.  The language is the part that RE2, Rust's ``regex`` and
Python share; ``^`` and ``$`` are the reader's to add.  A path that is ambiguous (:mod:`everyhop.authz.paths`) matches nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from everyhop.policy.model import SegmentKind
from everyhop.policy.routes import specificity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from everyhop.policy.model import Operation, Route, Segment

_ALPHABET: Final = "!$&'()*+,-.0123456789:=@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]_abcdefghijklmnopqrstuvwxyz~"
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_SEPARATORS: Final = frozenset("/\\;%")
_DOTS: Final = (".", "..")
_PRINTABLE: Final = range(0x20, 0x7F)
_SHORTEST_RUN: Final = 3

_Product = tuple[tuple[str, ...], ...]
"""Parts that follow each other; each part is a choice of alternatives."""


@dataclass(frozen=True, slots=True)
class Clean:
    """What a segment is made of on a path of one service; ``triplet`` is empty where no byte may be percent-encoded."""

    triplet: str

    @classmethod
    def of(cls, guarded: frozenset[str], *, encoded: bool = True, folds: bool = True) -> Clean:
        """Return it for a service whose routes hold ``guarded`` literally; without ``encoded`` no ``%`` may stand on a path.

        Without ``folds`` there is no ``(?i:`` in it, which some readers do not know; it is longer then.
        """
        return cls(_triplets(guarded, folds=folds) if encoded else "")

    def one(self, *without: str) -> str:
        """Return an expression for one character or triplet."""
        plain = _class(without)
        return f"(?:{plain}|{self.triplet})" if self.triplet else plain

    @property
    def many(self) -> str:
        """Return an expression for any run of them."""
        return f"{self.one()}*"

    @property
    def segment(self) -> str:
        """Return an expression for one segment that is neither empty nor ``.`` or ``..``."""
        return rf"(?:\.{{0,2}}{self.one('.')}|\.{{3}}){self.many}"

    def segment_but(self, words: Iterable[str]) -> tuple[str, ...]:
        """Return alternatives for a segment that is none of ``words`` either (words without ``%``)."""
        given = sorted({*words})
        if not given:
            return (self.segment,)
        tree = _Word.tree((*given, *_DOTS))
        found = [f"(?:{tree.leaving()}){self.many}"]
        if self.triplet:
            found.append(f"{tree.any_start()}{self.triplet}{self.many}")
        unfinished = tree.unfinished()
        return (*found, unfinished) if unfinished else tuple(found)

    @property
    def rest(self) -> str:
        """Return an expression for what follows a slash: nothing, or segments and perhaps a slash after the last."""
        return f"(?:{self.segment}(?:/|$))*"


class _Word:
    """A tree of words by their characters."""

    __slots__ = ("children", "is_end")

    def __init__(self) -> None:
        self.children: dict[str, _Word] = {}
        self.is_end = False

    @classmethod
    def tree(cls, words: Iterable[str]) -> _Word:
        root = cls()
        for word in sorted(words):
            node = root
            for character in word:
                node = node.children.setdefault(character, cls())
            node.is_end = True
        return root

    def leaving(self) -> str:
        """Return an expression for every shortest start, ended by a plain character, that is the start of no word."""
        deeper = (f"{re.escape(c)}(?:{child.leaving()})" for c, child in sorted(self.children.items()))
        return "|".join((_class(tuple(self.children)), *deeper))

    def any_start(self) -> str:
        """Return an expression for every start of a word, the empty one and whole words too."""
        deeper = "|".join(f"{re.escape(c)}{child.any_start()}" for c, child in sorted(self.children.items()))
        return _optional(deeper)

    def unfinished(self) -> str:
        """Return an expression for every start of a word that is not a word itself, but for the empty one; "" for none."""
        found = []
        for character, child in sorted(self.children.items()):
            deeper = child.unfinished()
            if not child.is_end:
                found.append(re.escape(character) + _optional(deeper))
            elif deeper:
                found.append(f"{re.escape(character)}(?:{deeper})")
        return "|".join(found)


def _optional(text: str) -> str:
    if not text:
        return ""
    return f"{text}?" if len(text) == 1 else f"(?:{text})?"


@lru_cache(maxsize=4096)
def _class(without: tuple[str, ...] = ()) -> str:
    """Return a character class of what stands on a clean path as it is, without some characters."""
    gone = frozenset(without)
    return _class_of([character for character in _ALPHABET if character not in gone])


def _run(run: list[int]) -> str:
    first, last = (_escaped(code) for code in (run[0], run[-1]))
    if len(run) >= _SHORTEST_RUN:
        return f"{first}-{last}"
    return first if len(run) == 1 else first + last


def _escaped(code: int) -> str:
    character = chr(code)
    return f"\\{character}" if character in "[]-^\\&~" else character


@lru_cache(maxsize=256)
def _triplets(guarded: frozenset[str], *, folds: bool) -> str:
    """Return an expression for the percent-encoded bytes that have one reading (not those of unreserved characters)."""
    plain = [
        code
        for code in _PRINTABLE
        if chr(code) not in _UNRESERVED and chr(code) not in _SEPARATORS and chr(code) not in guarded
    ]
    shared: dict[str, list[str]] = {}
    for high in range(8):
        digits = [f"{code % 16:x}" for code in plain if code // 16 == high]
        if not folds:
            digits = sorted({*digits, *(digit.upper() for digit in digits)})
        if digits:
            shared.setdefault(_class_of(digits), []).append(f"{high:x}")
    choices = [f"{_class_of(firsts)}{second}" for second, firsts in shared.items()]
    if folds:
        return f"(?i:%(?:{'|'.join((*choices, '[89a-f][0-9a-f]'))}))"
    return f"%(?:{'|'.join((*choices, '[89A-Fa-f][0-9A-Fa-f]'))})"


def _class_of(characters: Sequence[str]) -> str:
    if len(characters) == 1:
        return re.escape(characters[0])
    runs: list[list[int]] = []
    for code in sorted(ord(character) for character in characters):
        if runs and code == runs[-1][-1] + 1:
            runs[-1].append(code)
        else:
            runs.append([code])
    return f"[{''.join(_run(run) for run in runs)}]"


# -- routes


def more_specific(operation: Operation, others: Iterable[Operation]) -> Iterator[Operation]:
    """Yield those of ``others`` with the same method that come before the operation wherever both match."""
    own = operation.route
    for other in others:
        if other.route.method == own.method and specificity(other.route) < specificity(own):
            yield other


def region(route: Route, others: Iterable[Route], clean: Clean, longest: int) -> tuple[str, ...] | None:
    """Return expressions of at most ``longest`` characters which together match the paths of a route and none of ``others``.

    Empty where nothing is left of it; None where the expressions would be longer.  Methods are not looked at.
    """
    products = _tail(route.segments, [other.segments for other in others], clean)
    found: list[str] = []
    for product in products:
        split = _split((("/",), *product), longest)
        if split is None:
            return None
        found += split
    return tuple(dict.fromkeys(found))


def _split(product: _Product, longest: int) -> list[str] | None:
    """Write a product as one expression, or as several where that is too long."""
    text = "".join(part[0] if len(part) == 1 else f"(?:{'|'.join(part)})" for part in product)
    if len(text) <= longest:
        return [text]
    at = next((index for index, part in enumerate(product) if len(part) > 1), None)
    if at is None:
        return None
    found: list[str] = []
    for choice in product[at]:
        split = _split((*product[:at], (choice,), *product[at + 1 :]), longest)
        if split is None:
            return None
        found += split
    return found


_Segments = tuple["Segment", ...]


def _tail(segments: _Segments, others: Sequence[_Segments], clean: Clean) -> list[_Product]:
    """Return what may follow a slash, so that ``segments`` match and none of ``others`` (which are never empty)."""
    if any(other[0].kind is SegmentKind.REST for other in others):
        return []
    if not others:
        return [_plain(segments, clean)]
    head = segments[0]
    if head.kind is SegmentKind.LITERAL:
        alive = [o[1:] for o in others if _takes(o[0], head.text)]
        return [((re.escape(head.text),), *after) for after in _after(segments[1:], alive, clean)]
    is_rest = head.kind is SegmentKind.REST
    words = sorted({o[0].text for o in others if o[0].kind is SegmentKind.LITERAL} - {""})
    found: list[_Product] = []
    following = segments if is_rest else segments[1:]
    by_after: dict[tuple[_Product, ...], list[str]] = {}
    for word in words:
        alive = [o[1:] for o in others if _takes(o[0], word)]
        by_after.setdefault(tuple(_after(following, alive, clean, may_end=is_rest)), []).append(word)
    for afters, same in by_after.items():
        found += [(tuple(re.escape(word) for word in same), *after) for after in afters]
    alive = [o[1:] for o in others if o[0].kind is SegmentKind.PARAMETER]
    found += [
        (clean.segment_but(words), *after) for after in _after(following, alive, clean, may_end=is_rest)
    ]
    if is_rest and not any(len(o) == 1 and not o[0].text for o in others):
        found.append(())
    return found


def _after(
    following: _Segments, others: Sequence[_Segments], clean: Clean, *, may_end: bool = False
) -> list[_Product]:
    """Return what may follow a segment: a slash with what follows it, and an end where nothing does or within a rest."""
    is_covered = any(not other for other in others)
    found: list[_Product] = [()] if (may_end or not following) and not is_covered else []
    if following:
        deeper = _tail(following, [other for other in others if other], clean)
        found += [(("/",), *after) for after in deeper]
    return found


def _takes(segment: Segment, text: str) -> bool:
    if segment.kind is SegmentKind.LITERAL:
        return segment.text == text
    return bool(text)


def _plain(segments: _Segments, clean: Clean) -> _Product:
    written = {SegmentKind.PARAMETER: clean.segment, SegmentKind.REST: clean.rest}
    texts = [written[s.kind] if s.kind in written else re.escape(s.text) for s in segments]
    return (("/".join(texts),),)
