# SPDX-License-Identifier: Apache-2.0
"""The search for a combination of boundary values under which a condition is true."""

from __future__ import annotations

import pytest

from everyhop.authz._boundaries import MAX_TRIED, try_for_truth
from everyhop.conditions import ValueType, Vocabulary, compile_condition

WORDS = Vocabulary({f"user.n{i}": ValueType.INT for i in range(9)} | {"user.s": ValueType.STRING})
MANY = " && ".join(f"user.n{i} > {i + 5}" for i in range(9))


@pytest.mark.parametrize(
    "text",
    ["user.n0 > 5 && user.n0 < 3", "user.s == 'a' && user.s == 'b'", f"{MANY} && user.n0 < 2", "false"],
)
def test_what_is_never_true_is_not_found(text):
    is_true, tried = try_for_truth(compile_condition(text, WORDS))
    assert not is_true
    assert 0 < tried <= 10 * MAX_TRIED


@pytest.mark.parametrize(
    "text", ["true", "user.n0 == 7", "user.s.startsWith('x') && user.n1 >= 3", MANY, f"!({MANY})"]
)
def test_what_can_be_true_is_found_also_where_combinations_are_many(text):
    assert try_for_truth(compile_condition(text, WORDS))[0]
