# SPDX-License-Identifier: Apache-2.0
"""New edges: silence while learning, one finding after it, and what the policy explains."""

from __future__ import annotations

import pytest
from tests.unit.anomaly.detectors.acts import DOMAIN, act, feed, feed_with_restarts, later

from everyhop.anomaly import Severity
from everyhop.anomaly.detectors import NewEdge
from everyhop.anomaly.detectors.new_edge import MAX_CALLERS, MAX_EDGES
from everyhop.anomaly.detectors.settings import NewEdge as Settings


class Opened:
    def __init__(self, at=None):
        self._at = at

    def opened(self, caller, target, operation):
        return self._at if (caller, target, operation) == (f"{DOMAIN}orders", "ledger", "post") else None


def days(count, **values):
    return [act(later(days=day), **values) for day in range(count)]


def test_nothing_is_said_while_a_caller_is_learned():
    seen = [*days(6), act(later(days=6, hours=20), target="ledger", operation="post")]
    assert feed(NewEdge(Settings()), seen) == []


def test_a_known_edge_is_never_spoken_of_again():
    assert feed(NewEdge(Settings()), days(30)) == []


def test_a_new_target_and_a_new_operation_after_it_are_found_once_each():
    seen = [
        *days(8),
        act(later(days=8), target="ledger", operation="post"),
        act(later(days=8, hours=2), target="ledger", operation="post"),
        act(later(days=9), operation="refund"),
    ]
    target, operation = feed(NewEdge(Settings()), seen)
    assert (target.severity, target.target, target.operation) == (Severity.MEDIUM, "ledger", "post")
    assert target.evidence == (seen[8].record,)
    assert str(target.subject) == f"identity:{DOMAIN}orders"
    assert "orders called ledger.post for the first time in 8 days" in target.title
    assert (operation.severity, operation.operation) == (Severity.LOW, "refund")


@pytest.mark.parametrize(
    "values",
    [
        {"reason": "no-rule"},
        {"operation": "probes[0]"},
        {"caller": None},
        {"target": None},
        {"caller": "not a spiffe id"},
    ],
    ids=repr,
)
def test_what_is_refused_a_probe_or_of_nobody_is_no_edge(values):
    values = {"target": "ledger", "operation": "post"} | values
    if values.get("caller") == "not a spiffe id":
        values["caller"] = "http://orders"
    assert feed(NewEdge(Settings()), [*days(8), act(later(days=8), **values)]) == []


def test_a_service_that_only_answered_so_far_is_known_when_it_begins_to_call():
    seen = [*days(8), act(later(days=8), caller="payments", target="ledger", operation="post")]
    (found,) = feed(NewEdge(Settings()), seen)
    assert str(found.subject) == f"identity:{DOMAIN}payments"


@pytest.mark.parametrize(("opened", "severity"), [(7.9, "informational"), (0.5, "medium"), (8.5, "medium")])
def test_a_recent_change_of_policy_explains_an_edge_and_an_old_or_later_one_does_not(opened, severity):
    seen = [*days(8), act(later(days=8), target="ledger", operation="post")]
    (found,) = feed(NewEdge(Settings(), Opened(later(days=opened))), seen)
    assert found.severity == severity
    assert ("allowed it since" in found.title) == (severity == "informational")


def test_a_restart_keeps_what_was_learned():
    seen = [*days(8), act(later(days=8), target="ledger", operation="post")]
    (found,) = feed_with_restarts(lambda: NewEdge(Settings()), seen)
    assert found.target == "ledger"


def test_memory_is_bounded_in_callers_and_in_edges_of_each():
    detector = NewEdge(Settings())
    feed(detector, [act(caller=f"s{n}") for n in range(MAX_CALLERS + 10)])
    feed(detector, [act(operation=f"o{n}") for n in range(MAX_EDGES + 10)])
    assert len(detector.state()) == MAX_CALLERS + 1  # and the one target
    assert max(map(len, detector.state().values())) < 64 * 1024
