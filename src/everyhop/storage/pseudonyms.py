# SPDX-License-Identifier: Apache-2.0
"""Pseudonyms in SQL: one row a person, found by a keyed hash, readable only with the key store.

A row holds ``wrap(subject key | value)``; the pseudonym is a hash of the value under the subject key, which is random and
nowhere else.  So with the row goes everything that connects the pseudonym with the person: neither the database nor the
master key makes the connection again.  ``lookup`` is a hash under a key that is derived from the master key, so that the
table alone does not answer guesses.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import threading
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol

import sqlalchemy as sa

from everyhop.auditlog.append import append_event
from everyhop.auditlog.model import Event, Kind
from everyhop.auditlog.personal import PersonKind, Wish, disguise, is_pseudonym, persons_in
from everyhop.core.errors import InputError, NotFound, TrustError, Unavailable
from everyhop.core.secret import Secret
from everyhop.storage.schema import meta, pseudonyms, to_micros

if TYPE_CHECKING:
    from everyhop.auditlog.model import Record
    from everyhop.core.clock import Clock, Entropy
    from everyhop.storage.database import Database

_log = logging.getLogger(__name__)

PURPOSE: Final = "pseudonym"
MAX_CACHED: Final = 20_000
MAX_ASKED: Final = 1000
_INDEX: Final = "pseudonym index"
_KEY_BYTES: Final = 32
_LETTERS: Final = 26
_CHUNK: Final = 400
_GENERATION: Final = "pseudonyms_forgotten"


class KeyStore(Protocol):
    """What wraps rows, and has the key of the index."""

    def wrap(self, key_id: str, purpose: str, secret: Secret, /) -> bytes:
        """Encrypt for one row and purpose."""

    def unwrap(self, key_id: str, purpose: str, blob: bytes, /) -> Secret:
        """Decrypt; raises TrustError."""

    def derive(self, purpose: str, /) -> Secret:
        """Return a key for a purpose, always the same for the same master key."""


class SqlPseudonyms:
    """The table, with a bounded memory of what was asked last.  Safe to share between threads and between servers.

    Whether the memory still holds is told by a number in the database that grows when somebody is forgotten; it is read
    in the transaction in which a name is used.
    """

    def __init__(
        self, database: Database, keys: KeyStore, *, clock: Clock, entropy: Entropy, producer: str
    ) -> None:
        self._database = database
        self._keys = keys
        self._clock = clock
        self._entropy = entropy
        self._producer = producer
        self._index = keys.derive(_INDEX)
        self._lock = threading.Lock()
        self._generation = -1
        self._names: dict[Wish, str] = {}
        self._values: dict[str, str] = {}

    def names_of(self, wanted: Collection[Wish]) -> dict[Wish, str]:
        """Return the pseudonym of each value, made where there was none; at most 1,000.  One transaction."""
        with self._database.writing() as connection:
            return self.names_on(connection, wanted)

    def names_on(self, connection: sa.Connection, wanted: Collection[Wish]) -> dict[Wish, str]:
        """Return the same on an open write transaction."""
        known = self._cached_names(connection, wanted)
        missing = [wish for wish in wanted if wish not in known]
        if not missing:
            return known
        known |= self._stored(connection, missing)
        absent = [wish for wish in missing if wish not in known]
        if absent:
            now = to_micros(self._clock.now())
            # Another server may make the same name at this very moment: the first one counts for both.
            connection.execute(_INSERT, [self._row(kind, value, now) for kind, value in absent])
            made = self._stored(connection, absent, remember=False)
            if len(made) != len(absent):
                raise Unavailable("a pseudonym could not be stored")
            known |= made
        return known

    def find(self, kind: PersonKind, value: str) -> str | None:
        """Return the pseudonym of a value if it has one; makes none."""
        with self._database.reading() as connection:
            wish = (kind, value)
            return (self._cached_names(connection, [wish]) or self._stored(connection, [wish])).get(wish)

    def values_of(self, wanted: Collection[str]) -> dict[str, str]:
        """Return the value of each pseudonym that is known; those of the forgotten are left out."""
        if not wanted:
            return {}
        with self._database.reading() as connection:
            return self.values_on(connection, wanted)

    def values_on(self, connection: sa.Connection, wanted: Collection[str]) -> dict[str, str]:
        """Return the same on an open transaction."""
        generation = self._renew(connection)
        with self._lock:
            known = {name: self._values[name] for name in wanted if name in self._values}
        missing = [name for name in wanted if name not in known]
        found: dict[str, str] = {}
        for chunk in _chunks(missing):
            statement = sa.select(pseudonyms.c.pseudonym, pseudonyms.c.wrapped)
            for name, wrapped in connection.execute(statement.where(pseudonyms.c.pseudonym.in_(chunk))):
                try:
                    secret = self._keys.unwrap(name, PURPOSE, wrapped).reveal()
                except (InputError, TrustError) as error:  # a row of another master key: nobody's, for us
                    _log.warning("a pseudonym cannot be read", extra={"reason": error.message})
                    continue
                found[name] = secret[_KEY_BYTES:].decode()
        with self._lock:
            if generation == self._generation:
                if len(self._values) + len(found) > MAX_CACHED:
                    self._values.clear()
                self._values |= found
        return known | found

    def disguised(self, connection: sa.Connection, batch: Sequence[Record]) -> list[Record]:
        """Return records with pseudonyms for everybody whom they name; a pseudonym that is one stays."""
        wishes: set[Wish] = set().union(*(persons_in(record) for record in batch))
        if not wishes:
            return list(batch)
        claimed = {value for _, value in wishes if is_pseudonym(value)}
        real = self.values_on(connection, claimed).keys() if claimed else frozenset()
        names = self.names_on(connection, [wish for wish in wishes if wish[1] not in real])
        return [disguise(record, lambda kind, value: names.get((kind, value))) for record in batch]

    def forget(self, kind: PersonKind, value: str, *, reason: str, by: str, at: datetime) -> str:
        """Delete the row of a person, record that, and return the pseudonym that is nobody's from now on.

        The database overwrites the row.  Raises NotFound when the person has no pseudonym.
        """
        with self._database.writing() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA secure_delete = ON")
            name = self._stored(connection, [(kind, value)], remember=False).get((kind, value))
            if name is None:
                raise NotFound(f"there is no pseudonym of this {kind.value}")
            connection.execute(sa.delete(pseudonyms).where(pseudonyms.c.pseudonym == name))
            _advance(connection)
            self._renew(connection)
            self._record(connection, name, kind, reason=reason, by=by, at=at)
        self._overwrite_log()
        return name

    def _record(
        self, connection: sa.Connection, name: str, kind: PersonKind, *, reason: str, by: str, at: datetime
    ) -> None:
        from everyhop.storage.records import SqlRecordWriter  # it uses this module for every record

        event = Event(
            kind=Kind.LOG,
            action="forget",
            time=at,
            caller=by,
            decision="allow",
            detail={"subject": f"{kind.value}:{name}", "reason": reason},
        )
        append_event(
            SqlRecordWriter(connection, disguise=False), event, producer=self._producer, entropy=self._entropy
        )

    def _overwrite_log(self) -> None:
        """Fold SQLite's write-ahead log into the file and empty it: it holds the row as it was."""
        if self._database.engine.dialect.name != "sqlite":
            return
        with self._database.engine.connect() as connection:
            raw = connection.connection.driver_connection
            if raw is not None:
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    # -- rows

    def _lookup(self, kind: PersonKind, value: str) -> bytes:
        return hmac.digest(self._index.reveal(), _told(kind, value), hashlib.sha256)

    def _row(self, kind: PersonKind, value: str, now: int) -> dict[str, object]:
        key = self._entropy.token_bytes(_KEY_BYTES)
        digest = hmac.digest(key, _told(kind, value), hashlib.sha256)
        name = f"~{kind.value}.{base64.b32encode(digest).decode().lower()[:_LETTERS]}"
        return {
            "pseudonym": name,
            "kind": kind.value,
            "lookup": self._lookup(kind, value),
            "wrapped": self._keys.wrap(name, PURPOSE, Secret(key + value.encode())),
            "created_at": now,
        }

    def _stored(
        self, connection: sa.Connection, wanted: Sequence[Wish], *, remember: bool = True
    ) -> dict[Wish, str]:
        """Return what is stored.  What this very transaction has made is not remembered: it may not come about."""
        generation = self._renew(connection)
        by_lookup = {self._lookup(kind, value): (kind, value) for kind, value in wanted}
        found: dict[Wish, str] = {}
        for chunk in _chunks(list(by_lookup)):
            statement = sa.select(pseudonyms.c.lookup, pseudonyms.c.pseudonym)
            for lookup, name in connection.execute(statement.where(pseudonyms.c.lookup.in_(chunk))):
                found[by_lookup[bytes(lookup)]] = name
        with self._lock:
            if remember and generation == self._generation:
                if len(self._names) + len(found) > MAX_CACHED:
                    self._names.clear()
                self._names |= found
        return found

    # -- memory

    def _cached_names(self, connection: sa.Connection, wanted: Iterable[Wish]) -> dict[Wish, str]:
        self._renew(connection)
        with self._lock:
            return {wish: self._names[wish] for wish in wanted if wish in self._names}

    def _renew(self, connection: sa.Connection) -> int:
        """Drop the memory when somebody was forgotten since, by whichever server; return the number of this transaction.

        What a transaction has read is remembered only while its number is the newest that was seen.
        """
        generation = _generation(connection)
        with self._lock:
            if generation > self._generation:
                self._generation = generation
                self._names.clear()
                self._values.clear()
        return generation


_INSERT: Final = sa.text(
    "INSERT INTO pseudonyms (pseudonym, kind, lookup, wrapped, created_at)"
    " VALUES (:pseudonym, :kind, :lookup, :wrapped, :created_at) ON CONFLICT DO NOTHING"
)


def _told(kind: PersonKind, value: str) -> bytes:
    return f"{kind.value}\0{value}".encode()


def _generation(connection: sa.Connection) -> int:
    found = connection.execute(sa.select(meta.c.value).where(meta.c.key == _GENERATION)).scalar()
    return int(found or 0)


def _advance(connection: sa.Connection) -> None:
    now = _generation(connection) + 1
    updated = connection.execute(sa.update(meta).where(meta.c.key == _GENERATION).values(value=str(now)))
    if not updated.rowcount:
        connection.execute(sa.insert(meta).values(key=_GENERATION, value=str(now)))


def _chunks(items: Sequence[str] | Sequence[bytes]) -> Iterable[Sequence[str] | Sequence[bytes]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
