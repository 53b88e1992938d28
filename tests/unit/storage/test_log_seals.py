# SPDX-License-Identifier: Apache-2.0
"""Producers' signatures, kept with the records that they are about."""

from dataclasses import replace

import pytest
from tests.support.identity import NOW
from tests.support.ledger import record

from everyhop.auditlog import Seal
from everyhop.core.errors import Conflict, NotFound


def seal(first, last, *, producer="agent", **fields):
    base = Seal(
        producer=producer,
        first=first,
        last=last,
        certificate="c" * 64,
        signed_at=NOW,
        signature=b"s",
        chain=b"chain",
    )
    return replace(base, **fields)


def kept(storage, producer=None):
    return [(s.producer, s.first, s.last) for s in storage.log_seals.seals(producer)]


def test_a_certificate_that_nobody_knows(storage):
    with pytest.raises(Conflict, match="neither known"):
        storage.records.append([record(1)], seals=[seal(1, 1, chain=None)])
    assert storage.records.count() == 0
    with pytest.raises(NotFound):
        storage.log_seals.chain("c" * 64)


def test_another_chain_under_the_same_name(storage):
    storage.records.append([record(1)], seals=[seal(1, 1)])
    with pytest.raises(Conflict, match="another chain"):
        storage.records.append([record(2)], seals=[seal(2, 2, chain=b"other")])
    assert storage.records.count() == 1
    assert storage.log_seals.chain("c" * 64) == b"chain"


def test_a_seal_is_kept_with_its_certificate_once(storage):
    storage.records.append([record(1), record(2)], seals=[seal(1, 2)])
    storage.records.append([record(3)], seals=[seal(3, 3, chain=None)])
    assert list(storage.log_seals.certificates()) == [("c" * 64, b"chain")]
    assert list(storage.log_seals.seals()) == [seal(1, 2, chain=None), seal(3, 3, chain=None)]


def test_a_repeated_delivery_keeps_what_reaches_further(storage):
    storage.records.append([record(1)], seals=[seal(1, 3, signature=b"first")])
    storage.records.append([record(1)], seals=[seal(1, 3, signature=b"again"), seal(1, 2)])
    assert [s.signature for s in storage.log_seals.seals()] == [b"first"]
    storage.records.append([record(1)], seals=[seal(1, 5, signature=b"longer")])
    assert [(s.last, s.signature) for s in storage.log_seals.seals()] == [(5, b"longer")]


def test_seals_by_producer_and_page(storage):
    storage.records.append([record(1)], seals=[seal(n, n) for n in range(1, 1102)])
    storage.records.append([record(2)], seals=[seal(1, 1, producer="zebra"), seal(1, 1, producer="a")])
    assert len(kept(storage)) == 1103
    assert kept(storage)[0] == ("a", 1, 1)
    assert kept(storage, "zebra") == [("zebra", 1, 1)]
    assert [first for _, first, _ in kept(storage, "agent")] == list(range(1, 1102))
    assert storage.log_seals.producers() == ["a", "agent", "zebra"]
