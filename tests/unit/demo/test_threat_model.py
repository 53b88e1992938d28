# SPDX-License-Identifier: Apache-2.0
"""The threat model names the defence against every attack of the demo, and no attack that the demo does not make."""

import re
from pathlib import Path

from everyhop.demo.attacks import all_attacks

PAGE = Path(__file__).resolve().parents[3] / "docs" / "explanation" / "threat-model.md"


def named_in_the_page():
    text = PAGE.read_text(encoding="utf-8")
    part = text.split("## What is protected by what")[1].split("## What is not protected")[0]
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", part, re.MULTILINE)
    return [name.strip() for cell, _ in rows if cell not in {"attack", "---"} for name in cell.split(" · ")]


def test_every_attack_has_its_defence_and_every_row_its_attack():
    named = named_in_the_page()
    attacks = [attempt.name for attempt in all_attacks()]
    assert sorted(named) == sorted(attacks)


def test_no_two_attacks_share_a_name():
    names = [attempt.name for attempt in all_attacks()]
    assert len(names) == len(set(names))
    assert len(names) >= 30
