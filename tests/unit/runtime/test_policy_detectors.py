# SPDX-License-Identifier: Apache-2.0
"""Wishes for detectors are checked when a policy is, not when a detector starts."""

from __future__ import annotations

import pytest

from everyhop.core.errors import PolicyError
from everyhop.runtime.policy_files import PureRules

POLICY = """\
version: 1
trust_domain: shop.example
services: {shop: {}}
detect:
  detectors:
    %s
"""


def parsed(wish):
    return PureRules().parse({"p.yaml": (POLICY % wish).encode()})


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ("volumes: off", "no detector 'volumes'"),
        ("volume: {spread: 3}", "nothing called 'spread'"),
        ("volume: {spreads: many}", "expected a number"),
        ("denied-burst: {window: 5}", "not a duration"),
    ],
)
def test_a_wish_that_cannot_be_is_a_problem_of_the_policy(wish, words):
    with pytest.raises(PolicyError, match=words) as caught:
        parsed(wish)
    (problem,) = caught.value.problems
    assert (problem.code, problem.span.line) == ("detectors", 5)
    assert problem.span.file == "p.yaml"


def test_wishes_that_can_be():
    assert parsed("{volume: off, denied-burst: {denials: 5, window: 1m}}").detection.detectors
