# SPDX-License-Identifier: Apache-2.0
"""Detection over HTTP, on ``admin.sock``: how it is, one subject's counter, findings, and what another policy would find."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from starlette.routing import Route

from everyhop.anomaly.detectors.settings import KINDS
from everyhop.api.http import moment_of, read_message, reply
from everyhop.api.owner import Replays, actor_of, policy_bytes
from everyhop.auditlog import Kind, Order, RecordFilter
from everyhop.auditlog.query import MAX_PAGE
from everyhop.control.detection import Detection
from everyhop.control.detection_replay import replay_detection
from everyhop.control.response_orders import named
from everyhop.core.clock import rfc3339
from everyhop.core.errors import InputError, Unavailable
from everyhop.policy.detect import SubjectClass, describe_limits, detection_entry

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from everyhop.auditlog import Record
    from everyhop.auditlog.model import Scalar
    from everyhop.control.service import ControlPlane

_MAX_POLICY_BYTES: Final = 64 * 1024 * 1024
_MAX_SHOWN: Final = 10_000


class ReplayWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Since when (aware), and a candidate by its files; without, the policy in force."""

    since: Annotated[datetime, msgspec.Meta(tz=True)]
    files: dict[str, str] | None = None


def detection_routes(control: ControlPlane) -> list[Route]:
    """Return the routes of the owner's door that are about detection."""
    door = _DetectionDoor(control)
    return [
        Route("/v1/detect", door.status),
        Route("/v1/detect/subject", door.subject),
        Route("/v1/detect/replay", door.replay, methods=["POST"]),
        Route("/v1/findings", door.findings),
    ]


class _DetectionDoor:
    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        self._replays = Replays()

    def _detection(self) -> Detection:
        if self._control.detection is None:
            raise Unavailable("there is no detection here")
        return self._control.detection

    async def status(self, request: Request) -> Response:
        del request
        status = await self._detection().status()
        chapter = self._control.snapshot.detection
        limits = {kind.value: describe_limits(chapter.limits_of(kind)) for kind in SubjectClass}
        services = {name: describe_limits(found) for name, found in chapter.per_service.items()}
        return reply(
            status
            | {
                "window_seconds": chapter.window.total_seconds(),
                "limits": limits,
                "per_service": services,
                "exempt": [str(one) for one in chapter.exempt],
                "written": detection_entry(chapter),
                "off": sorted(set(KINDS) - set(status["detectors"])),
            }
        )

    async def subject(self, request: Request) -> Response:
        snapshot = self._control.snapshot
        subject = named(request.query_params.get("subject", ""), snapshot)
        look = await self._detection().look(subject)
        owner = snapshot.service_of(subject.value)
        limits = self._detection().limits_of(subject)
        block = self._control.responder.blocks.by_subject.get(subject)
        return reply(
            {
                "subject": str(subject),
                "service": None if owner is None else owner.name,
                "count": look.n,
                "alerted": look.alerted,
                "counting_again_in": look.blocked_for,
                "limits": describe_limits(limits),
                "exempt": snapshot.detection.is_exempt(subject.kind.value, subject.value),
                "blocked_until": None if block is None or block.until is None else rfc3339(block.until),
                "blocked": block is not None,
            }
        )

    async def findings(self, request: Request) -> Response:
        q = request.query_params
        limit = _number(q.get("limit", "100"), _MAX_SHOWN)
        wanted = RecordFilter(kind=Kind.FINDING, since=moment_of(q.get("since")))
        caller = q.get("subject")
        subject = None if caller is None else str(named(caller, self._control.snapshot))
        asked: dict[str, Scalar] = {"what": "findings", "since": q.get("since"), "subject": subject}
        told: dict[str, Scalar] = {name: value for name, value in asked.items() if value is not None}
        await self._control.log.note_read(by=actor_of(request).name, detail=told)
        found: list[dict[str, Any]] = []
        cursor = None
        while len(found) < limit:
            page = await self._control.log.query(
                wanted, order=Order.NEWEST, cursor=cursor, limit=min(MAX_PAGE, limit)
            )
            found += [
                _view(record)
                for record in page.records
                if subject in {None, record.caller} and q.get("detector") in {None, record.operation}
            ]
            cursor = page.last
            if not page.more or cursor is None:
                break
        return reply({"findings": found[:limit][::-1]})

    async def replay(self, request: Request) -> Response:
        message = await read_message(request, ReplayWish, max_bytes=_MAX_POLICY_BYTES)
        candidate = self._control.snapshot
        if message.files is not None:
            candidate = await self._control.check_policy(policy_bytes(message.files))
        self._replays.check_free()
        detectors = self._detection().detectors_for(candidate)
        since = rfc3339(message.since)
        told: dict[str, Scalar] = {"what": "replay", "since": since}
        await self._control.log.note_read(by=actor_of(request).name, detail=told)
        steps = replay_detection(self._control.log.query, candidate, detectors, message.since)
        return self._replays.answer(steps)


def _number(text: str, largest: int) -> int:
    if not text.isdecimal() or len(text) > 9 or not 0 < int(text) <= largest:  # noqa: PLR2004  # digits
        raise InputError(f"not a number between 1 and {largest}: {text[:40]!r}")
    return int(text)


def _view(record: Record) -> dict[str, Any]:
    detail = dict(record.detail)
    evidence = detail.pop("evidence", None)
    return {
        "id": record.id,
        "time": rfc3339(record.time),
        "detector": record.operation,
        "subject": record.caller,
        "answer": record.reason,
        "target": record.target,
        "snapshot": record.snapshot,
        "evidence": evidence.split() if isinstance(evidence, str) else [],
        **{name: value for name, value in detail.items() if name != "subject"},
    }
