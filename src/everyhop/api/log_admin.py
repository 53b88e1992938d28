# SPDX-License-Identifier: Apache-2.0
"""What the owner may ask of the audit log: search, one decision, a live stream, and to forget a person.

A read is recorded itself, once for each command: pages that go on from a position are the same read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from starlette.responses import StreamingResponse
from starlette.routing import Route

from everyhop.api.http import moment_of, read_message, reply
from everyhop.api.insight import told, told_of_block
from everyhop.api.owner import actor_of
from everyhop.auditlog import Kind, Order, Point, RecordFilter
from everyhop.auditlog.addresses import canonical_address
from everyhop.auditlog.personal import parse_person
from everyhop.auditlog.query import MAX_PAGE
from everyhop.control.messages import ForgetRequest
from everyhop.core.decision import Reason
from everyhop.core.errors import InputError, NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from enum import StrEnum

    from starlette.datastructures import QueryParams
    from starlette.requests import Request
    from starlette.responses import Response

    from everyhop.auditlog import Page, Record
    from everyhop.auditlog.model import Scalar
    from everyhop.control.service import ControlPlane
    from everyhop.policy.model import Snapshot

    Choice = TypeVar("Choice", bound=StrEnum)

MAX_DIGITS: Final = 19  # more would be work for nothing
MAX_TEXT: Final = 2048
_TEXTS: Final = ("service", "caller", "user", "decision", "rule", "operation", "reason", "api_key", "address")


def log_routes(control: ControlPlane) -> list[Route]:
    """Return the routes of the owner's door that read the log."""
    door = _LogDoor(control)
    return [
        Route("/v1/records", door.records),
        Route("/v1/records/stream", door.stream),
        Route("/v1/records/{id}", door.record),
        Route("/v1/log/forget", door.forget, methods=["POST"]),
    ]


def filter_of(query: QueryParams) -> RecordFilter:
    """Return what the parameters of a query ask for.  Raises InputError."""
    texts = {name: query.get(name) for name in _TEXTS}
    for name, text in texts.items():
        if text is not None and not 0 < len(text) <= MAX_TEXT:
            raise InputError(f"{name} has 1 to {MAX_TEXT} characters")
    if (address := texts["address"]) is not None and not address.startswith("~"):
        texts["address"] = canonical_address(address)
        if texts["address"] is None:
            raise InputError(f"not an address: {address[:40]!r}")
    kinds = [
        _choice(Kind, "kind of record", text) for value in query.getlist("kind") for text in value.split(",")
    ]
    points = [_choice(Point, "point", text) for text in query.getlist("point")]
    if len(points) > 1:
        raise InputError("point is given twice")
    return RecordFilter(
        service=texts["service"],
        caller=texts["caller"],
        user=texts["user"],
        decision=texts["decision"],
        rule=texts["rule"],
        operation=texts["operation"],
        reason=texts["reason"],
        api_key=texts["api_key"],
        address=texts["address"],
        kind=kinds[0] if len(kinds) == 1 else None,
        kinds=frozenset(kinds if len(kinds) > 1 else ()),
        point=points[0] if points else None,
        id_prefix=query.get("id") or None,
        since=moment_of(query.get("since")),
        until=moment_of(query.get("until")),
    )


class _LogDoor:
    def __init__(self, control: ControlPlane) -> None:
        self._control = control

    async def records(self, request: Request) -> Response:
        """Answer one page: the newest, or behind ``after``, or before ``before``; the oldest of it first."""
        query = request.query_params
        wanted = filter_of(query)
        limit = _whole(query.get("limit"), default=100, largest=MAX_PAGE)
        before = _whole(query.get("before"), default=0, largest=2**62)
        after = _whole(query.get("after"), default=0, largest=2**62)
        if before and "after" in query:
            raise InputError("before and after are given both")
        if not before and not after:
            await self._note(request, _asked(query))
        order = Order.OLDEST if "after" in query else Order.NEWEST
        page = await self._control.log.query(
            wanted,
            order=order,
            cursor=after if "after" in query else before or None,
            limit=max(1, limit),
            as_stored="pseudonyms" in query,
        )
        return reply(_shown(page, order, after, is_empty=not limit))

    async def stream(self, request: Request) -> Response:
        """Answer lines as records come: ``{"position", "record"}``, and ``{"position"}`` as a heartbeat.

        Whoever goes on behind the last position that he saw misses nothing and sees nothing twice.
        """
        query = request.query_params
        wanted, as_stored = filter_of(query), "pseudonyms" in query
        if "after" in query:
            position = _whole(query.get("after"), default=0, largest=2**62)
        else:
            position = await self._control.log.newest_position()
        if not position or "after" not in query:
            await self._note(request, {**_asked(query), "live": True})

        async def lines() -> AsyncIterator[bytes]:
            async for at, found in self._control.log.follow(wanted, position, as_stored=as_stored):
                for place, record in found:
                    yield msgspec.json.encode({"position": place, "record": record}) + b"\n"
                yield b'{"position":%d}\n' % at

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def record(self, request: Request) -> Response:
        """Answer a decision with its why."""
        decision_id = request.path_params["id"]
        record, *also = await self._control.log.decision(decision_id)
        await self._note(request, {"id": decision_id[:128]})
        answer = told(record, await self._snapshot_under(record)) | {"also": also}
        if record.reason == Reason.BLOCKED:
            answer |= told_of_block(answer, self._control.orders.about(record))
        return reply(answer)

    async def forget(self, request: Request) -> Response:
        """Forget a person."""
        message = await read_message(request, ForgetRequest, max_bytes=8192)
        person = parse_person(message.person)
        name = await self._control.log.forget(person, reason=message.reason, by=actor_of(request).name)
        return reply({"forgotten": name})

    async def _note(self, request: Request, detail: dict[str, Scalar]) -> None:
        await self._control.log.note_read(by=actor_of(request).name, detail=detail)

    async def _snapshot_under(self, record: Record) -> Snapshot | None:
        """Return the snapshot that a decision was made under; None where an application names one that is none."""
        if record.kind is not Kind.DECISION or not (record.snapshot and record.target and record.caller):
            return None
        try:
            return await self._control.snapshot_of(record.snapshot)
        except NotFound:
            if record.point is Point.SDK:
                return None
            raise


def _shown(page: Page, order: Order, after: int, *, is_empty: bool) -> dict[str, object]:
    """Return a page, the oldest record first: ``cursor`` goes on behind it, ``before`` to what is older."""
    is_newest = order is Order.NEWEST
    records, positions = page.records, page.positions
    if is_newest:
        records, positions = records[::-1], positions[::-1]
    newest = page.first if is_newest else page.last
    return {
        "records": () if is_empty else records,
        "positions": () if is_empty else positions,
        "cursor": newest or after,
        "before": page.last if is_newest else page.first,
        "more": page.more,
    }


def _asked(query: QueryParams) -> dict[str, Scalar]:
    """Return what a read asked for, as its record tells it."""
    return {name: value[:512] for name, value in query.items() if name not in {"limit", "after", "before"}}


def _choice(choices: type[Choice], what: str, text: str) -> Choice:
    try:
        return choices(text)
    except ValueError as error:
        raise InputError(f"no {what}: {text[:40]!r}", hint="one of: " + ", ".join(choices)) from error


def _whole(text: str | None, *, default: int, largest: int) -> int:
    if text is None:
        return default
    if not text.isdecimal() or len(text) > MAX_DIGITS or int(text) > largest:
        raise InputError(f"not a number between 0 and {largest}: {text[:40]!r}")
    return int(text)
