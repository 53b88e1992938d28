# SPDX-License-Identifier: Apache-2.0
"""A verifier that shares no line with us accepts our tiles and refuses each way to tamper with them."""

import shutil

import pytest
from tests.support import log_verifier
from tests.support.sealed_log import SealedLog

from everyhop.core.secret import Secret
from everyhop.runtime.tiles_export import export_tiles
from everyhop.tlog import (
    Checkpoint,
    Cosigner,
    SignerKey,
    Tile,
    encode_bundle,
    parse_note,
    read_bundle,
    sign_note,
)

pytestmark = pytest.mark.skipif(log_verifier.why_absent() is not None, reason=str(log_verifier.why_absent()))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Build the verifier, and a log of 1,500 records with its state at 700 kept."""
    root = tmp_path_factory.mktemp("log")
    root.chmod(0o700)
    log = SealedLog(root)
    log.append(700)
    old = root / "old-checkpoint"
    old.write_text(log.sign())
    log.append(800)
    log.sign()
    log.signer.rotate()
    log.append(1)
    note = parse_note(log.sign().encode())
    witness = Cosigner(SignerKey("witness.example/w1", Secret(b"w" * 32)))
    stored = log.storage.log_tree.latest_checkpoint(log.signer.origin)
    cosigned = note.with_signatures([witness.cosign(note.text, time=1_700_000_000)])
    log.storage.log_tree.add_cosignatures(
        type(stored)(**{**{f: getattr(stored, f) for f in stored.__slots__}, "note": cosigned.encode()})
    )
    tiles = root / "tiles"
    export_tiles(log.storage.log_tree, tiles, log.signer.verifiers)
    yield log_verifier.build(root), log, tiles, old
    log.close()


@pytest.fixture
def tiles(world, tmp_path):
    return shutil.copytree(world[2], tmp_path / "tiles")


def refused(world, tiles, *old):
    code, said = log_verifier.run(world[0], tiles, str(world[1].signer.verifiers[1]), *old)
    assert code == 1, said
    return said


def rewrite(tiles, index, change):
    tile = Tile(None, index)
    path = tiles / tile.path
    path.write_bytes(encode_bundle(change(read_bundle(tile, path.read_bytes()))))


def test_a_bit_of_a_record(world, tiles):
    rewrite(tiles, 2, lambda e: [*e[:9], e[9][:-1] + bytes([e[9][-1] ^ 1]), *e[10:]])
    assert "entry 521 is not its leaf" in refused(world, tiles)


def test_two_records_in_each_others_places(world, tiles):
    rewrite(tiles, 2, lambda e: [*e[:9], e[10], e[9], *e[11:]])
    assert "entry 521 is not its leaf" in refused(world, tiles)


def test_a_record_with_its_leaf(world, tiles):
    path = tiles / "tile/0/002"
    path.write_bytes(path.read_bytes()[:32] + bytes(32) + path.read_bytes()[64:])
    assert "refused" in refused(world, tiles)


def test_an_edited_checkpoint(world, tiles):
    path = tiles / "checkpoint"
    path.write_text(path.read_text().replace("\n1501\n", "\n1500\n"))
    assert "refused" in refused(world, tiles)


def test_a_cut_end_and_a_checkpoint_that_was_kept(world, tiles, tmp_path):
    kept = tmp_path / "kept"
    shutil.copy(tiles / "checkpoint", kept)
    shutil.copy(world[3], tiles / "checkpoint")
    for tile in (Tile(0, 2, 188), Tile(None, 2, 188), Tile(1, 0, 2)):
        full = (tiles / Tile(tile.level, tile.index).path) if tile.level != 1 else tiles / "tile/1/000.p/5"
        part = tiles / tile.path
        part.parent.mkdir(exist_ok=True)
        data = full.read_bytes()
        if tile.level is None:
            data = encode_bundle(read_bundle(Tile(None, 2), data)[:188])
        part.write_bytes(data if tile.level is None else data[: tile.width * 32])
    code, said = log_verifier.run(world[0], tiles, str(world[1].signer.verifiers[1]))
    assert (code, said) == (0, "intact: 700\n")
    assert "1501 records were signed for, and 700 are there" in refused(world, tiles, kept)


def test_a_log_that_was_recomputed_as_a_whole(world, tmp_path):
    root = tmp_path / "other"
    root.mkdir(mode=0o700)
    other = SealedLog(root)
    other.append(1501, producer="other")
    origin = world[1].signer.origin
    size, frontier = other.storage.log_tree.head()
    # Whoever stole the database and one key recomputes everything, and signs it: only an older checkpoint tells.
    forged = sign_note(Checkpoint(origin=origin, size=size, root=frontier.root()).text, world[1].signer._keys)
    other.sign()
    export_tiles(other.storage.log_tree, root / "tiles", other.signer.verifiers)
    (root / "tiles" / "checkpoint").write_text(forged.encode())
    other.close()
    assert log_verifier.run(world[0], root / "tiles", str(world[1].signer.verifiers[1]))[0] == 0
    assert "refused" in refused(world, root / "tiles", world[3])


def test_our_tiles_are_accepted_with_both_keys_and_a_cosignature(world, tiles):
    for key in world[1].signer.verifiers:
        code, said = log_verifier.run(world[0], tiles, str(key))
        assert (code, said) == (0, "intact: 1501\n")
    # The kept checkpoint is signed by the old key alone.
    assert log_verifier.run(world[0], tiles, str(world[1].signer.verifiers[1]), world[3]) == (
        0,
        "intact: 1501\n",
    )
