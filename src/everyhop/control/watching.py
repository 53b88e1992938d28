# SPDX-License-Identifier: Apache-2.0
"""What the policy in shadow would have decided, for calls that a sidecar decided alone.

Where facts of a call count, the agent decided it and the record says ``would`` already.  All other decisions hold
whatever the facts are, so they can be made again afterwards, from the record alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from everyhop.auditlog import Kind, Point, Record
from everyhop.policy.access import TCP
from everyhop.policy.model import OUTSIDE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from everyhop.auditlog.model import Scalar
    from everyhop.control.policy_view import PolicyView
    from everyhop.core.decision import Decision

KEPT_VIEWS: Final = 4
"""Views whose records may still be on their way: a change of policy does not lose what was seen just before."""

_SHORT: Final = 16  # digits of a snapshot that a verdict names where no route was found
_INGRESS: Final = frozenset({Point.INGRESS, Point.EDGE})


class ShadowWatch:
    """Remembers the last policies in which something is only watched, and annotates records with their answer."""

    def __init__(self) -> None:
        self._views: list[PolicyView] = []

    def take(self, view: PolicyView) -> None:
        """Take a policy that comes into force."""
        if view.snapshot.has_shadow:
            kept = [known for known in self._views if known.snapshot.hash != view.snapshot.hash]
            self._views = [view, *kept][:KEPT_VIEWS]

    def annotate(self, records: Sequence[Record]) -> list[Record]:
        """Return the records, with ``would`` in those that the policy in shadow would decide with another effect."""
        if not self._views:
            return list(records)
        return [self._annotated(record) for record in records]

    def _annotated(self, record: Record) -> Record:
        if record.kind is not Kind.DECISION or record.point not in _INGRESS or "would" in record.detail:
            return record
        view = self._view(record.snapshot)
        if view is None:
            return record
        decision = _decided(view, record)
        if decision is None or decision.would is None or not _is_same(decision, record):
            return record
        other = decision.would
        said: dict[str, Scalar] = {"would": other.effect.value, "would_reason": other.reason.value}
        if other.rule is not None:
            said["would_rule"] = other.rule
        return msgspec.structs.replace(record, detail={**record.detail, **said})

    def _view(self, snapshot: str | None) -> PolicyView | None:
        if snapshot is None or len(snapshot) < _SHORT:
            return None
        return next((view for view in self._views if view.snapshot.hash.startswith(snapshot)), None)


def _decided(view: PolicyView, record: Record) -> Decision | None:
    """Return the decision of a recorded call, or None where facts that the record does not hold count."""
    caller = OUTSIDE if record.point is Point.EDGE else record.caller
    if caller is None or record.target is None:
        return None
    door = record.operation
    if door is not None and view.engine.door(record.target, door) is not None:
        if view.asks(caller, record.target, door):
            return None
        return view.engine.decide_door(caller=caller, target=record.target, door=door)
    if door == TCP or record.method is None or record.path is None:
        return None
    return view.engine.decide(caller=caller, target=record.target, method=record.method, path=record.path)


def _is_same(decision: Decision, record: Record) -> bool:
    """Tell whether the record is of that decision: not of a token that was refused, or a host that was ambiguous."""
    return (
        record.decision == decision.effect.value
        and record.reason == decision.reason.value
        and record.rule == decision.rule
    )
