# SPDX-License-Identifier: Apache-2.0
"""An engine that makes a service ready to be asked when it is asked: a comparison asks few of many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.authz.engine import Engine, _Target as Target
from everyhop.authz.facts import FactSheet
from everyhop.authz.permissions import Permissions
from everyhop.policy.access import AccessIndex

if TYPE_CHECKING:
    from everyhop.policy.model import Snapshot


class LazyEngine(Engine):
    """Decides as :class:`Engine` does; not for the path of a request, where the first call would wait."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot  # type: ignore[misc]  # set once, here in place of the base
        self.facts = FactSheet(snapshot)  # type: ignore[misc]
        self.permissions = Permissions(snapshot)  # type: ignore[misc]
        self.index = AccessIndex(snapshot)  # type: ignore[misc]
        self._targets = _Targets(snapshot, self.index)
        self._rules = {rule.id: rule for rule in snapshot.rules}


class _Targets(dict[str, Target]):
    def __init__(self, snapshot: Snapshot, index: AccessIndex) -> None:
        super().__init__()
        self._snapshot = snapshot
        self._index = index

    def __contains__(self, name: object) -> bool:
        return name in self._snapshot.services

    def get(self, name: str, default: object = None) -> Target | None:  # type: ignore[override]  # a default is never given
        del default
        found = super().get(name)
        if found is None and name in self._snapshot.services:
            found = self[name] = Target(self._snapshot.services[name], self._index)
        return found
