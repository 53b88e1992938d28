# SPDX-License-Identifier: Apache-2.0
"""The table of docs/reference/bypasses.md, made of what every point answered to every attempt."""

from __future__ import annotations

import os

from tests.vectors.bypass_attempts import ATTEMPTS, ELSEWHERE, SOURCES

BEGIN = "<!-- the table: written by tests/integration/bypasses/test_attempts.py -->"
END = "<!-- end of the table -->"
REWRITE = "EVERYHOP_WRITE_BYPASSES"


def table(answers):
    """Return the table; ``answers`` has for (point, number) what came of each attempt there."""
    names = list(dict.fromkeys(name for name, _ in answers))
    lines = ["| attempt | seen in | answers |", "|---|---|---|"]
    for number in sorted(SOURCES):
        if number in ELSEWHERE:
            lines.append(f"| {number} | {SOURCES[number]} | no request: {ELSEWHERE[number]} |")
            continue
        for attempt in (one for one in ATTEMPTS if one.number == number):
            cells = {
                name: answers[name, number][attempt.id]
                for name in names
                if attempt.id in answers[name, number]
            }
            lines.append(f"| {attempt.id} | {SOURCES[number]} | {_told(cells)} |")
    return "\n".join(lines)


def _told(cells):
    """Say what all answer, or who answers what, the most common answer first."""
    by_answer = {}
    for name, answer in cells.items():
        by_answer.setdefault(answer, []).append(name)
    ordered = sorted(by_answer.items(), key=lambda one: -len(one[1]))
    if len(ordered) == 1:
        return f"{ordered[0][0]} (all {len(cells)})"
    first = f"{ordered[0][0]} ({len(ordered[0][1])} of {len(cells)})"
    return "; ".join([first, *(f"{answer}: {', '.join(names)}" for answer, names in ordered[1:])])


def compare(page, made):
    """Compare the page with a table just made, or write it there where the environment asks for it."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    stored, _, after = rest.partition(END)
    if os.environ.get(REWRITE):
        page.write_text(f"{before}{BEGIN}\n{made}\n{END}{after}", encoding="utf-8")
    else:
        assert stored.strip() == made, f"the page is stale: run this test with {REWRITE}=1"
