# SPDX-License-Identifier: Apache-2.0
"""Signing keys, revocations and API keys in SQL: constraints, order, rollback, and the migration with data."""

import contextlib
import sqlite3
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network

import pytest
import sqlalchemy as sa
from tests.support.identity import NOW

from everyhop.apikeys.model import ApiKeyEntry, Pepper
from everyhop.apikeys.ports import ApiKeyEvent
from everyhop.auditlog import RecordFilter
from everyhop.core.errors import Conflict, InputError, NotFound
from everyhop.issuing import KeyStatus, Revocation, RevokedKind, SigningEvent, SigningKey
from everyhop.jose import Algorithm
from everyhop.storage import current_revision, migrate, open_database, open_storage

HOUR = timedelta(hours=1)

KEY = SigningKey(
    kid="k1",
    algorithm=Algorithm.ES256,
    status=KeyStatus.ACTIVE,
    public=b"public",
    wrapped_key=b"wrapped",
    created_at=NOW,
    published_sequence=1,
    activated_at=NOW,
)
REVOCATION = Revocation(
    kind=RevokedKind.JTI, value="j1", revoked_at=NOW, expires_at=NOW + HOUR, by="spiffe://a/b"
)
PEPPER = Pepper(id="p1", wrapped=b"pepper", created_at=NOW)
ENTRY = ApiKeyEntry(
    lookup="AAAAAAAA",
    environment="live",
    kind="key",
    owner="team",
    scopes=frozenset({"b.c", "a.b"}),
    sources=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")),
    mac=b"m" * 32,
    pepper="p1",
    created_at=NOW,
    expires_at=NOW + HOUR,
)


def fill(storage):
    with storage.issuing.transaction() as tx:
        tx.insert_key(KEY)
        tx.revoke(REVOCATION)
        tx.advance()
    with storage.api_keys.transaction() as tx:
        tx.insert_pepper(PEPPER)
        tx.insert(ENTRY)


# --- signing keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "second",
    [
        replace(KEY, kid="k2"),
        replace(KEY, status=KeyStatus.RETAINED, wrapped_key=None),
        replace(KEY, kid="k2", status=KeyStatus.PREPARED, wrapped_key=None),
        replace(KEY, kid="k2", status=KeyStatus.RETAINED),
    ],
    ids=["second active", "same kid", "prepared without a key", "retained with a key"],
)
def test_keys_that_the_schema_refuses(storage, second):
    fill(storage)
    with pytest.raises(Conflict), storage.issuing.transaction() as tx:
        tx.insert_key(second)
    assert storage.issuing.load().keys == (KEY,)


def test_one_of_each_algorithm(storage):
    fill(storage)
    with storage.issuing.transaction() as tx:
        tx.insert_key(replace(KEY, kid="k2", algorithm=Algorithm.RS256))
        tx.insert_key(replace(KEY, kid="k3", status=KeyStatus.PREPARED, activated_at=None))
    assert [k.kid for k in storage.issuing.load().keys] == ["k1", "k2", "k3"]


def test_what_is_not_there(storage):
    for call in (lambda tx: tx.update_key(KEY), lambda tx: tx.delete_key("k1")):
        with pytest.raises(NotFound), storage.issuing.transaction() as tx:
            call(tx)


def test_update_and_delete(storage):
    fill(storage)
    retired = replace(KEY, status=KeyStatus.RETAINED, wrapped_key=None, retired_at=NOW + HOUR)
    with storage.issuing.transaction() as tx:
        tx.update_key(retired)
    assert storage.issuing.load().keys == (retired,)
    with storage.issuing.transaction() as tx:
        tx.delete_key("k1")
    assert storage.issuing.load().keys == ()


def test_the_sequence(storage):
    assert storage.issuing.sequence() == storage.issuing.load().sequence == 0
    with storage.issuing.transaction() as tx:
        assert [tx.advance() for _ in range(3)] == [1, 2, 3]
    with storage.api_keys.transaction() as tx:
        assert tx.advance() == 4
    assert storage.issuing.sequence() == 4


def test_all_or_nothing(storage):
    with pytest.raises(ZeroDivisionError), storage.issuing.transaction() as tx:
        tx.insert_key(KEY)
        tx.advance()
        tx.revoke(REVOCATION)
        tx.record(SigningEvent(action="create", time=NOW, kid="k1"))
        raise ZeroDivisionError
    state = storage.issuing.load()
    assert (state.keys, state.revocations, state.sequence) == ((), (), 0)
    assert storage.records.count() == 0


# --- revocations ------------------------------------------------------------------------------------------------------


def test_revocations_of_one_name_last_until_the_later_end(storage):
    fill(storage)
    with storage.issuing.transaction() as tx:
        tx.revoke(replace(REVOCATION, expires_at=NOW + 2 * HOUR, revoked_at=NOW + HOUR))
        tx.revoke(replace(REVOCATION, expires_at=NOW))
        tx.revoke(replace(REVOCATION, kind=RevokedKind.TXN))
        assert tx.count_revocations() == 2
        assert tx.count_revocations("spiffe://a/b") == 2
        assert tx.count_revocations("other") == 0
    first, second = storage.issuing.load().revocations
    assert (first.expires_at, first.revoked_at) == (NOW + 2 * HOUR, NOW + HOUR)
    assert second.kind is RevokedKind.TXN
    with storage.issuing.transaction() as tx:
        assert tx.prune_revocations(NOW + HOUR) == 1
        assert tx.prune_revocations(NOW + HOUR) == 0
    assert storage.issuing.load().revocations == (first,)


