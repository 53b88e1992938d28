# SPDX-License-Identifier: Apache-2.0
"""Replayed, stolen and revoked tokens."""

from __future__ import annotations

import pytest
from tests.unit.anomaly.detectors.acts import DOMAIN, act, at_edge, feed, feed_with_restarts, later, tried

from everyhop.anomaly import Severity
from everyhop.anomaly.detectors import TokenReplay
from everyhop.anomaly.detectors.settings import TokenReplay as Settings


def make():
    return TokenReplay(Settings())


@pytest.mark.parametrize(
    ("code", "severity"), [("TOKEN_REPLAYED", Severity.MEDIUM), ("BINDING_MISMATCH", Severity.HIGH)]
)
def test_one_refusal_is_enough_and_told_once(code, severity):
    seen = [act(later(seconds=n), reason=code) for n in range(20)]
    (found,) = feed(make(), seen)
    assert (found.severity, found.evidence) == (severity, (seen[0].record,))
    assert str(found.subject) == f"identity:{DOMAIN}orders"


def test_a_revoked_token_is_found_at_the_third_use():
    seen = [act(later(seconds=n), reason="TOKEN_REVOKED") for n in range(5)]
    assert feed(make(), seen[:2]) == []
    (found,) = feed(make(), seen)
    assert (found.observed, found.threshold) == (3, 3)


@pytest.mark.parametrize("reason", ["TOKEN_EXPIRED", "no-rule", "MISSING_TOKEN"])
def test_other_refusals_are_no_replay(reason):
    assert feed(make(), [act(reason=reason)] * 20) == []


def test_what_a_workload_says_is_no_proof():
    assert feed(make(), [act(reason="BINDING_MISMATCH", point="sdk")]) == []


def test_what_an_edge_presents_is_held_against_the_address_it_came_from():
    seen = act(
        kind="token",
        point="control",
        caller="web",
        operation="exchange",
        reason="revoked",
        detail={"code": "BINDING_MISMATCH", "source": "203.0.113.9"},
    )
    (found,) = feed(make(), [seen])
    assert str(found.subject) == "address:203.0.113.9"


def places(*addresses, every=40, **detail):
    detail = {"presented": "a1b2", "user": "alice"} | detail
    return [tried(later(seconds=every * n), source=source, **detail) for n, source in enumerate(addresses)]


def test_a_token_that_moves_to_another_network_is_nothing():
    assert feed(make(), places("192.0.2.1", "192.0.2.1", "198.51.100.1", "198.51.100.1")) == []


def test_a_token_that_two_addresses_use_in_turn_is_found():
    (found,) = feed(make(), places("192.0.2.1", "198.51.100.1", "192.0.2.1", "198.51.100.1"))
    assert str(found.subject) == "user:alice"
    assert len(found.evidence) == 3


def test_turns_that_are_far_apart_are_nothing():
    assert feed(make(), places("192.0.2.1", "198.51.100.1", "192.0.2.1", every=400)) == []


def test_api_keys_may_be_used_from_many_addresses():
    assert feed(make(), places("192.0.2.1", "198.51.100.1", "192.0.2.1", api_key="k7Qm2xPa")) == []


def test_restarts_lose_nothing():
    assert len(feed_with_restarts(make, places("192.0.2.1", "198.51.100.1", "192.0.2.1"))) == 1
    assert len(feed_with_restarts(make, [act(reason="TOKEN_REVOKED")] * 3)) == 1


def test_nothing_is_said_of_calls_without_tokens():
    assert feed(make(), [at_edge(user="alice"), act()]) == []
