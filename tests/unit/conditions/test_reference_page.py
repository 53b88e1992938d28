# SPDX-License-Identifier: Apache-2.0
"""docs/reference/conditions.md says what the program does: each example of the page is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from everyhop.conditions import ConditionError, ValueType, Vocabulary, compile_condition, limits
from everyhop.conditions._helpers import HELPERS
from everyhop.conditions._profile import FUNCTIONS

PAGE = (Path(__file__).parents[3] / "docs/reference/conditions.md").read_text(encoding="utf-8")
DECLARED, HELD = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
WORDS = Vocabulary(DECLARED)


def rows(heading: str, *, columns: int) -> list[list[str]]:
    """The cells of the tables below a heading that hold an example, without the code marks."""
    part = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    found = []
    for line in part.splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == columns and cells[-2].startswith("`") and cells[-2].endswith("`"):
            found.append([cells[-2][1:-1], cells[-1]])
    return found


LANGUAGE = rows("The language", columns=3)
HELPER_EXAMPLES = [row for row in rows("Helpers", columns=2) if row[1] in {"true", "false", "error"}]
REFUSED = rows("Limits, and what is refused when a condition is read", columns=2)
ABSENT = rows("Errors of an evaluation", columns=2)


def test_the_tables_are_found():
    assert [len(table) for table in (LANGUAGE, HELPER_EXAMPLES, REFUSED, ABSENT)] == [17, 7, 21, 8]


@pytest.mark.parametrize(("text", "gives"), LANGUAGE + HELPER_EXAMPLES)
def test_what_an_example_gives(text, gives):
    assert compile_condition(text, WORDS).evaluate(HELD).truth.value == gives


@pytest.mark.parametrize(("text", "because"), REFUSED)
def test_what_is_refused(text, because):
    with pytest.raises(ConditionError) as refused:
        compile_condition(text, WORDS)
    assert because in "\n".join(problem.message for problem in refused.value.problems)


@pytest.mark.parametrize(("text", "gives"), ABSENT)
def test_what_an_absent_variable_does(text, gives):
    values = {name: value for name, value in HELD.items() if name != "user.id"}
    assert compile_condition(text, WORDS).evaluate(values).truth.value == gives


def test_everything_is_named():
    assert {name for name in FUNCTIONS if not re.search(rf"\b{name}\b", PAGE)} == set()
    assert {name for name in HELPERS if f"| `{name}(" not in PAGE} == set()
    assert {kind for kind in ValueType if f"| `{kind}` |" not in PAGE} == set()
    for limit in (limits.MAX_TEXT, limits.MAX_NODES, limits.MAX_LOOPED, limits.MAX_PATTERN, limits.MAX_LOOPS):
        assert re.search(rf"\b{limit}\b", PAGE), limit
    for limit in (limits.MAX_STRING, limits.MAX_ELEMENTS):
        assert f"{limit:,}" in PAGE
