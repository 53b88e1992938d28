# SPDX-License-Identifier: Apache-2.0
"""Is a path free of second readings?

A path is *clean* when every reasonable reader, from the proxy to the framework behind it, splits and decodes it
alike.  Everything else is *ambiguous* and refused with 400, whatever the rules say; nothing is normalised
(DESIGN section 2, principle 1; RFC 3986 sections 2.3, 3.3 and 6.2.2).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_SEPARATORS: Final = frozenset(b"/\\;")
_CONTROL: Final = frozenset((*range(0x20), 0x7F))
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_RAW_REFUSED: Final = frozenset(';\\#<>"{}|^` ')
_CLEAN_CHARACTER: Final = r"[!$&-.0-:=@-\[\]_a-z~]"


class PathFlaw(StrEnum):
    """Why a path is ambiguous, as a stable code."""

    NOT_ABSOLUTE = "not-absolute"  # no leading slash: an authority, an absolute URI, "*", or nothing
    BAD_CHARACTER = "bad-character"  # outside 0x21-0x7E, or one of ; \ # < > " { } | ^ `
    EMPTY_SEGMENT = "empty-segment"  # //
    DOT_SEGMENT = "dot-segment"  # /./ or /../
    BAD_TRIPLET = "bad-triplet"  # % without two hex digits
    ENCODED_CONTROL = "encoded-control"  # %00 to %1F, %7F
    ENCODED_SEPARATOR = "encoded-separator"  # / \ or ;
    ENCODED_PERCENT = "encoded-percent"  # %25 starts a second round of decoding
    ENCODED_UNRESERVED = "encoded-unreserved"  # %61 is another spelling of a
    ENCODED_GUARDED = "encoded-guarded"  # another spelling of a character in one of the service's routes


_EXPLANATIONS: Final = {
    PathFlaw.NOT_ABSOLUTE: "the path does not start with /",
    PathFlaw.BAD_CHARACTER: "it holds a character that a path cannot carry",
    PathFlaw.EMPTY_SEGMENT: "it has an empty segment (//)",
    PathFlaw.DOT_SEGMENT: "it has a dot segment (/./ or /../)",
    PathFlaw.BAD_TRIPLET: "a % is not followed by two hex digits",
    PathFlaw.ENCODED_CONTROL: "it holds an encoded control character",
    PathFlaw.ENCODED_SEPARATOR: "it holds an encoded separator (/, \\ or ;)",
    PathFlaw.ENCODED_PERCENT: "it holds an encoded % and could be decoded twice",
    PathFlaw.ENCODED_UNRESERVED: "it encodes a character that needs no encoding",
    PathFlaw.ENCODED_GUARDED: "it encodes a character that a route of this service holds literally",
}


@dataclass(frozen=True, slots=True)
class CleanPath:
    """A path with one reading; ``segments`` are as on the wire, the last one empty after a trailing slash."""

    text: str

    @property
    def segments(self) -> tuple[str, ...]:
        """Return what stands between the slashes."""
        return tuple(self.text[1:].split("/"))


@dataclass(frozen=True, slots=True)
class AmbiguousPath:
    """A path that is refused: why, and where (an index into the target as given)."""

    reason: PathFlaw
    at: int

    @property
    def explanation(self) -> str:
        """Say it for people."""
        return _EXPLANATIONS[self.reason]


def classify_path(target: str | bytes, guarded: frozenset[str]) -> CleanPath | AmbiguousPath:
    """Classify the path of a raw request target (what follows a ``?`` is not looked at).

    ``target`` is as on the wire; bytes are read one character each.  ``guarded`` are the characters that this
    service's routes hold literally (:func:`everyhop.policy.routes.guarded_characters`).  Total: never raises.
    """
    text = target.decode("latin-1") if isinstance(target, bytes) else target
    path = text.partition("?")[0]
    if clean_pattern(guarded).match(path):
        return CleanPath(path)
    return _diagnose(path, guarded)


@lru_cache(maxsize=1024)
def clean_pattern(guarded: frozenset[str]) -> re.Pattern[str]:
    """Return the expression whose ``match`` tells a clean path; it has no backtracking to exploit."""
    segment = rf"/(?!\.\.?(?:/|\Z))(?:{_CLEAN_CHARACTER}++|{_triplets(guarded)})++"
    return re.compile(rf"(?=/)(?:{segment})*+/?\Z")


def _triplets(guarded: frozenset[str]) -> str:
    """Return an expression for the percent-encoded bytes that have one reading."""
    rows = []
    for high in range(16):
        low = "".join(f"{n:x}{n:X}" for n in range(16) if _triplet_flaw(high * 16 + n, guarded) is None)
        if low:
            rows.append(f"[{high:x}{high:X}][{''.join(sorted(set(low)))}]")
    return f"%(?:{'|'.join(rows)})"


def _triplet_flaw(byte: int, guarded: frozenset[str]) -> PathFlaw | None:
    if byte in _CONTROL:
        return PathFlaw.ENCODED_CONTROL
    if byte in _SEPARATORS:
        return PathFlaw.ENCODED_SEPARATOR
    if byte == ord("%"):
        return PathFlaw.ENCODED_PERCENT
    if byte in _UNRESERVED:
        return PathFlaw.ENCODED_UNRESERVED
    return PathFlaw.ENCODED_GUARDED if chr(byte) in guarded else None


def _diagnose(path: str, guarded: frozenset[str]) -> AmbiguousPath:
    """Find the first flaw of a path that the expression refused."""
    if not path.startswith("/"):
        return AmbiguousPath(PathFlaw.NOT_ABSOLUTE, 0)
    segments = path[1:].split("/")
    at = 1
    for number, segment in enumerate(segments, 1):
        if not segment and number < len(segments):
            return AmbiguousPath(PathFlaw.EMPTY_SEGMENT, at)
        if segment in {".", ".."}:
            return AmbiguousPath(PathFlaw.DOT_SEGMENT, at)
        found = _character_flaw(segment, guarded)
        if found is not None:
            return AmbiguousPath(found[0], at + found[1])
        at += len(segment) + 1
    raise AssertionError(f"{path!r} was refused without a flaw")  # pragma: no cover  # tests compare the two


def _character_flaw(segment: str, guarded: frozenset[str]) -> tuple[PathFlaw, int] | None:
    for index, character in enumerate(segment):
        if not "!" <= character <= "~" or character in _RAW_REFUSED:
            return PathFlaw.BAD_CHARACTER, index
        if character == "%":
            digits = segment[index + 1 : index + 3]
            if len(digits) != len("XX") or not _HEX.issuperset(digits):
                return PathFlaw.BAD_TRIPLET, index
            flaw = _triplet_flaw(int(digits, 16), guarded)
            if flaw is not None:
                return flaw, index
    return None
