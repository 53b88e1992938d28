# SPDX-License-Identifier: Apache-2.0
"""Records for tests of the log, and its tree computed the naive way."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Any

from tests.support.identity import NOW

from everyhop.auditlog import Kind, Point, Record


def record(seq: int, *, producer: str = "agent", **fields: Any) -> Record:
    """Make a decision record; ``fields`` override."""
    base: dict[str, Any] = {
        "id": f"{producer}-{seq}",
        "seq": seq,
        "producer": producer,
        "time": NOW + timedelta(seconds=seq),
        "kind": Kind.DECISION,
        "point": Point.INGRESS,
        "target": "payments" if seq % 2 else "orders",
        "caller": f"spiffe://a/{seq % 3}",
        "decision": "deny" if seq % 5 == 0 else "allow",
        "rule": f"allow[{seq % 2}]",
    }
    return Record(**{**base, **fields})


def naive_root(lines: Sequence[bytes]) -> bytes:
    """Compute RFC 6962's MTH as section 2.1 writes it down, sharing no line with the room tlog."""
    if not lines:
        return sha256(b"").digest()
    return _mth([sha256(b"\x00" + line).digest() for line in lines])


def naive_node(leaves: Sequence[bytes]) -> bytes:
    """Compute the hash above leaf hashes."""
    return _mth(leaves)


def _mth(leaves: Sequence[bytes]) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + _mth(leaves[:k]) + _mth(leaves[k:])).digest()
