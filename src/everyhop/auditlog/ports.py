# SPDX-License-Identifier: Apache-2.0
"""What the audit log needs from a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Protocol

from everyhop.auditlog.append import AppendResult
from everyhop.auditlog.checkpoints import StoredCheckpoint
from everyhop.auditlog.model import Event, Kind, Record
from everyhop.auditlog.query import Order, Page, RecordFilter
from everyhop.auditlog.sealing import Seal, SealedResult
from everyhop.tlog import Checkpoint, Frontier, Note, SignedCheckpoint, VerifierKey


class RecordWriter(Protocol):
    """An open transaction on the log."""

    def insert(self, records: Sequence[Record]) -> AppendResult:
        """Insert what is not there yet, by ``id`` and by (``producer``, ``seq``)."""

    def next_seq(self, producer: str) -> int:
        """Return the number after the highest of ``producer``, 1 for the first."""


class RecordStore(Protocol):
    """A log as its readers and the agents' batches see it; every call is a transaction of its own."""

    def append(self, records: Sequence[Record]) -> AppendResult:
        """Append records in one transaction; durable when it returns.

        Raises InputError when there are too many or one is too large, and then nothing is stored.
        """

    def note(self, event: Event) -> Record:
        """Append an event of this process through :func:`everyhop.auditlog.append.append_event`."""

    def get(self, record_id: str) -> Record:
        """Return a record by its id.  Raises NotFound."""

    def of_decision(self, decision_id: str) -> list[Record]:
        """Return the records of one decision, at most 16.

        These are the one with this id, and behind it, the oldest first, those whose id goes on with a dot: what
        applications said of the same call.
        """

    def query(
        self,
        wanted: RecordFilter,
        *,
        order: Order = Order.NEWEST,
        cursor: int | None = None,
        limit: int = 100,
    ) -> Page:
        """Return one page of the records that match, going on behind ``cursor``; at most 1,000 of them."""

    def scan(self, wanted: RecordFilter, *, holding: bytes | None = None) -> Iterator[Sequence[Record]]:
        """Yield all records that match, oldest first, in pages; ``holding`` is a text that their line must hold."""

    def first_time(self, kind: Kind) -> datetime | None:
        """Return the time of the oldest record of a kind that is kept."""

    def last_seq(self, producer: str) -> int:
        """Return the highest number stored of ``producer``, 0 when there is none."""

    def count(self) -> int:
        """Return how many records are held."""

    def prune(
        self,
        *,
        now: datetime,
        before: datetime | None = None,
        keep_rows: int | None = None,
        limit: int = 10_000,
    ) -> int:
        """Delete the oldest records that are too old or too many; return how many went, at most ``limit``.

        They go by whole tiles (256 records), the tree over them stays, their numbers are known for ever, and what
        went is itself recorded, at ``now``.  A tile is too old when every record in it says so, or when a checkpoint
        that covers it was signed before ``before``: a producer whose clock is wrong does not keep its tile for ever,
        nor can it make another one's records go.
        """


class LogTree(Protocol):
    """The tree over the log, as those read it who sign, prove and verify.

    Indexes count from 0 (a record's place ``n`` counts from 1).  Levels are those of tiles: level L holds the roots of
    perfect subtrees of ``256 ** L`` leaves.  Every call is a transaction of its own; nothing that was read once changes.
    """

    def head(self) -> tuple[int, Frontier]:
        """Return the number of leaves, and the right edge of the tree."""

    def hashes(self, level: int, start: int, count: int) -> list[bytes]:
        """Return ``count`` hashes of a level from ``start``, at most 65,536.

        Raises NotFound when the tree does not reach that far.
        """

    def tile(self, level: int, n: int, width: int = 256) -> bytes:
        """Return the first ``width`` hashes of a tile, one behind the other.  Raises NotFound."""

    def lines(self, start: int, end: int) -> Iterator[Sequence[bytes | None]]:
        """Yield the lines from ``start`` to ``end`` (exclusive) in pages of at most 1,000; None for one that is gone.

        What :meth:`first_kept` leaves out was pruned; a line that is missing behind it was taken away.
        """

    def index_of(self, record_id: str) -> int:
        """Return the index of a record.  Raises NotFound."""

    def first_kept(self) -> int:
        """Return the index of the oldest record that is kept, or the size when there is none."""

    def save_checkpoint(self, checkpoint: StoredCheckpoint) -> None:
        """Keep a signed checkpoint; the same again changes nothing.

        Raises Conflict when there is one of the same origin and size with another root, or when the log has fewer
        records.
        """

    def add_cosignatures(self, checkpoint: StoredCheckpoint) -> None:
        """Put the note of a checkpoint that is kept, with signatures of witnesses added, in its place.

        Raises NotFound for one that is not kept with this root.
        """

    def thin_checkpoints(self, origin: str, *, before: datetime) -> int:
        """Remove of the checkpoints signed before a moment all but the first of each hour; return how many went."""

    def latest_checkpoint(self, origin: str) -> StoredCheckpoint | None:
        """Return the largest checkpoint of an origin, or None."""

    def origins(self) -> list[str]:
        """Return the origins that were ever signed for, sorted."""

    def checkpoints(self, origin: str, *, behind: int = -1) -> Iterator[StoredCheckpoint]:
        """Yield the checkpoints of an origin that are larger than ``behind``, the smallest first."""


class SealStore(Protocol):
    """Where sealed batches are kept; every call is a transaction of its own."""

    def append(
        self, batch: Sequence[Record], seal: Seal, chain: Sequence[bytes], *, now: datetime
    ) -> SealedResult:
        """Store a batch with its seal.

        Nothing of it is stored where a part is held already, the seal before it is another one, or an id is taken.

        Raises SealError (``owner``) when the producer's last seal is somebody else's.
        """

    def is_sealing(self, producer: str) -> bool:
        """Tell whether a producer has sealed anything."""


class LogSigner(Protocol):
    """The key of the log, outside the database, with the memory of what it signed last.

    It signs nothing that does not follow from that.  A cloud's key store behind this port keeps the memory before it
    asks for the signature: a signature that was made and lost may turn up.
    """

    @property
    def origin(self) -> str:
        """Return the origin of the log, which is the name of its keys."""

    @property
    def verifiers(self) -> tuple[VerifierKey, ...]:
        """Return the public keys that sign, the newest first."""

    def last(self) -> SignedCheckpoint | None:
        """Return what was signed last, None before the first time."""

    def sign(self, checkpoint: Checkpoint, proof: Sequence[bytes]) -> Note:
        """Sign a checkpoint that follows from the last one by ``proof``, and remember it first.

        Raises Conflict for one that does not follow, or of another origin.
        """
