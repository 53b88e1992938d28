# SPDX-License-Identifier: Apache-2.0
"""What somebody did in an application, as that application tells it: read, bounded, and made a record.

A workload is believed in one thing only: that it says so.  Which service it speaks for is attested, the record is
marked ``sdk``, and caller and user are its own word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from everyhop.auditlog import Kind, Point, Record
from everyhop.auditlog.application import OUTCOMES, bounded_metadata, plain
from everyhop.auditlog.preparing import prepared

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from everyhop.auditlog.model import Scalar

PREFIX: Final = "meta."
_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_HASH: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_METHOD: Final = re.compile(r"[A-Z]{1,32}", re.ASCII)
_LAST_STATUS: Final = 599
_LONGEST_MS: Final = 10.0**9


@dataclass(frozen=True, slots=True, kw_only=True)
class EventClaim:
    """One event as a workload tells it; nothing in it is checked yet.  ``time`` is in microseconds."""

    id: str
    time: int
    action: str
    outcome: str
    resource_type: str = ""
    resource_id: str = ""
    caller: str = ""
    user: str = ""
    method: str = ""
    route: str = ""
    status: int = 0
    duration: float = -1.0
    trace: str = ""
    snapshot: str = ""
    decision: str = ""
    metadata: Mapping[str, Scalar] = field(default_factory=dict)


def event_record_of(
    claim: EventClaim, service: str, pid: int, *, moment: datetime, trace: str | None
) -> Record:
    """Return the record of an event, still without its place in the spool, and without credentials.

    Texts are cut, and characters that are not printable are replaced; of the metadata the first 16 with proper
    names stay, and how many did not is told; what has not the form of an outcome is ``failure``.
    """
    metadata, left_out = bounded_metadata(claim.metadata)
    outcome = claim.outcome if claim.outcome in OUTCOMES else "failure"
    detail: dict[str, Scalar] = {
        "outcome": outcome,
        "resource_type": _plain(claim.resource_type, 128),
        "resource_id": _plain(claim.resource_id, 256),
        "user": _plain(claim.user, 256),
        "decision": claim.decision if _ID.fullmatch(claim.decision) else None,
        "pid": pid,
        "metadata_left_out": left_out or None,
        **{PREFIX + name: value for name, value in metadata.items()},
    }
    return prepared(
        Record(
            id=claim.id,
            seq=1,
            producer=service,
            time=moment,
            kind=Kind.APPLICATION,
            point=Point.SDK,
            caller=_plain(claim.caller, 2048),
            target=service,
            operation=_plain(claim.action, 256) or "unnamed",
            method=claim.method if _METHOD.fullmatch(claim.method) else None,
            path=_plain(claim.route, 1024),
            decision="deny" if outcome == "denied" else None,
            snapshot=claim.snapshot if _HASH.fullmatch(claim.snapshot) else None,
            status=claim.status if 0 < claim.status <= _LAST_STATUS else None,
            latency_ms=claim.duration if 0 <= claim.duration <= _LONGEST_MS else None,
            trace=trace,
            detail={name: value for name, value in detail.items() if value is not None},
        )
    )


def _plain(text: str, limit: int) -> str | None:
    if not text:
        return None
    return plain(text, limit)
