# SPDX-License-Identifier: Apache-2.0
"""Storage: one SQL path for everything that the server keeps.  The only room that knows SQLAlchemy."""

from everyhop.storage.authorities import SqlAuthorityStore
from everyhop.storage.database import Database, open_database
from everyhop.storage.meta import SqlMeta
from everyhop.storage.migrate import current_revision, migrate
from everyhop.storage.records import SqlRecordStore
from everyhop.storage.schema import HEAD, metadata
from everyhop.storage.service import Storage, open_storage
from everyhop.storage.snapshots import SnapshotStore

__all__ = [
    "HEAD",
    "Database",
    "SnapshotStore",
    "SqlAuthorityStore",
    "SqlMeta",
    "SqlRecordStore",
    "Storage",
    "current_revision",
    "metadata",
    "migrate",
    "open_database",
    "open_storage",
]
