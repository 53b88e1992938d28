# SPDX-License-Identifier: Apache-2.0
"""Trees: the roots of RFC 6962's reference data, and proofs against the definitions, written down a second time."""

from hashlib import sha256

import pytest

from everyhop.core.errors import InputError, ProofError
from everyhop.tlog.merkle import (
    EMPTY_ROOT,
    MAX_SIZE,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    split_hashes,
    tree_root,
    verify_consistency,
    verify_inclusion,
)

# The leaves and roots that the implementations of Certificate Transparency test themselves with.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        *("", "00", "10", "2021", "3031", "40414243"),
        *("5051525354555657", "606162636465666768696a6b6c6d6e6f"),
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
SIZES = range(1, 34)
OTHER = sha256(b"other").digest()


def hashes_of(count):
    return [leaf_hash(f"leaf {i}".encode()) for i in range(count)]


def mth(hashes):
    """RFC 6962 section 2.1, as it is written there."""
    if not hashes:
        return sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return sha256(b"\x01" + mth(hashes[:k]) + mth(hashes[k:])).digest()


def path(m, hashes):
    """RFC 6962 section 2.1.1."""
    if len(hashes) == 1:
        return []
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    if m < k:
        return [*path(m, hashes[:k]), mth(hashes[k:])]
    return [*path(m - k, hashes[k:]), mth(hashes[:k])]


def subproof(m, hashes, whole):
    """RFC 6962 section 2.1.2."""
    if m == len(hashes):
        return [] if whole else [mth(hashes)]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    if m <= k:
        return [*subproof(m, hashes[:k], whole), mth(hashes[k:])]
    return [*subproof(m - k, hashes[k:], False), mth(hashes[:k])]


def reader(hashes):
    """Nodes of these leaves; asking for one that does not exist is a mistake of the prover."""

    def read(level, n):
        covered = hashes[n << level : (n + 1) << level]
        assert len(covered) == 1 << level
        return mth(covered)

    return read


def frontier_of(hashes):
    frontier = Frontier()
    frontier.extend(hashes)
    return frontier


@pytest.mark.parametrize("size", SIZES)
def test_no_changed_inclusion_proof_is_believed(size):
    hashes = hashes_of(size)
    root = mth(hashes)
    for index in range(size):
        proof = inclusion_proof(index, size, reader(hashes))
        bad = [
            (OTHER, index, size, root, proof),
            (hashes[index], index, size, OTHER, proof),
            (hashes[index], size, size, root, proof),
            (hashes[index], -1, size, root, proof),
            (hashes[index], index, MAX_SIZE + 1, root, proof),
            (hashes[index], index, 0, root, proof),
            (hashes[index][:-1], index, size, root, proof),
            (hashes[index], index, size, root + b"\0", proof),
            (hashes[index], index, size, root, [*proof, OTHER]),
            (hashes[index], index, size, root, [OTHER, *proof]),
            (hashes[index], index, size, root, [OTHER] * 64),
            *[(hashes[index], other, size, root, proof) for other in range(size) if other != index],
            *[(hashes[index], index, size, root, proof[:i] + proof[i + 1 :]) for i in range(len(proof))],
            *[
                (hashes[index], index, size, root, [*proof[:i], OTHER, *proof[i + 1 :]])
                for i in range(len(proof))
            ],
            *[
                (hashes[index], index, size, root, [*proof[:i], b"", *proof[i + 1 :]])
                for i in range(len(proof))
            ],
        ]
        for case in bad:
            with pytest.raises(ProofError):
                verify_inclusion(*case)


@pytest.mark.parametrize("new", SIZES)
def test_no_changed_consistency_proof_is_believed(new):
    hashes = hashes_of(new)
    root = mth(hashes)
    for old in range(1, new):
        proof = consistency_proof(old, new, reader(hashes))
        before = mth(hashes[:old])
        bad = [
            (old, OTHER, new, root, proof),
            (old, before, new, OTHER, proof),
            (old, before, new, before, proof),
            (old, before[1:], new, root, proof),
            (new, before, old, root, proof),
            (-1, before, new, root, proof),
            (old, before, MAX_SIZE + 1, root, proof),
            (old, before, new, root, []),
            (old, before, new, root, [*proof, OTHER]),
            (old, before, new, root, [OTHER, *proof]),
            (old, before, new, root, [OTHER] * 64),
            *[(old, before, new, root, proof[:i] + proof[i + 1 :]) for i in range(len(proof))],
            *[(old, before, new, root, [*proof[:i], OTHER, *proof[i + 1 :]]) for i in range(len(proof))],
        ]
        for case in bad:
            with pytest.raises(ProofError):
                verify_consistency(*case)
        for other in range(1, new):
            if other != old:
                with pytest.raises(ProofError):
                    verify_consistency(other, before, new, root, proof)


