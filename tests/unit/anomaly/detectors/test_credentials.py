# SPDX-License-Identifier: Apache-2.0
"""Stuffing and spraying, and what only looks like them."""

from __future__ import annotations

import pytest
from tests.unit.anomaly.detectors.acts import act, feed, feed_with_restarts, later, tried

from everyhop.anomaly import Severity
from everyhop.anomaly.detectors import CredentialStuffing, PasswordSpray
from everyhop.anomaly.detectors.credentials import MAX_ADDRESSES
from everyhop.anomaly.detectors.settings import CredentialStuffing as Stuffing, PasswordSpray as Spray


def stuffing():
    return CredentialStuffing(Stuffing())


def spray():
    return PasswordSpray(Spray())


def many(count, *, accounts, every=5, fails=True, **values):
    return [
        tried(later(seconds=every * n), user=f"u{n % accounts}", fails=fails, **values) for n in range(count)
    ]


def test_twenty_failures_over_many_accounts_are_stuffing():
    (found,) = feed(stuffing(), many(40, accounts=40))
    assert (found.detector, found.severity) == ("credential-stuffing", Severity.HIGH)
    assert (found.observed, found.threshold, found.unit) == (20, 8, "accounts")
    assert str(found.subject) == "address:198.51.100.7"
    assert len(found.evidence) == 16


def test_the_accounts_of_api_keys_count_as_well():
    seen = [tried(later(seconds=n), api_key=f"key{n:05}", fails=True) for n in range(25)]
    assert len(feed(stuffing(), seen)) == 1


@pytest.mark.parametrize(
    "seen",
    [
        many(19, accounts=19),
        many(100, accounts=7),  # few accounts
        many(100, accounts=100, every=60),  # slowly: that is a spray
        many(100, accounts=100, fails=False),
        [o for n in range(60) for o in many(1, accounts=1, fails=n % 3 == 0)],
        [tried(later(seconds=5 * n), user=f"u{n // 7}", fails=True) for n in range(80)],  # many tries of each
    ],
    ids=["few", "few accounts", "slow", "good", "mostly good", "stubborn"],
)
def test_it_is_no_stuffing(seen):
    assert feed(stuffing(), seen) == []


def test_an_office_behind_one_address_is_no_stuffing():
    seen = [tried(later(seconds=10 * n), user=f"u{n % 30}", fails=n % 2 == 0) for n in range(200)]
    assert feed(stuffing(), seen) == []


def test_an_attempt_without_account_or_address_says_nothing():
    seen = [act(kind="token", point="control", operation="exchange", reason="x", detail={"user": "u"})] * 50
    seen += [tried(fails=True)] * 50
    assert feed(stuffing(), seen) == feed(spray(), seen) == []


def test_a_slow_spray_from_one_address_is_found():
    found = feed(spray(), many(30, accounts=30, every=700))
    assert [(f.detector, f.observed) for f in found] == [("password-spray", 12)]


def test_a_spray_from_many_addresses_is_found():
    seen = [tried(later(seconds=30 * n), user=f"u{n}", source=f"100.64.{n}.1", fails=True) for n in range(60)]
    (found,) = feed(spray(), seen)
    assert (found.observed, found.threshold) == (20, 20)
    assert "from 20 addresses" in found.title


def test_where_failures_are_usual_more_are_needed():
    usual = [
        tried(later(hours=h, seconds=30 * n), user=f"u{n}", source=f"100.64.{n}.1", fails=True)
        for h in range(40)
        for n in range(15)
    ]
    more = [
        tried(later(hours=40, seconds=30 * n), user=f"u{n}", source=f"100.64.{n}.1", fails=True)
        for n in range(60)
    ]
    (found,) = feed(spray(), usual + more)
    assert found.baseline is not None
    assert found.observed >= 3 * found.baseline > 20


def test_many_tries_of_few_accounts_are_no_spray():
    seen = [
        tried(later(seconds=5 * n), user=f"u{n % 8}", source=f"100.64.{n}.1", fails=True) for n in range(200)
    ]
    assert feed(spray(), seen) == []


def test_restarts_lose_nothing():
    assert len(feed_with_restarts(stuffing, many(25, accounts=25))) == 1
    assert len(feed_with_restarts(spray, many(14, accounts=14, every=700))) == 1


def test_memory_is_bounded():
    detector = stuffing()
    for n in range(MAX_ADDRESSES + 20):
        detector.observe(tried(user="u", source=f"100.64.{n // 256}.{n % 256}", fails=True), later())
    feed(detector, many(1000, accounts=1000, every=0))
    assert len(detector.state()) == MAX_ADDRESSES
    assert max(map(len, detector.state().values())) < 64 * 1024
