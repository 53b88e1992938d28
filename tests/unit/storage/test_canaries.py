# SPDX-License-Identifier: Apache-2.0
"""Canaries on either engine: one of each mark, one living of each service, and their records in the same transaction."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from everyhop.anomaly.canary import Canary, CanaryKind, Use
from everyhop.anomaly.finding import Action
from everyhop.auditlog import Kind, Order, RecordFilter
from everyhop.core.errors import Conflict, NotFound

NOW = datetime(2026, 3, 2, tzinfo=UTC)
ONE = Canary(
    id="a" * 12,
    kind=CanaryKind.SECRET,
    name="env",
    response=Action.BLOCK,
    created_at=NOW,
    created_by="admin",
    mark=b"m" * 32,
)
SERVICE = replace(ONE, id="b" * 12, kind=CanaryKind.SERVICE, name="vault", mark=None)


def records(storage):
    return storage.records.query(RecordFilter(kind=Kind.TOKEN), order=Order.OLDEST).records


def test_the_same_mark_or_id_twice_is_a_conflict_and_leaves_no_record(storage):
    storage.canaries.insert(ONE, recorded=True)
    for other in (replace(ONE, id="c" * 12), replace(ONE, mark=b"n" * 32)):
        with pytest.raises(Conflict):
            storage.canaries.insert(other, recorded=True)
    assert storage.canaries.list() == (ONE,)
    assert [(r.operation, r.detail) for r in records(storage)] == [("create-canary", {"canary": ONE.id})]


def test_a_service_is_a_canary_once_until_it_is_ended(storage):
    storage.canaries.insert(SERVICE, recorded=False)
    again = replace(SERVICE, id="d" * 12, created_at=NOW + timedelta(hours=1))
    with pytest.raises(Conflict, match="already"):
        storage.canaries.insert(again, recorded=False)
    storage.canaries.end(SERVICE.id, at=NOW, by="admin", recorded=False)
    storage.canaries.insert(again, recorded=False)
    assert [c.id for c in storage.canaries.list()] == [SERVICE.id, again.id]
    assert records(storage) == ()


def test_one_is_ended_once(storage):
    with pytest.raises(NotFound):
        storage.canaries.end(ONE.id, at=NOW, by="admin", recorded=True)
    storage.canaries.insert(ONE, recorded=False)
    ended = storage.canaries.end(ONE.id, at=NOW, by="admin", recorded=True)
    assert ended.ended_at == NOW
    assert storage.canaries.end(ONE.id, at=NOW + timedelta(days=1), by="x", recorded=True) == ended
    assert storage.canaries.list() == (ended,)
    assert [r.operation for r in records(storage)] == ["end-canary"]


def test_a_use_is_a_record_that_says_what_is_known(storage):
    use = Use(canary=ONE, time=NOW, source="203.0.113.9", where="edge", target="storefront")
    record_id = storage.canaries.used(use)
    (record,) = records(storage)
    assert (record.id, record.operation, record.decision, record.target) == (
        record_id,
        "canary-used",
        "deny",
        "storefront",
    )
    assert record.detail["response"] == "block"
    assert "decision" not in record.detail
