# SPDX-License-Identifier: Apache-2.0
"""Which characters go when one entry of a YAML list or mapping goes: the entry, its comma or its lines, no more."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

_GAP: Final = re.compile(r"(?:[ \t\r\n]|(?<=[ \t\r\n,])#[^\n]*)*")
_REST_OF_LINE: Final = re.compile(r"[ \t]*(?:(?<=[ \t])#[^\n]*)?\r?(?:\n|\Z)")


def cut_flow(text: str, spans: Sequence[tuple[int, int]], index: int) -> tuple[int, int]:
    """Return the start and the end of what goes with entry ``index`` between brackets, a comma among it.

    ``spans`` holds the start and the end of every entry, of which there are at least two.
    """
    start, end = spans[index]
    comma = _comma(text, end)
    if comma is None:  # the last one, without a comma behind it: the one before it goes
        return spans[index - 1][1], end
    line = text.rfind("\n", 0, start) + 1
    rest = _REST_OF_LINE.match(text, comma + 1)
    if rest is not None and not text[line:start].strip() and "\n" not in text[end:comma]:
        return line, rest.end()
    after = comma + 1
    while text[after : after + 1] in {" ", "\t"}:
        after += 1
    return start, after


def cut_lines(text: str, start: int, end: int, *, is_item: bool) -> tuple[int, int]:
    """Return the start and the end of the lines of an entry of a block list, or of a key of a block mapping.

    Raises InputError where other things stand on its first line (``- a: 1`` of which ``a`` is to go).
    """
    if is_item:
        before = text[:start].rstrip(" \t\r\n")
        if not before.endswith("-"):
            raise InputError("an entry with a comment between its dash and its text is not edited")
        start = len(before) - 1
    line = text.rfind("\n", 0, start) + 1
    if text[line:start].strip(" "):
        raise InputError("what shares its line with something else is not edited")
    if not text[:end].endswith("\n"):
        found = text.find("\n", end)
        end = len(text) if found < 0 else found + 1
    return line, end


def _comma(text: str, end: int) -> int | None:
    """Return where the comma behind an entry stands, or None where a bracket follows."""
    gap = _GAP.match(text, end)
    at = end if gap is None else gap.end()
    return at if text[at : at + 1] == "," else None
