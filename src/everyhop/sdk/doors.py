# SPDX-License-Identifier: Apache-2.0
"""From method and raw path to one operation of a service context, exactly as the decision point finds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.authz.paths import AmbiguousPath, classify_path
from everyhop.authz.routing import RouteTrie
from everyhop.policy.routes import guarded_characters

if TYPE_CHECKING:
    from everyhop.sdk.context import OperationContext, ServiceContext

Ambiguous = AmbiguousPath


class Doors:
    """The operations of one context by route."""

    __slots__ = ("_guarded", "_trie")

    def __init__(self, context: ServiceContext) -> None:
        self._guarded: Final = guarded_characters(tuple(one.route for one in context.operations))
        self._trie: Final = RouteTrie["OperationContext"]()
        for operation in context.operations:
            self._trie.add(operation.route, operation)

    def find(self, method: str, raw_path: bytes) -> OperationContext | AmbiguousPath | None:
        """Return the operation, why the path is ambiguous, or None when nothing declared matches."""
        path = classify_path(raw_path, self._guarded)
        if isinstance(path, AmbiguousPath):
            return path
        return self._trie.find(method, path.segments)
