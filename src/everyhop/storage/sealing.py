# SPDX-License-Identifier: Apache-2.0
"""The tree over the records, grown with them: the head row, and the tiles that are full.

A full tile holds 256 hashes and never changes.  Of the tile that still fills, the hashes stand beside the records; when
it is full they are checked against the frontier, which was computed when they came, so what was altered meanwhile is
noticed and not sealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from everyhop.core.errors import InputError, Unavailable
from everyhop.storage.schema import log_head, log_tiles, records
from everyhop.tlog.merkle import HASH_BYTES, Frontier, node_hash

TILE: Final = 256  # hashes in a full tile (c2sp.org/tlog-tiles)


class LogHead:
    """The head of the log, locked until the transaction ends."""

    def __init__(self, connection: sa.Connection) -> None:
        """Take the lock.  Raises Unavailable (not to be retried) when there is no head that can be read."""
        self._connection = connection
        self.frontier = read_head(connection, for_update=True)

    @property
    def size(self) -> int:
        """Return the number of records that the log has ever had."""
        return self.frontier.size

    def grow(self, leaves: Sequence[bytes]) -> None:
        """Seal the records that were just stored behind the head, given the hashes of their lines in order."""
        size = self.size
        full = (size + len(leaves)) // TILE - size // TILE
        if full:
            hashes = [*self._open_leaves(size, size % TILE), *leaves]
            roots = [
                self._add_tile(0, size // TILE + number, hashes[number * TILE : (number + 1) * TILE])
                for number in range(full)
            ]
            self.frontier = _frontier_of_tiles(self.frontier, roots)
            leaves = hashes[full * TILE :]
        self.frontier.extend(leaves)
        self._connection.execute(_SET_HEAD, {"size": self.size, "frontier": self.frontier.to_bytes()})

    def _open_leaves(self, size: int, count: int) -> list[bytes]:
        if not count:
            return []
        statement = sa.select(records.c.leaf).where(records.c.n > size - count, records.c.n <= size)
        leaves = list(self._connection.execute(statement.order_by(records.c.n)).scalars())
        check = Frontier()
        check.extend(leaves)
        if check.size != count or check.nodes != self.frontier.nodes[-count.bit_count() :]:
            raise Unavailable(
                f"the log was altered: records {size - count + 1} to {size} are not those that were sealed",
                hint="everyhop log verify says which; nothing is appended to a log that is not what it was",
                retry=False,
            )
        return leaves

    def _add_tile(self, level: int, number: int, hashes: Sequence[bytes]) -> bytes:
        root = _tile_root(hashes)
        row = {"level": level, "n": number, "hashes": b"".join(hashes), "root": root}
        self._connection.execute(sa.insert(log_tiles), row)
        if (number + 1) % TILE == 0:
            above = number // TILE
            self._add_tile(level + 1, above, tile_roots(self._connection, level, above * TILE, TILE))
        return root


def _tile_root(hashes: Sequence[bytes]) -> bytes:
    """Return the hash above a full tile."""
    nodes = list(hashes)
    while len(nodes) > 1:
        nodes = [node_hash(left, right) for left, right in zip(nodes[::2], nodes[1::2], strict=True)]
    return nodes[0]


def _frontier_of_tiles(frontier: Frontier, roots: Sequence[bytes]) -> Frontier:
    """Return the frontier of the full tiles below ``frontier`` and those behind it that have these roots.

    What would be hashed again by taking the leaves one by one is half of the work.
    """
    tiles = frontier.size // TILE
    nodes = list(frontier.nodes[: tiles.bit_count()])
    for root in roots:
        node, rest = root, tiles
        while rest & 1:
            node, rest = node_hash(nodes.pop(), node), rest >> 1
        nodes.append(node)
        tiles += 1
    return Frontier.from_bytes((tiles * TILE).to_bytes(8, "big") + b"".join(nodes))


def read_head(connection: sa.Connection, *, for_update: bool = False) -> Frontier:
    """Return the frontier of the log.  Raises Unavailable (not to be retried) when it cannot be read."""
    row = connection.execute(_LOCK_HEAD if for_update else _GET_HEAD).one_or_none()
    if row is None:
        raise Unavailable("the log has no head: the database was altered", retry=False)
    try:
        frontier = Frontier.from_bytes(row.frontier)
    except InputError as error:
        raise Unavailable(
            "the head of the log cannot be read: the database was altered", retry=False
        ) from error
    if frontier.size != row.size:
        raise Unavailable("the head of the log contradicts itself: the database was altered", retry=False)
    return frontier


def tile_roots(connection: sa.Connection, level: int, start: int, count: int) -> list[bytes]:
    """Return the roots of full tiles of one level.  Raises Unavailable (not to be retried) when one is missing."""
    statement = sa.select(log_tiles.c.root).where(
        log_tiles.c.level == level, log_tiles.c.n >= start, log_tiles.c.n < start + count
    )
    roots = list(connection.execute(statement.order_by(log_tiles.c.n)).scalars())
    if len(roots) != count or any(len(root) != HASH_BYTES for root in roots):
        raise Unavailable("the log was altered: tiles of its tree are missing", retry=False)
    return roots


_GET_HEAD: Final = sa.select(log_head.c.size, log_head.c.frontier).where(log_head.c.one == 1)
_LOCK_HEAD: Final = _GET_HEAD.with_for_update()
_SET_HEAD: Final = (
    sa.update(log_head)
    .where(log_head.c.one == 1)
    .values(size=sa.bindparam("size"), frontier=sa.bindparam("frontier"))
)
