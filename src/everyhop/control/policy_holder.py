# SPDX-License-Identifier: Apache-2.0
"""The policy in force, for those who must be composed before there is one: token service, API keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.authz import Grants
from everyhop.core.errors import Unavailable
from everyhop.issuing import PolicyView

if TYPE_CHECKING:
    from everyhop.policy.model import Snapshot


class PolicyHolder:
    """One slot; what is put in is seen by every thread from the next question on."""

    def __init__(self) -> None:
        self._view: PolicyView | None = None

    def put(self, snapshot: Snapshot) -> None:
        """Let a snapshot be the one that is asked."""
        if self._view is None or self._view.snapshot is not snapshot:
            self._view = PolicyView(snapshot, Grants(snapshot))

    def __call__(self) -> PolicyView:
        """Return the policy in force; raises Unavailable before the first."""
        if self._view is None:
            raise Unavailable("no policy is in force yet")
        return self._view

    def edge_scopes(self) -> frozenset[str]:
        """Return what the policy in force opens to callers from outside, as ``service.operation``."""
        return self().edge_scopes()
