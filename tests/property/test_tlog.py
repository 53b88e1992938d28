# SPDX-License-Identifier: Apache-2.0
"""Transparency logs over any bytes and any sizes: what is read comes back, and nothing else is believed."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, strategies as st

from everyhop.core.errors import InputError, ProofError
from everyhop.core.secret import Secret
from everyhop.tlog import (
    AddCheckpoint,
    Checkpoint,
    Cosigner,
    CosignerKey,
    Frontier,
    LeafProof,
    SignerKey,
    Tile,
    VerifierKey,
    consistency_proof,
    encode_bundle,
    inclusion_proof,
    leaf_hash,
    parse_note,
    parse_size,
    read_bundle,
    root_of,
    sign_note,
    tree_root,
    verify_consistency,
    verify_inclusion,
)

KEY = SignerKey("example.com/log", Secret(b"k" * 32))
WITNESS = Cosigner(SignerKey("witness.example/w1", Secret(b"w" * 32)))
LEAVES = [leaf_hash(str(i).encode()) for i in range(300)]
READERS = [
    parse_note,
    AddCheckpoint.parse,
    LeafProof.parse,
    parse_size,
    Frontier.from_bytes,
    lambda data: Checkpoint.parse(data.decode("latin-1")),
    lambda data: VerifierKey.parse(data.decode("latin-1")),
    lambda data: CosignerKey.parse(data.decode("latin-1")),
    lambda data: Tile.parse(data.decode("latin-1")),
    lambda data: SignerKey.parse(Secret(data)),
    lambda data: read_bundle(Tile(None, 0, 3), data),
]
NOTE = sign_note(Checkpoint(origin=KEY.name, size=7, root=LEAVES[0]).text, [KEY]).encode().encode()
GOOD = [
    NOTE,
    LeafProof(index=3, hashes=tuple(LEAVES[:3]), note=NOTE, extra=b"x").encode(),
    b"old 3\n\n" + NOTE,
    str(KEY.verifier).encode(),
    str(WITNESS.verifier).encode(),
    KEY.encode().reveal(),
    encode_bundle([b"a", b"", b"ccc"]),
    b"tile/0/x001/234.p/5",
]

lines = st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs"]), min_size=1, max_size=40)
roots = st.binary(min_size=32, max_size=32)


def nodes(level: int, n: int) -> bytes:
    return root_of(LEAVES[n << level : (n + 1) << level])


@pytest.mark.parametrize("read", READERS)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(read, data):
    with contextlib.suppress(InputError):
        read(data)


@pytest.mark.parametrize("read", READERS)
@given(
    data=st.sampled_from(GOOD),
    at=st.integers(0, 400),
    cut=st.integers(0, 3),
    put=st.sampled_from([b"", b"\n", b" ", b"+", b"=", b"0", b"\xe2\x80\x94 ", b"\xff", b"\0"]),
)
def test_what_is_almost_good_is_read_or_refused(read, data, at, cut, put):
    with contextlib.suppress(InputError):
        read(data[:at] + put + data[at + cut :])


@given(at=st.integers(0, len(NOTE) - 1), bit=st.integers(0, 7))
def test_no_bit_of_a_signed_checkpoint_can_be_changed(at, bit):
    changed = bytearray(NOTE)
    changed[at] ^= 1 << bit
    with pytest.raises((InputError, ProofError)):
        parse_note(bytes(changed)).signed_by([KEY.verifier])


@given(origin=lines, size=st.integers(0, 2**63 - 1), root=roots, more=st.lists(lines, max_size=3))
def test_checkpoints_come_back(origin, size, root, more):
    try:
        made = Checkpoint(origin=origin, size=size, root=root, extensions=tuple(more))
    except InputError:
        assert len(origin.encode()) > 255 or not all(c >= " " for c in origin)
        return
    assert Checkpoint.parse(made.text) == made
    note = sign_note(made.text, [KEY]).with_signatures([WITNESS.cosign(made.text, time=5)])
    read = parse_note(note.encode().encode())
    assert read == note
    assert len(read.signed_by([KEY.verifier, WITNESS.verifier])) == 2


@given(st.data())
def test_every_proof_holds_for_what_it_proves_and_nothing_near_it(data):
    size = data.draw(st.integers(1, len(LEAVES)))
    index = data.draw(st.integers(0, size - 1))
    other = data.draw(st.integers(0, size - 1))
    root = tree_root(size, nodes)
    proof = inclusion_proof(index, size, nodes)
    verify_inclusion(LEAVES[index], index, size, root, proof)
    if other != index:
        with pytest.raises(ProofError):
            verify_inclusion(LEAVES[other], index, size, root, proof)
        with pytest.raises(ProofError):
            verify_inclusion(LEAVES[index], other, size, root, proof)
    old = data.draw(st.integers(1, size))
    proof = consistency_proof(old, size, nodes)
    verify_consistency(old, tree_root(old, nodes), size, root, proof)
    if old != size:
        with pytest.raises(ProofError):
            verify_consistency(old, tree_root(size, nodes), size, root, proof)


@given(sizes=st.lists(st.integers(0, 40), max_size=8))
def test_a_frontier_grows_alike_in_any_pieces(sizes):
    frontier, total = Frontier(), 0
    for count in sizes:
        frontier = Frontier.from_bytes(frontier.to_bytes())
        frontier.extend(LEAVES[(total + i) % 300] for i in range(count))
        total += count
    whole = Frontier()
    whole.extend(LEAVES[i % 300] for i in range(total))
    assert (frontier.size, frontier.root(), frontier.to_bytes()) == (total, whole.root(), whole.to_bytes())


@given(
    level=st.one_of(st.none(), st.integers(0, 63)), index=st.integers(0, 2**63 - 1), width=st.integers(1, 256)
)
def test_paths_come_back(level, index, width):
    tile = Tile(level, index, width)
    assert Tile.parse(tile.path) == tile


@given(entries=st.lists(st.binary(max_size=20), min_size=1, max_size=256))
def test_bundles_come_back(entries):
    assert read_bundle(Tile(None, 0, len(entries)), encode_bundle(entries)) == entries