def test_a_revocation_is_in_the_audit_log(storage):
    with storage.issuing.transaction() as tx:
        tx.record(SigningEvent(action="revoke", time=NOW, caller="spiffe://a/b", detail={"jti": "j1"}))
    (record,) = storage.records.query(RecordFilter()).records
    assert (record.kind.value, record.caller, record.detail["jti"]) == ("token", "spiffe://a/b", "j1")


# --- API keys ---------------------------------------------------------------------------------------------------------


def test_an_api_key_is_read_as_it_was_written(storage):
    fill(storage)
    assert storage.api_keys.find("AAAAAAAA") == ENTRY
    assert storage.api_keys.find("BBBBBBBB") is None
    assert storage.api_keys.list() == storage.api_keys.list("team") == (ENTRY,)
    assert storage.api_keys.peppers() == (PEPPER,)


def test_look_ups_are_exact(storage):
    fill(storage)
    for other in ("aaaaaaaa", "AAAAAAA_", "AAAAAAA%", ""):
        assert storage.api_keys.find(other) is None
    # PostgreSQL cannot even be asked for a NUL.
    with contextlib.suppress(InputError):
        assert storage.api_keys.find("AAAAAAAA\0") is None


@pytest.mark.parametrize("changed", [{}, {"lookup": "BBBBBBBB", "pepper": "gone"}])
def test_api_keys_that_the_schema_refuses(storage, changed):
    fill(storage)
    with pytest.raises(Conflict), storage.api_keys.transaction() as tx:
        tx.insert(replace(ENTRY, **changed))


def test_successors(storage):
    fill(storage)
    successor = replace(ENTRY, lookup="BBBBBBBB", replaces="AAAAAAAA")
    with storage.api_keys.transaction() as tx:
        tx.insert(successor)
        assert tx.find("AAAAAAAA").replaced_by == "BBBBBBBB"
    assert storage.api_keys.list() == (replace(ENTRY, replaced_by="BBBBBBBB"), successor)


def test_an_update_of_what_is_not_there(storage):
    with pytest.raises(NotFound), storage.api_keys.transaction() as tx:
        tx.update(ENTRY)


def test_the_newest_pepper(storage):
    with storage.api_keys.transaction() as tx:
        assert tx.pepper() is None
        tx.insert_pepper(PEPPER)
        tx.insert_pepper(replace(PEPPER, id="p0", created_at=NOW + HOUR))
        assert tx.pepper().id == "p0"
    assert [p.id for p in storage.api_keys.peppers()] == ["p1", "p0"]


def test_an_end_of_a_key_is_one_transaction(storage):
    fill(storage)
    with pytest.raises(ZeroDivisionError), storage.api_keys.transaction() as tx:
        tx.update(replace(ENTRY, revoked_at=NOW))
        tx.revoke_subject("apikey:AAAAAAAA", by="admin", at=NOW, until=NOW + HOUR)
        tx.advance()
        tx.record(ApiKeyEvent(action="revoke", time=NOW, lookup="AAAAAAAA", by="admin"))
        raise ZeroDivisionError
    assert storage.api_keys.find("AAAAAAAA") == ENTRY
    assert storage.issuing.load().revocations == (REVOCATION,)
    assert storage.issuing.sequence() == 1


# --- the migration ----------------------------------------------------------------------------------------------------

OLD_TABLES = {"authorities", "bundle_state", "snapshots", "records", "meta", "alembic_version"}


def test_up_from_a_database_of_the_release_before_with_data(tmp_path):
    path = tmp_path / "everyhop.db"
    with open_database(path) as database:
        assert migrate(database, "0001")
        with database.writing() as connection:
            connection.exec_driver_sql("INSERT INTO meta VALUES ('installation', 'one')")
            connection.exec_driver_sql("INSERT INTO bundle_state VALUES (1, 7)")
        with database.reading() as connection:
            assert set(sa.inspect(connection).get_table_names()) == OLD_TABLES
    storage = open_storage(path)
    assert storage.meta.get("installation") == "one"
    assert storage.authorities.load().sequence == 7
    assert storage.issuing.load().sequence == 0
    fill(storage)
    storage.close()


def test_down_with_data_keeps_what_the_release_before_knows(tmp_path):
    path = tmp_path / "everyhop.db"
    storage = open_storage(path)
    fill(storage)
    storage.meta.set("installation", "one")
    storage.close()
    with open_database(path) as database:
        assert migrate(database, "0001")
        with database.reading() as connection:
            assert current_revision(connection) == "0001"
            assert set(sa.inspect(connection).get_table_names()) == OLD_TABLES
            assert not [n for n in _indexes(connection) if n.startswith(("signing", "token", "api_key"))]
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT value FROM meta WHERE key = 'installation'").fetchone() == ("one",)
    raw.close()
    storage = open_storage(path)  # and up again, empty
    assert storage.issuing.load().keys == ()
    fill(storage)
    storage.close()


def _indexes(connection):
    rows = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'index'")
    return [row[0] for row in rows]
