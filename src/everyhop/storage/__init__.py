# SPDX-License-Identifier: Apache-2.0
"""Storage: one SQL path for everything that the server keeps.  The only room that knows SQLAlchemy."""

from everyhop.storage.api_keys import SqlApiKeyStore
from everyhop.storage.authorities import SqlAuthorityStore
from everyhop.storage.consumers import SqlConsumers
from everyhop.storage.database import Database
from everyhop.storage.issuing import SqlIssuingStore
from everyhop.storage.leases import SqlLeases
from everyhop.storage.log_lines import SqlLogLines
from everyhop.storage.log_seals import SqlSealStore
from everyhop.storage.log_tree import SqlLogTree
from everyhop.storage.meta import SqlMeta
from everyhop.storage.migrate import current_revision, migrate
from everyhop.storage.postgresql import open_postgresql
from everyhop.storage.proposals import SqlProposalStore
from everyhop.storage.records import SqlRecordStore
from everyhop.storage.schema import HEAD, metadata
from everyhop.storage.service import Storage, open_storage
from everyhop.storage.snapshots import SnapshotStore
from everyhop.storage.sqlite import open_database
from everyhop.storage.token_journal import SqlTokenJournal

__all__ = [
    "HEAD",
    "Database",
    "SnapshotStore",
    "SqlApiKeyStore",
    "SqlAuthorityStore",
    "SqlConsumers",
    "SqlIssuingStore",
    "SqlLeases",
    "SqlLogLines",
    "SqlLogTree",
    "SqlMeta",
    "SqlProposalStore",
    "SqlRecordStore",
    "SqlSealStore",
    "SqlTokenJournal",
    "Storage",
    "current_revision",
    "metadata",
    "migrate",
    "open_database",
    "open_postgresql",
    "open_storage",
]
