# SPDX-License-Identifier: Apache-2.0
"""Bursts of refusals, and the search for an open door."""

from __future__ import annotations

import pytest
from tests.unit.anomaly.detectors.acts import DOMAIN, act, at_edge, feed, feed_with_restarts, later

from everyhop.anomaly import Severity
from everyhop.anomaly.detectors import DeniedBurst
from everyhop.anomaly.detectors.denied_burst import MAX_SUBJECTS
from everyhop.anomaly.detectors.settings import DeniedBurst as Settings


def make():
    return DeniedBurst(Settings())


def refused(count, *, every=10, reason="no-rule", **values):
    return [act(later(seconds=every * n), reason=reason, **values) for n in range(count)]


def test_nine_refusals_are_not_ten():
    assert feed(make(), refused(9)) == []


def test_the_tenth_within_the_window_is_found_with_all_of_them():
    seen = refused(10)
    (found,) = feed(make(), seen)
    assert (found.detector, found.severity, found.observed, found.threshold) == (
        "denied-burst",
        Severity.MEDIUM,
        10,
        10,
    )
    assert found.evidence == tuple(o.record for o in seen)
    assert (found.first, found.last) == (seen[0].time, seen[-1].time)
    assert str(found.subject) == f"identity:{DOMAIN}orders"
    assert "no-rule" in found.title


def test_ten_over_more_than_the_window_are_none():
    assert feed(make(), refused(30, every=34)) == []


def test_a_burst_that_goes_on_is_told_once_and_again_after_a_quiet_window():
    seen = refused(200) + [act(later(hours=2, seconds=n), reason="no-rule") for n in range(10)]
    assert len(feed(make(), seen)) == 2


@pytest.mark.parametrize("reason", [None, "timeout", "check-failed", "untrusted-server"], ids=str)
def test_what_is_allowed_or_a_fault_of_others_is_not_counted(reason):
    assert feed(make(), refused(50, reason=reason)) == []


def test_what_a_workload_says_of_another_is_not_held_against_it():
    assert feed(make(), refused(50, point="sdk")) == []


def test_refusals_at_four_services_are_probing():
    seen = [act(later(seconds=n), reason="no-rule", target=f"s{n % 4}") for n in range(8)]
    (found,) = feed(make(), seen)
    assert (found.detector, found.severity, found.observed, found.unit) == (
        "probing",
        Severity.HIGH,
        4,
        "places",
    )


def test_many_paths_of_one_service_are_probing_by_their_address():
    seen = [
        at_edge(later(seconds=n), reason="unknown-operation", operation=None, path=f"/{n}", target="web")
        for n in range(15)
    ]
    burst, probing = feed(make(), seen)
    assert (burst.detector, probing.detector) == ("denied-burst", "probing")
    assert str(probing.subject) == "address:198.51.100.7"


def test_one_path_again_and_again_is_no_probing():
    seen = refused(60, reason="unknown-operation", operation=None)
    assert [f.detector for f in feed(make(), seen)] == ["denied-burst"]


def test_a_restart_in_the_middle_of_a_burst_loses_nothing():
    (found,) = feed_with_restarts(make, refused(10))
    assert found.observed == 10


def test_memory_is_bounded_whatever_addresses_come():
    detector = make()
    for n in range(MAX_SUBJECTS + 50):
        host = f"100.{64 + n // 65536}.{n // 256 % 256}.{n % 256}"
        detector.observe(at_edge(host=host, reason="unknown-operation"), later())
    feed(detector, refused(500))
    state = detector.state()
    assert len(state) == MAX_SUBJECTS
    assert max(map(len, state.values())) < 64 * 1024
