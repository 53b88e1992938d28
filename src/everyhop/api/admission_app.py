# SPDX-License-Identifier: Apache-2.0
"""The validating webhook behind the face (``admission.k8s.io/v1``): an object in, whether it may be there out.

It reads nothing but the request and tells nothing but its own verdict, so it asks for no client certificate; who refuses to have
it asked by strangers keeps the face where only the cluster's API server reaches it.  What it refuses is recorded, up to a rate.
Whatever it cannot read is an error, which the cluster counts as a refusal (``failurePolicy: Fail``).
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from everyhop.admission.judging import judge, judge_removal
from everyhop.admission.webhook import MAX_BODY_BYTES, PATH
from everyhop.api.http import read_message
from everyhop.api.waiting import BoundedWork
from everyhop.auditlog import Event, Kind
from everyhop.auditlog.model import clip
from everyhop.core.errors import EveryhopError, Unavailable

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from starlette.requests import Request

    from everyhop.admission.model import Finding
    from everyhop.auditlog.ports import RecordStore
    from everyhop.core.clock import Clock

_log = logging.getLogger(__name__)

MAX_WAITING: Final = 16
MAX_SHOWN: Final = 20
RECORDS_A_MINUTE: Final = 60
_FORBIDDEN: Final = 403
_API: Final = "admission.k8s.io/v1"


class _Request(msgspec.Struct, frozen=True, rename="camel"):
    uid: str
    operation: str
    object: dict[str, Any] | None = None
    old_object: dict[str, Any] | None = None
    namespace: str = ""
    name: str = ""
    dry_run: bool | None = None


class _Review(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str
    kind: str
    request: _Request


class AdmissionDoor:
    """The route of the webhook.  Used from one event loop; judging runs on a pool of its own."""

    def __init__(self, *, records: RecordStore, clock: Clock, pool: Executor) -> None:
        self._records = records
        self._clock = clock
        self._call = BoundedWork(pool, MAX_WAITING, "too many objects are judged at once")
        self._minute = 0
        self._recorded = 0
        self._unrecorded = 0

    def routes(self) -> list[Route]:
        """Return the routes for the door of the face."""
        return [Route(PATH, self._validate, methods=["POST"])]

    async def _validate(self, request: Request) -> Response:
        review = await read_message(request, _Review, max_bytes=MAX_BODY_BYTES)
        asked = review.request
        if review.api_version != _API:
            raise Unavailable(f"only AdmissionReview of {_API} is answered", retry=False)
        findings = await self._call(partial(_judged, asked))
        if findings and not asked.dry_run:
            await self._record(asked, findings)
        response: dict[str, Any] = {"uid": asked.uid, "allowed": not findings}
        if findings:
            message = "everyhop: " + "; ".join(str(one) for one in findings[:MAX_SHOWN])
            response["status"] = {"code": _FORBIDDEN, "reason": "Forbidden", "message": message}
        answer = {"apiVersion": _API, "kind": "AdmissionReview", "response": response}
        return Response(msgspec.json.encode(answer), media_type="application/json")

    async def _record(self, asked: _Request, findings: tuple[Finding, ...]) -> None:
        """Record a refusal; one that cannot be recorded stays a refusal."""
        now = self._clock.now()
        minute = int(now.timestamp()) // 60
        if minute != self._minute:
            self._minute, self._recorded = minute, 0
        if self._recorded >= RECORDS_A_MINUTE:
            self._unrecorded += 1
            return
        self._recorded += 1
        what = asked.object or asked.old_object or {}
        event = Event(
            kind=Kind.POLICY,
            action="admit",
            time=now,
            decision="deny",
            reason=findings[0].code.value,
            detail={
                "source": clip(f"{what.get('kind', '')} {asked.namespace}/{asked.name}"),
                "uid": clip(asked.uid),
                "request": clip(asked.operation),
                "findings": len(findings),
                "unrecorded": self._unrecorded,
            },
        )
        try:
            await self._call(partial(self._records.note, event))
            self._unrecorded = 0
        except EveryhopError as error:
            self._unrecorded += 1
            _log.warning("a refused object is not recorded", extra={"reason": error.message})


def _judged(asked: _Request) -> tuple[Finding, ...]:
    found = () if asked.object is None or asked.operation == "DELETE" else judge(asked.object)
    if asked.old_object is not None and asked.operation in {"UPDATE", "DELETE"}:
        new = None if asked.operation == "DELETE" else asked.object
        found += judge_removal(asked.old_object, new)
    return found
