# SPDX-License-Identifier: Apache-2.0
"""What the tour prints: tables for people, one JSON document for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from everyhop.demo.model import Result

_COLOURS: Final = {"green": "32", "red": "31", "dim": "2", "bold": "1"}


def paint(text: str, colour: str) -> str:
    """Colour ``text`` when standard output is a terminal and NO_COLOR is not set."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def printable(text: object) -> str:
    """Replace control characters: what was seen may come from an attack."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def table(header: Sequence[str], rows: Sequence[Sequence[object]], widths: Sequence[int]) -> str:
    """Return rows in columns of these widths, two spaces apart, without lines or boxes."""
    shown = [[printable("-" if cell is None else cell) for cell in row] for row in rows]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in shown]
    heading = "  ".join(name.upper().ljust(w) for name, w in zip(header, widths, strict=True)).rstrip()
    return "\n".join([paint(heading, "dim"), *(_mark(line) for line in lines)])


def _mark(line: str) -> str:
    if line.endswith("MISMATCH"):
        return line.removesuffix("MISMATCH") + paint("MISMATCH", "red")
    return line.removesuffix("ok") + paint("ok", "green") if line.endswith("ok") else line


def render(results: Sequence[Result], *, verbose: bool) -> str:
    """Return one table per theme, with columns as wide as all of them need; notes with ``verbose``."""
    header = ("#", "attempt", "expected", "seen", "ok")
    rows = [
        (i, r.attempt.name, r.attempt.expected, r.seen, "ok" if r.is_ok else "MISMATCH")
        for i, r in enumerate(results, 1)
    ]
    widths = [max(len(header[n]), *(len(printable(row[n])) for row in rows)) for n in range(len(header))]
    parts = []
    for theme in dict.fromkeys(r.attempt.theme for r in results):
        chosen = [row for row, r in zip(rows, results, strict=True) if r.attempt.theme == theme]
        parts.append(f"\n{paint(theme, 'bold')}\n{table(header, chosen, widths)}")
        if verbose:
            parts += [
                paint(f"    {row[0]}: {_note(r)}", "dim")
                for row, r in zip(rows, results, strict=True)
                if r.attempt.theme == theme and _note(r)
            ]
    return "\n".join(parts)


def _note(result: Result) -> str:
    decision = f"decision {result.decision}" if result.decision else ""
    rule = f"rule {result.rule}" if result.rule else ""
    return printable("; ".join(word for word in (result.note, decision, rule) if word))


def mismatches(results: Sequence[Result]) -> list[Result]:
    """Return the results that are not as expected."""
    return [result for result in results if not result.is_ok]


def exit_code(results: Sequence[Result]) -> int:
    """Return 0 when there are results and all of them match, else 1."""
    return 0 if results and not mismatches(results) else 1


def summary(flows: Sequence[Result], attacks: Sequence[Result], records: int, seconds: float) -> str:
    """Return the last line."""
    wrong = mismatches([*flows, *attacks])
    verdict = (
        paint("all as expected", "green") if not wrong else paint(f"{len(wrong)} not as expected", "red")
    )
    return (
        f"{len(flows)} legitimate calls, {len(attacks)} attacks: {verdict}; "
        f"{records} decisions recorded; {seconds:.1f} s"
    )


def document(
    flows: Sequence[Result], attacks: Sequence[Result], records: int, seconds: float
) -> dict[str, Any]:
    """Return everything for ``-o json``."""
    return {
        "ok": exit_code([*flows, *attacks]) == 0,
        "seconds": round(seconds, 2),
        "decisions_recorded": records,
        "flows": [result.to_dict() for result in flows],
        "attacks": [result.to_dict() for result in attacks],
    }
