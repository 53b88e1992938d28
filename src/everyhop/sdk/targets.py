# SPDX-License-Identifier: Apache-2.0
"""Which operation of another service a call is, found as that service will find it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from everyhop.authz.paths import AmbiguousPath, classify_path
from everyhop.authz.routing import RouteTrie
from everyhop.policy.routes import guarded_characters

if TYPE_CHECKING:
    from everyhop.sdk.context import Target, TargetOperation


def find_operation(target: Target, method: str, path: bytes | str) -> TargetOperation | None:
    """Return the operation of ``METHOD path`` (a query is not looked at), or None when it is no declared one."""
    guarded, trie = _routes(target.operations)
    clean = classify_path(path, guarded)
    return None if isinstance(clean, AmbiguousPath) else trie.find(method, clean.segments)


@lru_cache(maxsize=256)
def _routes(operations: tuple[TargetOperation, ...]) -> tuple[frozenset[str], RouteTrie[TargetOperation]]:
    trie: RouteTrie[TargetOperation] = RouteTrie()
    for operation in operations:
        trie.add(operation.route, operation)
    return guarded_characters(tuple(one.route for one in operations)), trie
