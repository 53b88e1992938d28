# SPDX-License-Identifier: Apache-2.0
"""``everyhop.workload.v1.Audit`` on ``workload.sock``: translation only.

Who reports is attested by the kernel; what becomes of it is decided by
:class:`everyhop.control.app_decisions.ApplicationDecisions`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.control.app_events import EventClaim
from everyhop.wire.audit import RECORD, Event, Metadatum, RecordRequest, RecordResponse
from everyhop.wire.rpc import Call, Cardinality, Method

if TYPE_CHECKING:
    from everyhop.auditlog.model import Scalar
    from everyhop.control.app_decisions import ApplicationDecisions


class EventsApi:
    """The method of the service."""

    def __init__(self, decisions: ApplicationDecisions) -> None:
        self._decisions = decisions

    def methods(self) -> list[Method]:
        """Return the method under its path."""
        return [
            Method(
                path=RECORD,
                cardinality=Cardinality.UNARY_UNARY,
                request=RecordRequest,
                reply=RecordResponse,
                handler=self.record,
            )
        ]

    async def record(self, call: Call[RecordRequest, RecordResponse]) -> None:
        """Take one batch."""
        request = await call.receive_only()
        taken, refused = await self._decisions.take_events(
            call.peer,
            [_claim(one) for one in request.events],
            dropped=request.dropped,
            spiffe_id=request.spiffe_id,
            durable=request.durable,
        )
        await call.send(RecordResponse(taken=taken, refused=refused))


def _claim(one: Event) -> EventClaim:
    return EventClaim(
        id=one.id,
        time=one.time,
        action=one.action,
        outcome=one.outcome,
        resource_type=one.resource_type,
        resource_id=one.resource_id,
        caller=one.caller,
        user=one.user,
        method=one.method,
        route=one.route,
        status=one.status,
        duration=one.duration,
        trace=one.trace,
        snapshot=one.snapshot,
        decision=one.decision,
        metadata={entry.name: _value(entry) for entry in one.metadata},
    )


def _value(entry: Metadatum) -> Scalar:
    kind = entry.WhichOneof("value")
    if kind is None:
        return None
    value: Scalar = getattr(entry, kind)
    return value
