# SPDX-License-Identifier: Apache-2.0
r"""Routes as regular expressions for Cilium, and how large a program each of them is.

Cilium hands ``path`` to Envoy, which matches it against the whole of ``:path``, query included, by RE2.  So an expression is
anchored, ends in an optional query, and its segments hold exactly what our engine takes for clean: no dot segments, no encoded
separators (:mod:`everyhop.authz.paths`).  A query of bytes outside of ASCII, which RFC 3986 does not have, is refused.

Envoy refuses a program of more than 100 instructions, and then a node keeps no policy of the endpoint (cilium#41314), so the size is
counted here before anybody is handed the expression.  RE2 takes the literal text after ``^`` out of the program; what follows
the first parameter counts.  The tests compare the count with what Envoy says.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from everyhop.authz.paths import CleanPath, classify_path
from everyhop.policy.model import SegmentKind

if TYPE_CHECKING:
    from everyhop.policy.model import Route, Segment

MAX_PROGRAM: Final = 96
"""What we write at most: Envoy's default of ``re2.max_program_size.error_level``, 100, less what another RE2 may count more."""

_HEX: Final = "0123456789ABCDEF"
_SPECIAL: Final = frozenset(".$()*+")
_PLAIN: Final = r"[!$&-,:=@A-Z\[\]_a-z~0-9-]"  # of a clean segment all but the dot and the percent sign
_QUERY: Final = r"(?:\?[!-~]*)?"

# Instructions of RE2, measured: of the frame with its query, of a segment, of the plain characters, of the rest.
_FRAME_SIZE: Final = 8
_SEGMENT_SIZE: Final = 10
_PLAIN_SIZE: Final = 11
_REST_SIZE: Final = 6
_ENCODED_SIZE: Final = -5  # beside one for each range and each branch: branches share their beginnings


@dataclass(frozen=True, slots=True, kw_only=True)
class PathExpression:
    """A path template as an expression; ``size`` is an upper bound of RE2's program.

    ``takes_encoded`` tells whether parameters take percent-encoded bytes; without them it matches less than the route.
    """

    text: str
    size: int
    takes_encoded: bool

    @property
    def fits(self) -> bool:
        """Tell whether Envoy takes it."""
        return self.size <= MAX_PROGRAM


def method_expression(route: Route) -> str:
    """Return the expression for a method, anchored (``HEAD`` is not ``GET``)."""
    return f"^{route.method}$"


def path_expression(route: Route, guarded: frozenset[str]) -> PathExpression:
    """Return the expression that matches exactly the clean paths of a route, with any query.

    ``guarded`` are the characters that a path of this service must not carry encoded.  Where the exact one is too large, it is one
    that takes no percent-encoded bytes; that may be too large as well.
    """
    exact = _expression(route.segments, guarded, takes_encoded=True)
    if exact.fits:
        return exact
    return _expression(route.segments, guarded, takes_encoded=False)


def _expression(
    segments: tuple[Segment, ...], guarded: frozenset[str], *, takes_encoded: bool
) -> PathExpression:
    encoded, encoded_size = _triplets(guarded) if takes_encoded else ("", 0)
    character = f"(?:{_PLAIN}|{encoded})" if encoded else _PLAIN
    one = rf"(?:(?:\.*{character})+\.*|\.\.\.+)"  # no empty segment, no . and no ..
    one_size = _SEGMENT_SIZE + _PLAIN_SIZE + encoded_size
    text, size, is_prefix = "", 0, True
    for segment in segments:
        if segment.kind is SegmentKind.REST:
            text += f"(?:(?:/{one})+/?|/)"
            size += _REST_SIZE + one_size
            is_prefix = False
        elif segment.kind is SegmentKind.PARAMETER:
            text += f"/{one}"
            size += one_size + (0 if is_prefix else 1)
            is_prefix = False
        else:
            text += "/" + _escaped(segment.text)
            size += 0 if is_prefix else 1 + len(segment.text)
    return PathExpression(
        text=f"^{text}{_QUERY}$",
        size=_FRAME_SIZE + size,
        takes_encoded=takes_encoded or all(one.kind is SegmentKind.LITERAL for one in segments),
    )


def _escaped(text: str) -> str:
    return "".join(f"\\{one}" if one in _SPECIAL else one for one in text)


@lru_cache(maxsize=1024)
def _triplets(guarded: frozenset[str]) -> tuple[str, int]:
    """Return an expression for the percent-encoded bytes that have one reading, and its size."""
    rows: dict[str, str] = {}
    for high in range(16):
        low = "".join(
            digit
            for number, digit in enumerate(_HEX)
            if isinstance(classify_path(f"/%{high:X}{number:X}", guarded), CleanPath)
        )
        if low:
            rows[low] = rows.get(low, "") + _HEX[high]
    size = _ENCODED_SIZE
    branches = []
    for low, highs in rows.items():
        branches.append(_digits(highs) + _digits(low))
        size += _ranges(highs) + _ranges(low) + 1
    return f"%(?:{'|'.join(branches)})", size


def _digits(digits: str) -> str:
    """Return a class of hexadecimal digits, letters in both cases."""
    if len(digits) == 1 and digits.isdigit():
        return digits
    runs = _runs(digits)
    lower = [run.lower() for run in runs if run[0].isalpha()]
    return "[" + "".join(_run(run) for run in (*runs, *lower)) + "]"


def _run(run: str) -> str:
    return run if len(run) <= len("AB") else f"{run[0]}-{run[-1]}"


def _runs(digits: str) -> list[str]:
    """Split digits into runs of neighbours; 9 and A are none."""
    runs: list[str] = []
    for digit in digits:
        if runs and digit != "A" and _HEX.index(digit) == _HEX.index(runs[-1][-1]) + 1:
            runs[-1] += digit
        else:
            runs.append(digit)
    return runs


def _ranges(digits: str) -> int:
    return len(_runs(digits))
