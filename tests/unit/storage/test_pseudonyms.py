# SPDX-License-Identifier: Apache-2.0
"""Persons become pseudonyms on the append path; and once forgotten, nothing that is left connects the two."""

import hashlib
import hmac
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.support.identity import NOW, FakeClock, TestEntropy

from everyhop.auditlog import Event, Kind, Order, Point, Record, RecordFilter
from everyhop.auditlog.addresses import canonical_address
from everyhop.auditlog.personal import PersonKind, is_pseudonym, pseudonyms_in
from everyhop.control.pseudonymity import Pseudonymity
from everyhop.core.errors import Conflict, NotFound
from everyhop.providers.keystores import FileKeyStore, MemoryKeyStore
from everyhop.storage.pseudonyms import SqlPseudonyms
from everyhop.storage.service import open_storage

USER = PersonKind.USER


@pytest.fixture
def keys(tmp_path):
    (tmp_path / "keys").mkdir(mode=0o700)
    return FileKeyStore(tmp_path / "keys" / "kek")


@pytest.fixture
def opened(tmp_path, keys):
    stores = []

    def open_it(**more):
        stores.append(open_storage(tmp_path / "log.db", keys=keys, clock=FakeClock(), **more))
        return stores[-1]

    yield open_it
    for storage in stores:
        storage.close()


def record(seq, **fields):
    base = {
        "id": f"r{seq}",
        "seq": seq,
        "producer": "p",
        "time": NOW,
        "kind": Kind.DECISION,
        "point": Point.INGRESS,
    }
    return Record(**{**base, **fields})


def stored(storage):
    return storage.records.query(RecordFilter(), order=Order.OLDEST, limit=100).records


def test_no_person_reaches_a_row(opened, tmp_path):
    storage = opened()
    storage.records.append(
        [
            record(1, detail={"user": "alice@shop.example", "facts": "true user.id == resource.owner  (user.id = 'alice@shop.example', resource.owner = 'bob@shop.example')"}),
            record(2, point=Point.EDGE, caller="outside", detail={"host": "203.0.113.77", "user": "alice@shop.example"}),
            record(3, reason="untrusted-client", detail={"host": "[2001:db8:1:2:3::4]:5671"}),
            record(4, kind=Kind.FINDING, point=Point.CONTROL, caller="user:alice@shop.example"),
            record(5, point=Point.CONTROL, detail={"via": "authzen", "subject": "user:alice@shop.example", "asked": '{"subject":{"type":"user","id":"alice@shop.example","properties":{"email":"bob@shop.example"}},"action":{}}'}),
        ]
    )  # fmt: skip
    storage.records.note(
        Event(
            kind=Kind.TOKEN,
            action="exchange",
            time=NOW,
            detail={"subject": "alice@shop.example", "source": "203.0.113.77"},
        )
    )
    one, two, three, four, five, six = stored(storage)
    alice = one.detail["user"]
    assert is_pseudonym(alice)
    assert two.detail["user"] == six.detail["subject"] == alice
    assert four.caller == f"user:{alice}"
    assert five.detail["subject"] == f"user:{alice}"
    assert alice in five.detail["asked"]
    assert alice in one.detail["facts"]
    assert two.detail["host"] == six.detail["source"]
    assert is_pseudonym(three.detail["host"])
    lines = b"".join(path.read_bytes() for path in tmp_path.glob("log.db*"))
    for person in (b"alice", b"bob@", b"203.0.113.77", b"2001:db8"):
        assert person not in lines


def test_sentences_of_findings_and_blocks_name_nobody(opened, tmp_path):
    storage = opened()
    kind = {"kind": Kind.FINDING, "point": Point.CONTROL}
    title = "alice@shop.example was at 203.0.113.77 and at 2001:db8::1, 9 minutes later, at 12:30:45"
    batch = [
        record(1, **kind, caller="user:alice@shop.example", detail={"title": title}),
        record(
            2,
            kind=Kind.RESPONSE,
            detail={"block": "user", "user": "al", "why": "al was loud; also al-x and 1.2.3"},
        ),
        record(
            3, kind=Kind.RESPONSE, detail={"block": "address:203.0.113.77", "why": "rate: 203.0.113.77 asked"}
        ),
    ]
    storage.records.append(batch)
    lines = b"".join(path.read_bytes() for path in tmp_path.glob("log.db*"))
    for person in (b"alice", b"203.0.113.77", b"2001:db8", b"al was"):
        assert person not in lines
    one, two, _ = stored(storage)
    assert one.detail["title"].endswith("9 minutes later, at 12:30:45")
    assert two.detail["why"].endswith("was loud; also al-x and 1.2.3")
    revealed = Pseudonymity(storage.pseudonyms).reveal(stored(storage))
    assert [r.detail for r in revealed][1:] == [r.detail for r in batch][1:]


