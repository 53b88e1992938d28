# SPDX-License-Identifier: Apache-2.0
"""The server signs what it made itself, in the same transaction, and nothing that somebody put into its database."""

import contextlib

import pytest
from tests.support.identity import NOW, TestCa, TestEntropy
from tests.support.seals import AGENT, record, seal_key

from everyhop.auditlog import Event, Kind
from everyhop.auditlog.completeness import check_completeness
from everyhop.auditlog.sealing import MAX_SEALED
from everyhop.storage import open_storage
from everyhop.storage.append import SqlRecordWriter
from everyhop.storage.own_seals import OwnSeals

SERVER = AGENT.replace("agent/a1", "server")
EVENT = Event(kind=Kind.TOKEN, action="mint", time=NOW, caller="spiffe://shop.example/service/orders")


@pytest.fixture
def storage(engine_place):
    opening = open_storage(engine_place, entropy=TestEntropy(), producer="server-1")
    with contextlib.closing(opening) as opened:
        opened.database.own_seals = OwnSeals(["server", "authzen"], lambda: NOW)
        yield opened


@pytest.fixture(scope="module")
def ca():
    return TestCa()


def check(storage, ca):
    with storage.log_seals.reading() as log:
        return check_completeness(log.lines(), log.seals(), log.certificates(), [ca.der], pruned=log.pruned())


def seals(storage):
    with storage.log_seals.reading() as log:
        return [(s.producer, s.first, s.last) for s in log.seals()]


def shown(ranges):
    return [(r.producer, r.first, r.last) for r in ranges.shown]


def test_a_record_put_into_the_database_is_never_signed(storage, ca):
    storage.database.own_seals.use(seal_key(ca, SERVER))
    storage.records.note(EVENT)
    invented = record(2, "server-1")
    with storage.database._engines.writing.begin() as connection:  # somebody else with the file and our code
        SqlRecordWriter(connection).insert([invented])
    storage.records.note(EVENT)
    found = check(storage, ca)
    assert shown(found.unsealed) == [("server-1", 2, 2)]
    assert not found.is_complete


def test_what_was_rolled_back_leaves_no_seal(storage, ca):
    own = storage.database.own_seals
    own.use(seal_key(ca, SERVER))
    storage.records.note(EVENT)
    with pytest.raises(RuntimeError), storage.issuing.transaction() as tx:
        tx.advance()
        raise RuntimeError
    # As a transaction leaves it that was never committed.
    own._pending["server-1"].update({2: b"x" * 32, 3: b"y" * 32})
    storage.records.note(EVENT)
    assert seals(storage) == [("server-1", 1, 1), ("server-1", 2, 2)]
    assert check(storage, ca).is_complete


def test_records_from_before_the_first_key_are_sealed_with_the_first_one_after_it(storage, ca):
    storage.records.append([record(n, "authzen-7") for n in range(1, MAX_SEALED + 2)])
    storage.records.note(EVENT)
    assert seals(storage) == []
    assert check(storage, ca).never_sealed.records == MAX_SEALED + 2
    storage.database.own_seals.use(seal_key(ca, SERVER))
    storage.records.append([record(MAX_SEALED + 2, "authzen-7")])
    storage.records.note(EVENT)
    assert seals(storage) == [
        ("authzen-7", 1, MAX_SEALED),
        ("authzen-7", MAX_SEALED + 1, MAX_SEALED + 2),
        ("server-1", 1, 2),
    ]
    assert check(storage, ca).is_complete


def test_records_of_others_are_left_to_them(storage, ca):
    storage.database.own_seals.use(seal_key(ca, SERVER))
    storage.records.append([record(1, "i1"), record(1, "server"), record(1, "servers-1")])
    assert seals(storage) == []


def test_a_key_that_is_over_signs_nothing(storage, ca):
    own = OwnSeals(["server"], lambda: NOW.replace(year=2027))
    storage.database.own_seals = own
    own.use(seal_key(ca, SERVER))
    storage.records.note(EVENT)
    assert seals(storage) == []
