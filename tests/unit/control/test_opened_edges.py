# SPDX-License-Identifier: Apache-2.0
"""Which change of policy opened an edge."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from everyhop.control.opened_edges import MAX_CHANGES, PolicyHistory
from everyhop.core.errors import Unavailable
from everyhop.policy import encode_snapshot, parse_policy
from everyhop.storage import open_storage

START = datetime(2026, 3, 1, tzinfo=UTC)
CALLER = "spiffe://shop.example/service/shop"
BASE = """\
version: 1
trust_domain: shop.example
services:
  shop: {}
  orders: {operations: {list: GET /orders, cancel: DELETE /orders}}
  ledger: {tcp: 5432}
allow:
  - {from: shop, to: orders, operations: [%s]}
%s"""


def policy(operations="list", more=""):
    return parse_policy({"p": (BASE % (operations, more)).encode()})


@pytest.fixture
def storage(tmp_path):
    made = open_storage(tmp_path / "everyhop.db")
    yield made
    made.close()


def applied(storage, *snapshots):
    for day, snapshot in enumerate(snapshots):
        storage.snapshots.save(encode_snapshot(snapshot), snapshot.hash, "p", START + timedelta(days=day))
    return PolicyHistory(storage.snapshots)


def test_nothing_is_known_of_what_was_always_there_or_is_not_allowed(storage):
    history = applied(storage, policy())
    assert history.opened(CALLER, "orders", "list") is None
    assert history.opened(CALLER, "orders", "cancel") is None
    assert history.opened("spiffe://shop.example/service/nobody", "orders", "list") is None
    assert history.opened(CALLER, "nowhere", "list") is None


def test_the_change_that_opened_it_is_named(storage):
    tcp = "  - {from: shop, to: ledger}\n"
    history = applied(storage, policy(), policy("list, cancel"), policy("list, cancel", tcp))
    assert history.opened(CALLER, "orders", "cancel") == START + timedelta(days=1)
    assert history.opened(CALLER, "ledger", "tcp") == START + timedelta(days=2)
    assert history.opened(CALLER, "ledger", "") == START + timedelta(days=2)
    assert history.opened(CALLER, "ledger", "list") is None
    assert history.opened(CALLER, "orders", "list") is None


def test_what_was_closed_and_opened_again_was_opened_again(storage):
    one, two, three = (
        policy("list, cancel"),
        policy("list"),
        policy("cancel, list", "deny:\n  - {from: shop, to: ledger}\n"),
    )
    assert applied(storage, one, two, three).opened(CALLER, "orders", "cancel") == START + timedelta(days=2)


def test_only_so_many_changes_are_looked_at(storage):
    more = [
        policy("list, cancel", f"  - {{from: shop, to: orders, operations: [list], reason: r{n}}}\n")
        for n in range(MAX_CHANGES)
    ]
    assert applied(storage, policy(), *more).opened(CALLER, "orders", "cancel") is None
    assert len(storage.snapshots.history(5)) == 5


def test_a_store_that_does_not_answer_explains_nothing():
    class Away:
        def history(self, limit):
            raise Unavailable("away")

    assert PolicyHistory(Away()).opened(CALLER, "orders", "list") is None