def test_nothing_is_proven_of_equal_sizes_and_of_the_empty_tree_but_their_roots():
    root = mth(hashes_of(3))
    for case in [
        (3, root, 3, OTHER, []),
        (3, root, 3, root, [OTHER]),
        (0, OTHER, 3, root, []),
        (0, EMPTY_ROOT, 3, root, [OTHER]),
        (0, EMPTY_ROOT, 0, EMPTY_ROOT, [OTHER]),
        (0, root, 0, root, []),
        (0, EMPTY_ROOT, 0, root, []),
        (0, root, 0, EMPTY_ROOT, []),
    ]:
        with pytest.raises(ProofError):
            verify_consistency(*case)
    verify_consistency(3, root, 3, root, [])
    verify_consistency(0, EMPTY_ROOT, 3, root, [])
    verify_consistency(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])


@pytest.mark.parametrize(("index", "size"), [(-1, 1), (0, 0), (1, 1), (5, 3), (0, MAX_SIZE + 1)])
def test_no_proof_is_made_of_a_leaf_that_is_not_there(index, size):
    with pytest.raises(InputError):
        inclusion_proof(index, size, reader([]))


@pytest.mark.parametrize(("old", "new"), [(2, 1), (-1, 1), (0, MAX_SIZE + 1)])
def test_no_proof_is_made_of_a_beginning_that_is_none(old, new):
    with pytest.raises(InputError):
        consistency_proof(old, new, reader(hashes_of(1)))


@pytest.mark.parametrize("size", [-1, MAX_SIZE + 1])
def test_no_tree_has_such_a_size(size):
    with pytest.raises(InputError):
        tree_root(size, reader([]))
    with pytest.raises(InputError):
        Frontier.of(size, reader([]))


def _with_size(size, count):
    return size.to_bytes(8, "big") + OTHER * count


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(7),
        bytes(9),
        _with_size(0, 1),
        _with_size(1, 0),
        _with_size(1, 2),
        _with_size(3, 1),
        _with_size(3, 2) + b"\0",
        _with_size(3, 2)[:-1],
        _with_size(MAX_SIZE + 1, 1),
        _with_size(2**64 - 1, 64),
    ],
)
def test_bytes_that_are_no_frontier(data):
    with pytest.raises(InputError):
        Frontier.from_bytes(data)


def test_what_is_no_leaf_hash_is_not_added_and_what_came_before_it_is():
    frontier = Frontier()
    with pytest.raises(InputError):
        frontier.extend([OTHER, OTHER, b"short"])
    assert frontier.to_bytes() == frontier_of([OTHER, OTHER]).to_bytes()
    full = Frontier.from_bytes(_with_size(MAX_SIZE, 63))
    with pytest.raises(InputError):
        full.append(OTHER)
    assert full.to_bytes() == _with_size(MAX_SIZE, 63)
    with pytest.raises(InputError):
        split_hashes(OTHER + b"\0")


@pytest.mark.parametrize("size", range(9))
def test_the_roots_of_the_reference(size):
    hashes = [leaf_hash(leaf) for leaf in LEAVES[:size]]
    assert frontier_of(hashes).root().hex() == ROOTS[size]
    assert tree_root(size, reader(hashes)).hex() == ROOTS[size]
    assert mth(hashes).hex() == ROOTS[size]
    assert EMPTY_ROOT.hex() == ROOTS[0]


@pytest.mark.parametrize("size", SIZES)
def test_proofs_are_those_of_the_definition_and_are_believed(size):
    hashes = hashes_of(size)
    read, root = reader(hashes), mth(hashes)
    for index in range(size):
        proof = inclusion_proof(index, size, read)
        assert proof == path(index, hashes)
        verify_inclusion(hashes[index], index, size, root, proof)
    for old in range(1, size + 1):
        proof = consistency_proof(old, size, read)
        assert proof == subproof(old, hashes, True)
        verify_consistency(old, mth(hashes[:old]), size, root, proof)
    assert consistency_proof(0, size, read) == []


@pytest.mark.parametrize("size", [0, 1, 2, 3, 255, 256, 257, 1000])
def test_a_frontier_goes_on_where_it_was_stored(size):
    hashes = hashes_of(size + 5)
    stored = frontier_of(hashes[:size]).to_bytes()
    gone_on = Frontier.from_bytes(stored)
    assert (gone_on.size, gone_on.to_bytes(), gone_on.root()) == (size, stored, mth(hashes[:size]))
    assert Frontier.of(size, reader(hashes)).to_bytes() == stored
    for leaf in hashes[size:]:
        gone_on.append(leaf)
    assert gone_on.root() == mth(hashes)
    assert len(gone_on.nodes) == gone_on.size.bit_count()


def test_a_leaf_is_no_node():
    left, right = hashes_of(2)
    assert leaf_hash(left + right) != node_hash(left, right)
    assert leaf_hash(b"\x01" + left + right) != node_hash(left, right)
