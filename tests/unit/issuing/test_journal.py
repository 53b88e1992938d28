# SPDX-License-Identifier: Apache-2.0
"""What reaches the audit log, and when."""

import pytest
from tests.support.identity import NOW

from everyhop.auditlog import RecordFilter
from everyhop.core.errors import Unavailable
from everyhop.issuing import TokenEvent
from everyhop.storage import token_journal


def event(n=0, **more):
    return TokenEvent(action="mint", time=NOW, caller=f"c{n}", target="payments", detail={"n": n}, **more)


def stored(storage):
    return [r.caller for r in reversed(storage.records.query(RecordFilter()).records)]


def test_issues_wait_and_are_written_together(storage):
    for n in range(3):
        storage.token_journal.issued(event(n))
    assert stored(storage) == []
    assert storage.token_journal.flush() == 3
    assert stored(storage) == ["c0", "c1", "c2"]
    assert storage.token_journal.flush() == 0


def test_a_refusal_is_there_at_once_with_what_was_before_it(storage):
    storage.token_journal.issued(event(1))
    storage.token_journal.refused(event(2, refused="invalid_scope", reason="more than the policy grants"))
    first, second = reversed(storage.records.query(RecordFilter()).records)
    assert (first.decision, first.kind.value) == ("allow", "token")
    assert (second.decision, second.reason) == ("deny", "more than the policy grants")
    assert second.detail == {"n": 2, "error": "invalid_scope"}


def test_what_waits_has_a_bound(storage, monkeypatch):
    monkeypatch.setattr(token_journal, "MAX_WAITING", 5)
    for n in range(7):
        storage.token_journal.issued(event(n))
    assert len(stored(storage)) == 5


def test_nothing_is_lost_when_the_database_does_not_answer(storage, monkeypatch):
    storage.token_journal.issued(event(1))

    def fails():
        raise Unavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(storage.database, "writing", fails)
        with pytest.raises(Unavailable):
            storage.token_journal.refused(event(2, refused="invalid_scope"))
    assert storage.token_journal.flush() == 2
    assert stored(storage) == ["c1", "c2"]
