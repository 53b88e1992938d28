# SPDX-License-Identifier: Apache-2.0
"""Tiles: one path per file, the widths of the specification, and proofs out of them."""

import pytest

from everyhop.core.errors import InputError, ProofError
from everyhop.tlog.merkle import (
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from everyhop.tlog.tiles import (
    MAX_ENTRY_BYTES,
    Tile,
    TileNodes,
    bundles_of,
    encode_bundle,
    read_bundle,
    read_tile,
    root_of,
    tiles_of,
    width_of,
)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/000",
        "tile/0/x001",
        "tile/0/001/000",
        "tile/0/x01/000",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/000.p",
        "tile/0/000.p/",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/999",
        "tile/0/000.p/5/5",
        "tile/0/000/../000",
        "tile/0/000\n",
        "/tile/0/000",
        "tile/0/x00\N{ARABIC-INDIC DIGIT ONE}/000",
        "tile/Entries/000",
        "tile/entries",
        "tile/data/000",
        "tile/8/0/000",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
    ],
)
def test_paths_of_no_tile(path):
    with pytest.raises(InputError):
        Tile.parse(path)


@pytest.mark.parametrize(
    ("level", "index", "width"), [(64, 0, 1), (-1, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257), (0, 2**63, 1)]
)
def test_tiles_without_a_path(level, index, width):
    with pytest.raises(InputError):
        Tile(level, index, width)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 1234067), "tile/0/x001/x234/067"),  # c2sp.org/tlog-tiles
        (Tile(0, 0), "tile/0/000"),
        (Tile(None, 0, 7), "tile/entries/000.p/7"),
        (Tile(63, 999, 255), "tile/63/999.p/255"),
        (Tile(None, 1000), "tile/entries/x001/000"),
        (Tile(7, 2**63 - 1), "tile/7/x009/x223/x372/x036/x854/x775/807"),
    ],
)
def test_each_tile_has_one_path(tile, path):
    assert tile.path == path
    assert Tile.parse(path) == tile


def test_the_tiles_of_70_000_leaves_are_those_of_the_specification():
    tiles = list(tiles_of(70_000))
    by_level = {level: [t for t in tiles if t.level == level] for level in (0, 1, 2)}
    assert [sum(t.is_full for t in by_level[level]) for level in (0, 1, 2)] == [273, 1, 0]
    assert [by_level[level][-1].width for level in (0, 1, 2)] == [112, 17, 1]
    assert len(tiles) == 274 + 2 + 1
    assert len(list(bundles_of(70_000))) == 274
    assert [t.path for t in tiles_of(256)] == ["tile/0/000", "tile/1/000.p/1"]
    assert list(tiles_of(0)) == []


@pytest.mark.parametrize(
    ("old", "new"), [(0, 1), (1, 2), (255, 256), (256, 257), (300, 70_000), (65_536, 65_537), (9, 9)]
)
def test_what_is_new_is_what_the_older_tree_does_not_have(old, new):
    assert list(tiles_of(new, since=old)) == [t for t in tiles_of(new) if t not in set(tiles_of(old))]
    assert list(bundles_of(new, since=old)) == [t for t in bundles_of(new) if t not in set(bundles_of(old))]


def test_widths():
    assert [width_of(70_000, 0, n) for n in (0, 272, 273, 274)] == [256, 256, 112, 0]
    assert width_of(70_000, None, 273) == 112


def stored(size):
    """Every tile of a tree, computed the slow way."""
    hashes = [leaf_hash(str(i).encode()) for i in range(size)]
    files, level = {}, 0
    while hashes:
        for index in range(-(-len(hashes) // 256)):
            part = hashes[index * 256 : index * 256 + 256]
            files[Tile(level, index, len(part)).path] = b"".join(part)
        hashes = [root_of(hashes[i : i + 256]) for i in range(0, len(hashes) - 255, 256)]
        level += 1
    return files


@pytest.fixture(scope="module")
def tree():
    size = 66_000
    frontier = Frontier()
    frontier.extend(leaf_hash(str(i).encode()) for i in range(size))
    return size, frontier.root(), stored(size)


def test_a_tile_that_was_changed_proves_nothing(tree):
    size, root, files = tree
    bad = dict(files)
    path = "tile/0/x000/000" if "tile/0/x000/000" in bad else "tile/0/003"
    bad[path] = bad[path][:40] + bytes([bad[path][40] ^ 1]) + bad[path][41:]
    nodes = TileNodes(size, lambda tile: bad[tile.path])
    proof = inclusion_proof(3 * 256 + 200, size, nodes)
    with pytest.raises(ProofError):
        verify_inclusion(leaf_hash(str(3 * 256 + 200).encode()), 3 * 256 + 200, size, root, proof)


def test_proofs_out_of_tiles(tree):
    size, root, files = tree
    asked = []

    def fetch(tile):
        asked.append(tile)
        return files[tile.path]

    nodes = TileNodes(size, fetch)
    assert tree_root(size, nodes) == root
    for index in (0, 255, 256, 40_000, 65_535, 65_536, size - 1):
        verify_inclusion(
            leaf_hash(str(index).encode()), index, size, root, inclusion_proof(index, size, nodes)
        )
    for old in (1, 255, 256, 257, 40_000, 65_536, size):
        before = tree_root(old, nodes)
        verify_consistency(old, before, size, root, consistency_proof(old, size, nodes))
    assert len(asked) == len(set(asked))
    for n in range(0, 70 * 256, 256):  # more tiles than are held: the oldest are forgotten, nothing else
        assert nodes(0, n) == leaf_hash(str(n).encode())
    assert len(asked) < 70 + 20


@pytest.mark.parametrize(
    ("level", "n"), [(0, 66_000), (0, -1), (16, 1), (17, 0), (8, 257), (3, 66_000 // 8), (600, 0)]
)
def test_nodes_that_the_tree_does_not_have(tree, level, n):
    size, _, files = tree
    with pytest.raises(InputError):
        TileNodes(size, lambda tile: files[tile.path])(level, n)


def test_a_tile_of_another_width_is_refused():
    with pytest.raises(InputError):
        read_tile(Tile(0, 0, 2), bytes(96))
    with pytest.raises(InputError):
        TileNodes(3, lambda _: bytes(64))(0, 0)
    assert read_tile(Tile(0, 0, 2), bytes(64)) == [bytes(32)] * 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\0\x01",
        b"\0\x02a",
        b"\0\x01a",
        b"\0\x01a\0\x01b\0\x01c",
        b"\0\x01a\0\x01b\0",
        b"\0\x01a\0\x05b",
    ],
)
def test_bytes_that_are_no_bundle_of_two(data):
    with pytest.raises(InputError):
        read_bundle(Tile(None, 0, 2), data)


def test_entries_come_back_up_to_their_limit():
    entries = [b"", b"x" * MAX_ENTRY_BYTES]
    assert read_bundle(Tile(None, 0, 2), encode_bundle(entries)) == entries
    with pytest.raises(InputError):
        encode_bundle([b"x" * (MAX_ENTRY_BYTES + 1)])
