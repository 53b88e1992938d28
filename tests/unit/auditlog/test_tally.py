# SPDX-License-Identifier: Apache-2.0
"""Decisions added up: what is one group, and that nothing grows without bound."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from everyhop.auditlog import Kind, Point, Record, Tally, tally as module

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def record(n, **fields):
    base = {
        "id": f"r{n}",
        "seq": n + 1,
        "producer": "p",
        "time": NOON + timedelta(seconds=n),
        "kind": Kind.DECISION,
        "point": Point.INGRESS,
        "caller": "spiffe://a/b",
        "target": "orders",
        "operation": "list",
        "method": "GET",
        "path": "/orders?x=1",
        "decision": "allow",
        "reason": "allowed",
        "rule": "allow[0]",
    }
    return Record(**{**base, **fields})


def groups(*records, **options):
    tally = Tally(**options)
    tally.take(records)
    return tally.groups(), tally


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": Kind.LIFECYCLE, "decision": None},
        {"kind": Kind.KEY},
        {"point": Point.EGRESS},  # its ingress twin counts
        {"point": Point.CONTROL},  # a question over AuthZEN
        {"point": Point.SDK, "decision": "deny", "reason": "no-rule"},  # a workload's own word
    ],
)
def test_what_does_not_count(fields):
    assert groups(record(0, **fields))[0] == []


def test_only_what_shadow_would_change():
    found, tally = groups(
        record(0), record(1, detail={"would": "deny", "would_reason": "no-rule"}), only_shadow=True
    )
    assert [(g.would, g.would_reason, g.would_rule, g.count) for g in found] == [("deny", "no-rule", None, 1)]
    assert tally.counted == 1


def test_a_group_has_its_count_its_times_and_its_newest_example():
    (group,), _ = groups(record(5), record(2), record(9, path="/orders?y"), record(3))
    assert (group.count, group.first, group.last, group.example) == (
        4,
        NOON + timedelta(seconds=2),
        NOON + timedelta(seconds=9),
        "r9",
    )
    assert group.call is None


def test_what_tells_groups_apart():
    found, _ = groups(
        record(0),
        record(1, decision="deny"),
        record(2, detail={"user": "u"}),
        record(3, caller="spiffe://a/c"),
        record(4, rule="allow[1]"),
        record(5, point=Point.EGRESS, decision="deny", reason="undeclared-destination"),
        record(6, operation=None, path="/x?a=1"),
        record(7, operation=None, path="/x?a=2"),
    )
    assert sorted(g.count for g in found) == [1, 1, 1, 1, 1, 1, 2]
    assert [g.call for g in found if g.call] == ["GET /x"]


def test_a_caller_who_makes_up_paths_fills_nothing():
    made_up = [record(n, operation=None, decision="deny", path=f"/{n}") for n in range(500)]
    found, tally = groups(*made_up, record(501, operation=None, path="/mine", caller="spiffe://a/other"))
    assert len(found) == module.MAX_CALLS + 2
    assert sum(g.count for g in found) == tally.counted == 501
    assert max(g.count for g in found) == 500 - module.MAX_CALLS


def test_groups_have_a_limit(monkeypatch):
    monkeypatch.setattr(module, "MAX_GROUPS", 3)
    found, tally = groups(*(record(n, operation=f"o{n % 5}") for n in range(10)))
    assert (len(found), tally.counted, tally.left_out) == (3, 10, 4)


def test_a_very_long_path_is_cut():
    (group,), _ = groups(record(0, operation=None, path="/" + "a" * 8000))
    assert len(group.call) == 300
