# SPDX-License-Identifier: Apache-2.0
"""When the policy opened what it opened lately: an edge that somebody has just allowed is no surprise.

Asked only when a detector sees an edge for the first time, which is rare; so the snapshots are read then, and the answers
about each pair of neighbours are kept.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

from everyhop.authz import Grants
from everyhop.core.errors import EveryhopError
from everyhop.policy import decode_snapshot
from everyhop.policy.access import TCP

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from everyhop.policy.model import Snapshot

MAX_CHANGES: Final = 32
_MAX_DECODED: Final = 8


class SnapshotHistory(Protocol):
    """Snapshots in the order in which they came into force."""

    def history(self, limit: int) -> Sequence[tuple[str, datetime]]:
        """Return the hashes of the newest ones and since when each is in force, the newest first."""

    def load(self, content_hash: str) -> bytes:
        """Return an encoded snapshot; raises NotFound."""


class PolicyHistory:
    """The ``OpenedEdges`` port of the detectors.  Blocking; used from one thread."""

    def __init__(self, snapshots: SnapshotHistory) -> None:
        self._snapshots = snapshots
        self._view = lru_cache(maxsize=_MAX_DECODED)(self._read)

    def opened(self, caller: str, target: str, operation: str) -> datetime | None:
        """Return when a change of policy first let ``caller`` do this; None when it has been so for longer than is known.

        Only the newest 32 snapshots are looked at.  What cannot be read explains nothing.
        """
        try:
            history = self._snapshots.history(MAX_CHANGES)
            since: datetime | None = None
            for content_hash, in_force_since in history:
                if not _allows(*self._view(content_hash), caller, target, operation):
                    return since
                since = in_force_since
        except EveryhopError:
            return None
        return None

    def _read(self, content_hash: str) -> tuple[Snapshot, Grants]:
        snapshot = decode_snapshot(self._snapshots.load(content_hash))
        return snapshot, Grants(snapshot)


def _allows(snapshot: Snapshot, grants: Grants, caller: str, target: str, operation: str) -> bool:
    """Tell whether a snapshot lets a caller do something, perhaps under conditions."""
    service = snapshot.services.get(target)
    owner = snapshot.service_of(caller)
    if service is None or owner is None:
        return False
    if service.tcp is not None:
        return operation in {"", TCP} and grants.connects(owner.name, target)
    return operation in (grants.operations(caller, target) or ())
