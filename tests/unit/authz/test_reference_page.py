# SPDX-License-Identifier: Apache-2.0
"""docs/reference/policy.md says what the program does."""

from __future__ import annotations

import re
from pathlib import Path

import everyhop.policy
from everyhop.authz import PathFlaw, run_tests
from everyhop.core.decision import Reason
from everyhop.policy import _grammar as g, parse_policy

PAGE = (Path(__file__).parents[3] / "docs/reference/policy.md").read_text(encoding="utf-8")
ROOM = Path(everyhop.policy.__file__).parent


def test_the_example_is_a_policy_whose_tests_pass():
    example = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1]
    results = run_tests(parse_policy({"example.yaml": example.encode()}))
    assert len(results) == 3
    assert all(result.is_passed for result in results)


def test_every_key_method_and_reason_is_there():
    keys = {
        *g.TOP_KEYS,
        *g.SERVICE_KEYS,
        *g.OPERATION_KEYS,
        *g.RULE_KEYS,
        *g.TEST_KEYS,
        *g.UNIX_KEYS,
        *g.LATER_KEYS,
    }
    assert {key for key in keys if not re.search(rf"\b{key}\b", PAGE)} == set()
    assert " ".join(g.METHODS) in PAGE
    assert {reason.value for reason in Reason if f"`{reason.value}`" not in PAGE} == set()
    assert len(PathFlaw) == 10  # each is a clause of "Ambiguous paths"


def test_every_code_is_there():
    source = "\n".join(path.read_text(encoding="utf-8") for path in sorted(ROOM.glob("*.py")))
    codes = set(re.findall(r'(?:\.add|_refuse|_warn)\(\s*"([a-z0-9-]+)"', source))
    assert len(codes) > 30
    assert {code for code in codes if f"`{code}`" not in PAGE} == set()
