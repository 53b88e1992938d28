# SPDX-License-Identifier: Apache-2.0
"""What commands print: text for people, JSON for programs, errors on standard error."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from everyhop.core.printable import escape_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from everyhop.core.errors import EveryhopError

_COLOURS: Final = {"green": "32", "red": "31", "yellow": "33", "dim": "2", "bold": "1"}


def wants_json(args: argparse.Namespace) -> bool:
    """Tell whether ``-o json`` was given."""
    return getattr(args, "output", "text") == "json"


def print_json(value: Any, *, line: bool = False) -> None:  # any JSON
    """Print a JSON value, on one line or indented; what is not printable is escaped."""
    text = json.dumps(value, ensure_ascii=False, default=str, indent=None if line else 2)
    print(escape_json(text, keep="" if line else "\n"), flush=line)


def paint(text: str, colour: str) -> str:
    """Colour ``text`` when standard output is a terminal and NO_COLOR is not set."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def printable(text: object) -> str:
    """Replace control characters: paths and header values come from attackers, and a terminal obeys them."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows in aligned columns, two spaces apart, without lines or boxes."""
    shown = [[printable("-" if cell is None else cell) for cell in row] for row in rows]
    widths = [max([len(h), *(len(row[i]) for row in shown)]) for i, h in enumerate(header)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in shown]
    heading = "  ".join(h.upper().ljust(w) for h, w in zip(header, widths, strict=True)).rstrip()
    return "\n".join([paint(heading, "dim"), *lines])


def say(text: str) -> None:
    """Print a message of ours on standard error."""
    print(f"everyhop: {text}", file=sys.stderr, flush=True)


def print_error(error: EveryhopError) -> None:
    """Print an error with the fix where one is known."""
    print(f"everyhop: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"          {error.hint}", file=sys.stderr)
    sys.stderr.flush()
