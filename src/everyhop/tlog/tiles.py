# SPDX-License-Identifier: Apache-2.0
"""Tiles (c2sp.org/tlog-tiles): a tree and its entries cut into files of 256, which never change once they are full.

Tile ``n`` of level ``l`` holds the nodes ``(8 * l, 256 * n)`` to ``(8 * l, 256 * n + 255)``; so level 0 holds the leaf
hashes and each level above the hashes of full tiles below it.  All other nodes are computed from those.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

from everyhop.core.errors import InputError
from everyhop.tlog.encoding import decode_number
from everyhop.tlog.merkle import HASH_BYTES, MAX_SIZE, node_hash, split_hashes

HEIGHT: Final = 8
WIDTH: Final = 256
MAX_LEVEL: Final = 63
MAX_ENTRY_BYTES: Final = 65_535
"""The longest leaf: bundles carry lengths of two bytes."""
MAX_BUNDLE_BYTES: Final = WIDTH * (2 + MAX_ENTRY_BYTES)
CACHED_TILES: Final = 64

_PATH: Final = re.compile(
    r"tile/(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?"
)
_LENGTH_BYTES: Final = 2
_GROUP: Final = 1000


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """One file: hashes of a ``level``, or entries where the level is None; ``width`` of them, 256 when it is full."""

    level: int | None
    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        """Refuse what is no tile; raises InputError."""
        if (
            not 0 <= (self.level or 0) <= MAX_LEVEL
            or not 0 <= self.index <= MAX_SIZE
            or not 0 < self.width <= WIDTH
        ):
            raise InputError("no such tile")

    @property
    def is_full(self) -> bool:
        """Tell whether it never changes again."""
        return self.width == WIDTH

    @property
    def path(self) -> str:
        """Return where it is below a log's prefix, e.g. ``tile/0/x001/234.p/5``."""
        groups, rest = [f"{self.index % _GROUP:03}"], self.index // _GROUP
        while rest:
            groups.append(f"x{rest % _GROUP:03}")
            rest //= _GROUP
        level = "entries" if self.level is None else self.level
        partial = "" if self.is_full else f".p/{self.width}"
        return f"tile/{level}/{'/'.join(reversed(groups))}{partial}"

    @classmethod
    def parse(cls, path: str) -> Self:
        """Read a path.  Raises InputError for any other spelling, also of a tile that exists."""
        if (found := _PATH.fullmatch(path)) is None:
            raise InputError("no such tile")
        level = None if found[1] == "entries" else int(found[1])
        index = decode_number(found[2].replace("x", "").replace("/", "").lstrip("0") or "0")
        tile = cls(level, index, int(found[3] or WIDTH))
        if tile.path != path:
            raise InputError("no such tile")
        return tile


def width_of(size: int, level: int | None, index: int) -> int:
    """Return how wide a tile is in the tree of ``size`` leaves; 0 where there is none."""
    return max(0, min(WIDTH, (size >> (HEIGHT * (level or 0))) - index * WIDTH))


def tiles_of(size: int, *, since: int = 0) -> Iterator[Tile]:
    """Yield the tiles of hashes of the tree of ``size`` leaves, lowest level first.

    With ``since``, those only that the tree of so many leaves does not have.
    """
    level = 0
    while nodes := size >> (HEIGHT * level):
        done = (since >> (HEIGHT * level)) // WIDTH
        for index in range(done, -(-nodes // WIDTH)):
            width = width_of(size, level, index)
            if width != width_of(since, level, index):
                yield Tile(level, index, width)
        level += 1


def bundles_of(size: int, *, since: int = 0) -> Iterator[Tile]:
    """Yield the bundles of entries of the tree of ``size`` leaves; with ``since``, those that are new."""
    for index in range(since // WIDTH, -(-size // WIDTH)):
        width = width_of(size, None, index)
        if width != width_of(since, None, index):
            yield Tile(None, index, width)


class TileNodes:
    """A :data:`~everyhop.tlog.merkle.NodeReader` over tiles, for the tree of ``size`` leaves.

    Each tile is fetched once as long as it is among the last 64.  Nothing is believed of a tile: a proof made from a
    wrong one does not hold.
    """

    def __init__(self, size: int, fetch: Callable[[Tile], bytes]) -> None:
        """``fetch`` returns the concatenated hashes of a tile."""
        self._size = size
        self._fetch = fetch
        self._held: OrderedDict[Tile, list[bytes]] = OrderedDict()

    def __call__(self, level: int, n: int) -> bytes:
        """Return a node.  Raises InputError for one that the tree does not have, or a tile of another width."""
        tile_level, height = divmod(level, HEIGHT)
        first = n << height
        index, offset = divmod(first, WIDTH)
        width = width_of(self._size, tile_level, index)
        if not offset + (1 << height) <= width:
            raise InputError(f"the tree of {self._size} leaves has no node {level}, {n}")
        return root_of(self._hashes(Tile(tile_level, index, width))[offset : offset + (1 << height)])

    def _hashes(self, tile: Tile) -> list[bytes]:
        held = self._held.get(tile)
        if held is None:
            held = self._held[tile] = read_tile(tile, self._fetch(tile))
            if len(self._held) > CACHED_TILES:
                self._held.popitem(last=False)
        else:
            self._held.move_to_end(tile)
        return held


def read_tile(tile: Tile, data: bytes) -> list[bytes]:
    """Cut a tile into its hashes.  Raises InputError unless it is as wide as its name says."""
    if len(data) != tile.width * HASH_BYTES:
        raise InputError(f"{tile.path} has {tile.width} hashes of {HASH_BYTES} bytes, not {len(data)} bytes")
    return split_hashes(data)


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Return the hash above nodes of one level, a power of two of them, at least one."""
    level = list(hashes)
    while len(level) > 1:
        level = [node_hash(level[i], level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Return entries, each behind its length (two bytes, big-endian).  Raises InputError for one over 65,535 bytes."""
    parts = bytearray()
    for entry in entries:
        if len(entry) > MAX_ENTRY_BYTES:
            raise InputError(f"an entry has at most {MAX_ENTRY_BYTES} bytes")
        parts += len(entry).to_bytes(_LENGTH_BYTES, "big")
        parts += entry
    return bytes(parts)


def read_bundle(tile: Tile, data: bytes) -> list[bytes]:
    """Cut a bundle into its entries.  Raises InputError unless there are as many as its name says, and nothing else."""
    entries, position = list[bytes](), 0
    while position < len(data) and len(entries) < tile.width:
        length = int.from_bytes(data[position : position + _LENGTH_BYTES], "big")
        position += _LENGTH_BYTES
        entries.append(data[position : position + length])
        position += length
    if position != len(data) or len(entries) != tile.width:
        raise InputError(f"{tile.path} does not hold {tile.width} entries")
    return entries
