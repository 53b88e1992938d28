# SPDX-License-Identifier: Apache-2.0
"""``everyhop.workload.v1.Decisions`` on ``workload.sock``: translation only.

Who reports is attested by the kernel; what becomes of it is decided by
:class:`everyhop.control.app_decisions.ApplicationDecisions`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.control.app_decisions import Claim
from everyhop.wire.decisions import REPORT, Decision, ReportRequest, ReportResponse
from everyhop.wire.rpc import Call, Cardinality, Method

if TYPE_CHECKING:
    from everyhop.control.app_decisions import ApplicationDecisions


class DecisionsApi:
    """The method of the service."""

    def __init__(self, decisions: ApplicationDecisions) -> None:
        self._decisions = decisions

    def methods(self) -> list[Method]:
        """Return the method under its path."""
        return [
            Method(
                path=REPORT,
                cardinality=Cardinality.UNARY_UNARY,
                request=ReportRequest,
                reply=ReportResponse,
                handler=self.report,
            )
        ]

    async def report(self, call: Call[ReportRequest, ReportResponse]) -> None:
        """Take one batch."""
        request = await call.receive_only()
        taken, refused = await self._decisions.take(
            call.peer,
            [_claim(one) for one in request.decisions],
            dropped=request.dropped,
            spiffe_id=request.spiffe_id,
        )
        await call.send(ReportResponse(taken=taken, refused=refused))


def _claim(one: Decision) -> Claim:
    return Claim(
        id=one.id,
        time=one.time,
        allowed=one.allowed,
        caller=one.caller,
        operation=one.operation,
        method=one.method,
        path=one.path,
        rule=one.rule,
        reason=one.reason,
        code=one.code,
        status=one.status,
        user=one.user,
        snapshot=one.snapshot,
        detail=one.detail,
        trace=one.trace,
    )
