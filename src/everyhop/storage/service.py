# SPDX-License-Identifier: Apache-2.0
"""Everything that the server keeps, behind one door."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from everyhop.core.clock import Clock, Entropy
from everyhop.storage.api_keys import SqlApiKeyStore
from everyhop.storage.authorities import SqlAuthorityStore
from everyhop.storage.blocks import SqlBlockStore
from everyhop.storage.canaries import SqlCanaryStore
from everyhop.storage.consumers import SqlConsumers
from everyhop.storage.database import Database
from everyhop.storage.detection import SqlDetection
from everyhop.storage.detector_state import SqlDetectorStates
from everyhop.storage.issuing import SqlIssuingStore
from everyhop.storage.leases import SqlLeases
from everyhop.storage.log_lines import SqlLogLines
from everyhop.storage.log_seals import SqlSealStore
from everyhop.storage.log_tree import SqlLogTree
from everyhop.storage.meta import SqlMeta
from everyhop.storage.migrate import migrate
from everyhop.storage.postgresql import open_postgresql
from everyhop.storage.proposals import SqlProposalStore
from everyhop.storage.pseudonyms import KeyStore, SqlPseudonyms
from everyhop.storage.records import SqlRecordStore
from everyhop.storage.snapshots import SnapshotStore
from everyhop.storage.sqlite import open_database
from everyhop.storage.token_journal import SqlTokenJournal

_FRACTION_BITS: Final = 53


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """The repositories of one database.  Each call is a transaction; safe to share between threads."""

    database: Database
    authorities: SqlAuthorityStore
    snapshots: SnapshotStore
    records: SqlRecordStore
    log_tree: SqlLogTree
    log_seals: SqlSealStore
    meta: SqlMeta
    issuing: SqlIssuingStore
    token_journal: SqlTokenJournal
    api_keys: SqlApiKeyStore
    proposals: SqlProposalStore
    canaries: SqlCanaryStore
    detector_states: SqlDetectorStates
    consumers: SqlConsumers
    leases: SqlLeases
    log_lines: SqlLogLines
    blocks: SqlBlockStore
    detection: SqlDetection
    pseudonyms: SqlPseudonyms | None = None

    def close(self) -> None:
        """Close every connection."""
        self.database.close()


def open_storage(
    place: Path | str,
    *,
    entropy: Entropy | None = None,
    producer: str = "server",
    keys: KeyStore | None = None,
    clock: Clock | None = None,
    disguise: bool = True,
) -> Storage:
    """Open a database and bring its schema up to date.

    ``place`` is the path of a SQLite file, made 0600 when it is missing, or the URL of a PostgreSQL database
    (a text that begins with ``postgresql://``).  ``producer`` names this server in the audit log.  With ``keys`` and
    ``clock``, persons in records become pseudonyms, unless ``disguise`` is off: then only those of before are read.
    Raises SettingsError when the file is not ours alone, the URL cannot be read, or the schema is that of a newer
    everyhop; Unavailable when the database does not answer.
    """
    database = open_database(place) if isinstance(place, Path) else open_postgresql(place)
    try:
        migrate(database)
    except BaseException:
        database.close()
        raise
    source = entropy or _RecordIds()
    pseudonyms = None
    if keys is not None and clock is not None:
        pseudonyms = SqlPseudonyms(database, keys, clock=clock, entropy=source, producer=producer)
        database.disguise = pseudonyms.disguised if disguise else None
    return Storage(
        pseudonyms=pseudonyms,
        database=database,
        authorities=SqlAuthorityStore(database, entropy=source, producer=producer),
        snapshots=SnapshotStore(database, entropy=source, producer=producer),
        records=SqlRecordStore(database, entropy=source, producer=producer),
        log_tree=SqlLogTree(database),
        log_seals=SqlSealStore(database),
        meta=SqlMeta(database),
        issuing=SqlIssuingStore(database, entropy=source, producer=producer),
        token_journal=SqlTokenJournal(database, entropy=source, producer=producer),
        api_keys=SqlApiKeyStore(database, entropy=source, producer=producer),
        proposals=SqlProposalStore(database, entropy=source, producer=producer),
        canaries=SqlCanaryStore(database, entropy=source, producer=producer),
        detector_states=SqlDetectorStates(database),
        consumers=SqlConsumers(database),
        leases=SqlLeases(database),
        log_lines=SqlLogLines(database),
        blocks=SqlBlockStore(database, entropy=source, producer=producer),
        detection=SqlDetection(database, entropy=source, producer=producer),
    )


class _RecordIds:
    """Randomness for the ids of this server's own records, which decide nothing."""

    def token_bytes(self, count: int) -> bytes:
        return secrets.token_bytes(count)

    def fraction(self) -> float:
        return secrets.randbits(_FRACTION_BITS) * 2.0**-_FRACTION_BITS