def test_what_applications_say_of_persons(opened, tmp_path):
    storage = opened()
    about = {"resource_type": "user", "resource_id": "alice@shop.example", "meta.email": "bob@shop.example"}
    kind = {"kind": Kind.APPLICATION, "point": Point.SDK}
    storage.records.append(
        [
            record(1, **kind, detail=about | {"meta.size": 7, "meta.colour": "red"}),
            record(
                2, **kind, detail={"resource_type": "order", "resource_id": "o-7", "meta.user": "apikey:abc"}
            ),
            record(3, kind=Kind.LOG, detail={"address": "203.0.113.77"}),
        ]
    )
    one, two, three = stored(storage)
    assert is_pseudonym(one.detail["resource_id"])
    assert is_pseudonym(one.detail["meta.email"])
    assert one.detail["meta.colour"] == "red"
    assert (two.detail["resource_id"], two.detail["meta.user"]) == ("o-7", "apikey:abc")
    assert is_pseudonym(three.detail["address"])


def test_what_names_no_person_stays(opened):
    storage = opened()
    spiffe = "spiffe://shop.example/service/orders"
    batch = [
        record(1, caller=spiffe, detail={"user": "apikey:abcdefgh", "host": "orders:80"}),
        record(2, point=Point.EGRESS, detail={"host": "203.0.113.77"}),
        record(3, kind=Kind.POLICY, caller="uid:1000", detail={"source": "everyhop.yaml"}),
        record(4, kind=Kind.TOKEN, detail={"subject": spiffe}),
        record(5, kind=Kind.RESPONSE, caller=f"identity:{spiffe}", detail={"subject": f"identity:{spiffe}"}),
    ]
    storage.records.append(batch)
    assert list(stored(storage)) == batch


def test_the_owner_reads_persons(opened):
    storage = opened()
    names = Pseudonymity(storage.pseudonyms)
    asked = '{"subject":{"type":"user","id":"al\\"ice","properties":{}}}'
    batch = [
        record(1, detail={"user": 'al"ice', "facts": "x", "asked": asked}),
        record(2, caller='user:al"ice'),
    ]
    storage.records.append(batch)
    assert names.reveal(stored(storage)) == tuple(batch)
    alice = names.of("user", 'al"ice')
    assert names.of("user", alice) == alice
    assert names.resolve(f"<{alice}>") == '<al"ice>'
    assert names.known("user", "nobody") == "nobody"


def test_one_person_has_one_name_on_every_server(opened):
    first, second = opened(), opened()
    assert first.pseudonyms.names_of([(USER, "alice")]) == second.pseudonyms.names_of([(USER, "alice")])
    assert first.pseudonyms.names_of([(USER, "bob")]) != second.pseudonyms.names_of([(USER, "alice")])


def test_an_address_is_named_as_it_is_counted(opened):
    names = Pseudonymity(opened().pseudonyms)
    assert names.of("address", "2001:db8::1") == names.of("address", "2001:db8::ffff")
    assert names.of("address", "::ffff:203.0.113.7") == names.of("address", "203.0.113.7:4711")
    assert names.of("address", "2001:db8::/64") == names.of("address", "2001:db8::1")
    assert canonical_address("orders") is None


def test_whoever_calls_himself_like_a_pseudonym_gets_one(opened):
    storage = opened()
    imposter = "~user." + "a" * 26
    storage.records.append([record(1, detail={"user": imposter})])
    (found,) = stored(storage)
    assert found.detail["user"] != imposter
    assert Pseudonymity(storage.pseudonyms).reveal([found])[0].detail["user"] == imposter


