# SPDX-License-Identifier: Apache-2.0
"""When the head of the log is signed, and when it is not.

The key and what it signed last are outside the database.  So a database that was restored from a backup, cut off or
rewritten is recognised before anything is signed over it: the tree of the last checkpoint must be the beginning of the
tree that is there now.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from everyhop.auditlog.checkpoints import StoredCheckpoint
from everyhop.core.errors import Conflict, InputError, NotFound, ProofError
from everyhop.tlog import Checkpoint, TileNodes, consistency_proof, open_checkpoint, tree_root

if TYPE_CHECKING:
    from collections.abc import Sequence

    from everyhop.auditlog.ports import LogSigner, LogTree
    from everyhop.core.clock import Clock
    from everyhop.tlog import NodeReader, SignedCheckpoint, Tile

THIN_EVERY: Final = timedelta(hours=1)
KEEP_ALL: Final = timedelta(days=1)
_RESTART: Final = (
    "restore the newer database; or, if records are lost for good, begin a new log that says so:"
    " everyhop log restart --reason TEXT"
)


def nodes_of(tree: LogTree, size: int) -> NodeReader:
    """Return a reader of the nodes of a stored tree, as of its first ``size`` leaves."""

    def fetch(tile: Tile) -> bytes:
        return tree.tile(tile.level or 0, tile.index, tile.width)

    return TileNodes(size, fetch)


class Checkpointer:
    """Signs the head of one log.  Blocking; one at a time over all servers (a lease, held by who calls)."""

    def __init__(self, tree: LogTree, signer: LogSigner, clock: Clock) -> None:
        self._tree = tree
        self._signer = signer
        self._clock = clock
        self._thinned = clock.now()

    def thin(self) -> int:
        """Once an hour, remove checkpoints older than a day but for one of each hour; return how many went.

        A checkpoint vouches for every one before it; what goes only says less finely where something was rewritten.
        """
        now = self._clock.now()
        if now - self._thinned < THIN_EVERY:
            return 0
        self._thinned = now
        return self._tree.thin_checkpoints(self._signer.origin, before=now - KEEP_ALL)

    def check(self) -> None:
        """Raise Conflict unless the log in the database goes on from the last checkpoint that was signed.

        The message names both sizes.  To be called at start, before anything is appended.
        """
        size, _ = self._tree.head()
        for last in filter(None, (self._signer.last(), self._stored())):
            signed = last.checkpoint
            if size < signed.size:
                raise Conflict(
                    f"the audit log in the database has {size} records, but {signed.size} were signed for:"
                    " it was restored from a backup, or its end was removed",
                    hint=_RESTART,
                )
            if self._root(signed.size) != signed.root:
                raise Conflict(
                    f"the audit log in the database ({size} records) does not contain the {signed.size} records that"
                    " were signed for: it was rewritten",
                    hint=_RESTART,
                )

    def step(self) -> StoredCheckpoint | None:
        """Sign the head if it has grown, keep the checkpoint in the database, and return it; None if nothing grew.

        Raises Conflict when what is there now does not follow from what was signed last.
        """
        last = self._signer.last()
        size, frontier = self._tree.head()
        if not size or (last is not None and last.checkpoint.size == size):
            if last is not None and size:
                self._check_root(size, last.checkpoint.root)
                return self._keep_again(last)
            return None
        root = frontier.root()
        self._check_root(size, root)
        proof: Sequence[bytes] = ()
        if last is not None:
            if last.checkpoint.size > size:
                raise Conflict(
                    f"not signed: the log has {size} records, and {last.checkpoint.size} were signed for",
                    hint=_RESTART,
                )
            proof = consistency_proof(last.checkpoint.size, size, nodes_of(self._tree, size))
        checkpoint = Checkpoint(origin=self._signer.origin, size=size, root=root)
        note = self._signer.sign(checkpoint, proof)
        return self._keep(checkpoint, note.encode())

    def _keep_again(self, last: SignedCheckpoint) -> StoredCheckpoint | None:
        """Keep what was signed right before a crash kept it from the database."""
        stored = self._tree.latest_checkpoint(last.checkpoint.origin)
        if stored is not None and stored.size >= last.checkpoint.size:
            return None
        return self._keep(last.checkpoint, last.note.encode())

    def _keep(self, checkpoint: Checkpoint, note: str) -> StoredCheckpoint:
        stored = StoredCheckpoint(
            origin=checkpoint.origin,
            size=checkpoint.size,
            root=checkpoint.root,
            signed_at=self._clock.now(),
            note=note,
        )
        self._tree.save_checkpoint(stored)
        return stored

    def _stored(self) -> SignedCheckpoint | None:
        """Return the last checkpoint in the database, where the key believes it: the key's files may be the older part."""
        stored = self._tree.latest_checkpoint(self._signer.origin)
        if stored is None:
            return None
        try:
            return open_checkpoint(stored.note.encode(), self._signer.verifiers)
        except (InputError, ProofError):
            return None  # what nobody vouches for says nothing; verifying the log names it

    def _root(self, size: int) -> bytes | None:
        """Return the root of the first ``size`` leaves, None when tiles of theirs are gone or damaged."""
        try:
            return tree_root(size, nodes_of(self._tree, size))
        except (InputError, NotFound):
            return None

    def _check_root(self, size: int, root: bytes) -> None:
        if self._root(size) != root:
            raise Conflict(
                f"not signed: the tiles of the log's {size} records are not those of its head: it was altered",
                hint="everyhop log verify",
            )
