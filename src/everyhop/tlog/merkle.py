# SPDX-License-Identifier: Apache-2.0
"""Merkle trees of RFC 6962 section 2.1 (RFC 9162 sections 2.1.1 to 2.1.5) with SHA-256: roots, proofs, their verification.

A *node* is the hash of a perfect subtree: ``(level, n)`` covers the leaves ``n << level`` to ``(n + 1) << level``, so
``(0, n)`` is the hash of leaf ``n``.  Every root and every proof of every size is made of such nodes, and those never
change once their leaves are there.  Proofs are made over a reader of nodes, wherever they are kept.

Whoever verifies raises or returns None; nothing here returns a truth that could be overlooked.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Final, Self

from everyhop.core.errors import InputError, ProofError

HASH_BYTES: Final = 32
MAX_SIZE: Final = 2**63 - 1
MAX_PROOF: Final = 63
"""Hashes in the longest proof of a tree of at most ``MAX_SIZE`` leaves that is taken (c2sp.org/tlog-witness)."""
EMPTY_ROOT: Final = sha256(b"").digest()
"""The root of the tree without leaves (RFC 6962 section 2.1)."""

_SIZE_BYTES: Final = 8

NodeReader = Callable[[int, int], bytes]
"""Gives the node ``(level, n)``; raises what it has to when the node is not at hand."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf: SHA-256 over a zero byte and ``data``."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash above two nodes: SHA-256 over a one byte and both."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: all that is needed to go on, at most 63 hashes.

    ``size`` is the number of leaves.  The nodes are those of the perfect subtrees that the size is made of, the
    largest (leftmost) first: one for each bit that is set.
    """

    __slots__ = ("_nodes", "_size")

    def __init__(self) -> None:
        """Make the frontier of the empty tree."""
        self._size = 0
        self._nodes: list[bytes] = []

    @property
    def size(self) -> int:
        """Return the number of leaves."""
        return self._size

    @property
    def nodes(self) -> tuple[bytes, ...]:
        """Return the roots of the perfect subtrees, leftmost first."""
        return tuple(self._nodes)

    @classmethod
    def of(cls, size: int, read: NodeReader) -> Self:
        """Return the frontier of the first ``size`` leaves of a tree.  Raises InputError for a size out of range."""
        _check_size(size)
        made = cls()
        made._size = size
        made._nodes = [read(level, n) for level, n in _perfect(0, size)]
        return made

    def append(self, leaf: bytes) -> None:
        """Add one leaf by its hash (32 bytes)."""
        self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add leaves by their hashes, in their order.  Raises InputError for what is no hash, or too many."""
        nodes, size = self._nodes, self._size
        for leaf in leaves:
            if len(leaf) != HASH_BYTES or size == MAX_SIZE:
                self._size = size
                raise InputError(f"a leaf hash has {HASH_BYTES} bytes and a tree at most {MAX_SIZE} leaves")
            node, rest = leaf, size
            # A set bit at the bottom is a subtree as large as the new one: both become one (RFC 9162 section 2.1.2).
            while rest & 1:
                node = sha256(b"\x01" + nodes.pop() + node).digest()
                rest >>= 1
            nodes.append(node)
            size += 1
        self._size = size

    def root(self) -> bytes:
        """Return the hash of the whole tree."""
        return _fold(self._nodes)

    def to_bytes(self) -> bytes:
        """Return the size (8 bytes, big-endian) and the nodes, leftmost first."""
        return self._size.to_bytes(_SIZE_BYTES, "big") + b"".join(self._nodes)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what :meth:`to_bytes` wrote.  Raises InputError for any other bytes: there is one form per tree."""
        size = int.from_bytes(data[:_SIZE_BYTES], "big")
        if size > MAX_SIZE or len(data) != _SIZE_BYTES + size.bit_count() * HASH_BYTES:
            raise InputError("not the frontier of a tree")
        made = cls()
        made._size = size
        made._nodes = split_hashes(data[_SIZE_BYTES:])
        return made


def split_hashes(data: bytes) -> list[bytes]:
    """Cut concatenated hashes.  Raises InputError when the length is no multiple of 32."""
    if len(data) % HASH_BYTES:
        raise InputError(f"hashes have {HASH_BYTES} bytes each")
    return [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]


def tree_root(size: int, read: NodeReader) -> bytes:
    """Return the hash of the tree of the first ``size`` leaves.  Raises InputError for a size out of range."""
    _check_size(size)
    return _subtree(0, size, read)


def inclusion_proof(index: int, size: int, read: NodeReader) -> list[bytes]:
    """Prove that leaf ``index`` is in the tree of ``size`` leaves (RFC 6962 section 2.1.1), the leaf's sibling first.

    Raises InputError unless ``0 <= index < size``.
    """
    _check_index(index, size)
    start, end, proof = 0, size, list[bytes]()
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(_subtree(middle, end, read))
            end = middle
        else:
            proof.append(_subtree(start, middle, read))
            start = middle
    return proof[::-1]


def consistency_proof(old: int, new: int, read: NodeReader) -> list[bytes]:
    """Prove that the tree of ``old`` leaves is the beginning of the one of ``new`` (RFC 6962 section 2.1.2).

    Empty for ``old`` zero or equal to ``new``.  Raises InputError unless ``0 <= old <= new``.
    """
    _check_size(new)
    if not 0 <= old <= new:
        raise InputError(f"a tree of {new} leaves has no beginning of {old}")
    if old in {0, new}:
        return []
    start, end, proof = 0, new, list[bytes]()
    while end != old:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(_subtree(middle, end, read))
            end = middle
        else:
            proof.append(_subtree(start, middle, read))
            start = middle
    # The verifier knows the old root already when nothing stands left of the subtree that is cut.
    if start:
        proof.append(_subtree(start, end, read))
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the leaf with this hash stands at ``index`` (RFC 9162 section 2.1.3.2).

    Raises ProofError when it does not follow, also for numbers and hashes out of range: all of them come from
    whoever shows the proof.
    """
    if not 0 <= index < size <= MAX_SIZE:
        raise ProofError(f"no leaf {index} in a tree of {size}")
    _check_hashes((leaf, root, *proof), len(proof))
    node, last, result = index, size - 1, leaf
    for sibling in proof:
        if not last:
            raise ProofError("the inclusion proof is too long")
        if node & 1 or node == last:
            result = node_hash(sibling, result)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError("the inclusion proof is too short")
    _check_root(result, root, f"leaf {index} is not in the tree of {size} leaves with this root")


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree of ``old`` leaves is the beginning of the one of ``new`` (RFC 9162 section 2.1.4.2).

    Raises ProofError when it does not follow, also for numbers and hashes out of range.
    """
    if not 0 <= old <= new <= MAX_SIZE:
        raise ProofError(f"a tree of {new} leaves has no beginning of {old}")
    _check_hashes((old_root, new_root, *proof), len(proof))
    if old in {0, new}:
        if proof:
            raise ProofError("there is nothing to prove, and yet a proof")
        if not old:
            _check_root(old_root, EMPTY_ROOT, "the tree without leaves has another root")
        if old == new:
            _check_root(old_root, new_root, "two roots for one size")
        return
    path = list(proof)
    if not old & (old - 1):  # a perfect tree is its own first node
        path.insert(0, old_root)
    if not path:
        raise ProofError("the consistency proof is too short")
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    before = after = path[0]
    for sibling in path[1:]:
        if not last:
            raise ProofError("the consistency proof is too long")
        if node & 1 or node == last:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            after = node_hash(after, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError("the consistency proof is too short")
    wrong = f"the tree of {old} leaves is not the beginning of the one of {new}"
    _check_root(before, old_root, wrong)
    _check_root(after, new_root, wrong)


def _check_size(size: int) -> None:
    if not 0 <= size <= MAX_SIZE:
        raise InputError(f"a tree has 0 to {MAX_SIZE} leaves")


def _check_index(index: int, size: int) -> None:
    _check_size(size)
    if not 0 <= index < size:
        raise InputError(f"no leaf {index} in a tree of {size}")


def _check_hashes(hashes: Sequence[bytes], length: int) -> None:
    if length > MAX_PROOF or any(len(value) != HASH_BYTES for value in hashes):
        raise ProofError(f"a proof is made of at most {MAX_PROOF} hashes of {HASH_BYTES} bytes")


def _check_root(computed: bytes, root: bytes, message: str) -> None:
    if not hmac.compare_digest(computed, root):
        raise ProofError(message)


def _split(width: int) -> int:
    """Return the largest power of two smaller than ``width`` (at least 2)."""
    return int(1 << ((width - 1).bit_length() - 1))


def _perfect(start: int, end: int) -> list[tuple[int, int]]:
    """Return the nodes that the subtree of these leaves is made of, leftmost (largest) first."""
    nodes = []
    while start < end:
        level = (end - start).bit_length() - 1
        nodes.append((level, start >> level))
        start += 1 << level
    return nodes


def _subtree(start: int, end: int, read: NodeReader) -> bytes:
    return _fold([read(level, n) for level, n in _perfect(start, end)])


def _fold(nodes: Sequence[bytes]) -> bytes:
    if not nodes:
        return EMPTY_ROOT
    root = nodes[-1]
    for node in reversed(nodes[:-1]):
        root = node_hash(node, root)
    return root