class TestForgetting:
    def test_it_is_recorded_and_the_next_event_has_another_name(self, opened):
        storage = opened()
        storage.records.append([record(1, detail={"user": "alice"}), record(2, detail={"user": "bob"})])
        old = stored(storage)[0].detail["user"]
        names = Pseudonymity(storage.pseudonyms)
        assert names.forget(USER, "alice", reason="request 17", by="uid:0", at=NOW) == old
        storage.records.append([record(3, detail={"user": "alice"})])
        one, two, forgot, three = stored(storage)
        assert one.detail["user"] == old  # what was sealed stays to the byte
        assert (forgot.kind, forgot.operation, forgot.caller) == (Kind.LOG, "forget", "uid:0")
        assert forgot.detail == {"subject": f"user:{old}", "reason": "request 17"}
        assert three.detail["user"] != old
        assert [r.detail["user"] for r in names.reveal([one, two, three])] == [old, "bob", "alice"]

    def test_nobody_is_forgotten_twice(self, opened):
        names = Pseudonymity(opened().pseudonyms)
        names.of("user", "alice")
        names.forget(USER, "alice", reason="r", by="x", at=NOW)
        with pytest.raises(NotFound):
            names.forget(USER, "alice", reason="r", by="x", at=NOW)

    def test_another_server_forgets_at_once(self, opened):
        here, there = opened(), opened()
        old = there.pseudonyms.names_of([(USER, "alice")])[USER, "alice"]
        assert there.pseudonyms.names_of([(USER, "alice")])[USER, "alice"] == old  # remembered by now
        assert there.pseudonyms.values_of([old]) == {old: "alice"}
        here.pseudonyms.forget(USER, "alice", reason="r", by="x", at=NOW)
        assert there.pseudonyms.values_of([old]) == {}
        assert there.pseudonyms.names_of([(USER, "alice")])[USER, "alice"] != old

    def test_a_node_that_has_not_heard_of_it_is_sent_back(self, opened):
        storage = opened()
        names = Pseudonymity(storage.pseudonyms)
        old = names.of("user", "alice")
        names.check([record(1, detail={"user": old})])
        names.forget(USER, "alice", reason="r", by="x", at=NOW)
        with pytest.raises(Conflict):
            names.check([record(1, detail={"user": old})])

    def test_neither_database_nor_master_key_connects_the_old_name_with_the_person(
        self, opened, tmp_path, keys
    ):
        """An attacker with everything that is left, and the right guess, has no way to confirm it."""
        storage = opened()
        old = storage.pseudonyms.names_of([(USER, "alice")])[USER, "alice"]
        with storage.database.reading() as connection:
            wrapped = connection.exec_driver_sql("SELECT wrapped FROM pseudonyms").scalar_one()
        subject_key = keys.unwrap(old, "pseudonym", wrapped).reveal()[:32]
        assert name_under(subject_key) == old  # with the row, the guess is confirmed
        storage.records.append([record(1, detail={"user": "alice"})])
        storage.pseudonyms.forget(USER, "alice", reason="r", by="x", at=NOW)
        left = {path: path.read_bytes() for path in Path(tmp_path).rglob("*") if path.is_file()}
        assert any(old.encode() in content for content in left.values())  # the log still names it
        for content in left.values():  # but no row is left, nor in the write-ahead log or on a free page
            assert wrapped not in content
            assert wrapped[21:] not in content
        master = left[tmp_path / "keys" / "kek"]
        index = keys.derive("pseudonym index").reveal()
        assert all(name_under(key) != old for key in (master, index, keys.derive("pseudonym").reveal()))

    def test_the_master_key_of_a_backup_does_not_open_a_moved_row(self, opened, keys):
        storage = opened()
        names = storage.pseudonyms.names_of([(USER, "alice"), (USER, "bob")])
        with storage.database.writing() as connection:
            connection.exec_driver_sql(
                "UPDATE pseudonyms SET wrapped = (SELECT wrapped FROM pseudonyms WHERE pseudonym = ?) WHERE pseudonym = ?",
                (names[USER, "alice"], names[USER, "bob"]),
            )
        assert storage.pseudonyms.values_of([names[USER, "bob"]]) == {}


def name_under(key):
    import base64

    digest = hmac.digest(key, b"user\0alice", hashlib.sha256)
    return "~user." + base64.b32encode(digest).decode().lower()[:26]


def test_a_name_that_was_rolled_back_is_not_remembered(opened):
    storage = opened()

    class BrokenError(Exception):
        pass

    with pytest.raises(BrokenError), storage.database.writing() as connection:
        lost = storage.pseudonyms.names_on(connection, [(USER, "alice")])[USER, "alice"]
        raise BrokenError
    kept = storage.pseudonyms.names_of([(USER, "alice")])[USER, "alice"]
    assert kept != lost
    assert storage.pseudonyms.values_of([kept, lost]) == {kept: "alice"}


def test_switched_off_they_are_still_read(opened):
    storage = opened()
    storage.records.append([record(1, detail={"user": "alice"})])
    off = opened(disguise=False)
    off.records.append([record(2, detail={"user": "bob"})])
    one, two = stored(off)
    assert pseudonyms_in(one)
    assert two.detail["user"] == "bob"
    names = Pseudonymity(off.pseudonyms, is_on=False)
    assert names.of("user", "bob") == "bob"
    assert names.reveal([one])[0].detail["user"] == "alice"


def test_the_time_of_a_row_is_the_clock_s(opened):
    storage = opened()
    storage.pseudonyms.names_of([(USER, "alice")])
    with storage.database.reading() as connection:
        moment = connection.exec_driver_sql("SELECT created_at FROM pseudonyms").scalar_one()
    assert datetime.fromtimestamp(moment / 1e6, UTC) == NOW


def test_both_engines_name_and_forget(storage):
    store = SqlPseudonyms(
        storage.database, MemoryKeyStore(), clock=FakeClock(), entropy=TestEntropy(), producer="server"
    )
    storage.database.disguise = store.disguised
    storage.records.append([record(1, detail={"user": "alice"})])
    (one,) = stored(storage)
    old = one.detail["user"]
    assert store.names_of([(USER, "alice"), (USER, "bob")])[USER, "alice"] == old
    assert store.values_of([old]) == {old: "alice"}
    assert store.forget(USER, "alice", reason="r", by="x", at=NOW) == old
    storage.records.append([record(2, detail={"user": "alice"})])
    assert [r.detail.get("user", r.operation) for r in stored(storage)][1] == "forget"
    assert stored(storage)[2].detail["user"] != old
    assert store.values_of([old]) == {}
