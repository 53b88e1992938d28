# SPDX-License-Identifier: Apache-2.0
"""Exports at the owner's door: their state, one that was switched off, and the lines for an export by hand."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from starlette.routing import Route

from everyhop.api.http import read_message, reply
from everyhop.api.owner import actor_of
from everyhop.core.errors import AccessDenied, InputError, Unavailable

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from everyhop.control.exporting import Exports
    from everyhop.control.service import ControlPlane

_PAGE: Final = 500
_MAX_DIGITS: Final = 19
_MAX_BYTES: Final = 16 * 1024
_MAX_BEGUN: Final = 64

_Text = Annotated[str, msgspec.Meta(max_length=1024)]


class ExportByHand(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody is about to take out of the log, and to where."""

    to: _Text
    format: _Text
    after: Annotated[int, msgspec.Meta(ge=0)] = 0
    since: _Text | None = None
    until: _Text | None = None


def export_routes(control: ControlPlane) -> list[Route]:
    """Return the routes of the owner's door that are about exports."""
    door = _ExportDoor(control)
    return [
        Route("/v1/exports", door.status, methods=["GET"]),
        Route("/v1/exports", door.begin, methods=["POST"]),
        Route("/v1/exports/{name}/resume", door.resume, methods=["POST"]),
        Route("/v1/log/lines", door.lines, methods=["GET"]),
    ]


class _ExportDoor:
    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        # Lines are handed out to whoever has said so in the log before; after a restart one says it again.
        self._begun: deque[str] = deque(maxlen=_MAX_BEGUN)

    async def status(self, request: Request) -> Response:
        del request
        return reply({"exports": await self._exports().status()})

    async def begin(self, request: Request) -> Response:
        """Record the export before its first line is handed out."""
        message = await read_message(request, ExportByHand, max_bytes=_MAX_BYTES)
        exports = self._exports()
        detail = {key: value for key, value in msgspec.structs.asdict(message).items() if value is not None}
        record = await exports.note_once(actor_of(request).name, detail)
        self._begun.append(record.id)
        _, head = await exports.lines(0, limit=1)
        return reply({"record": record.id, "head": head, "origin": exports.origin})

    async def resume(self, request: Request) -> Response:
        name = request.path_params["name"]
        await self._exports().release(name, actor_of(request).name)
        return reply({"resumed": name})

    async def lines(self, request: Request) -> Response:
        if request.query_params.get("export") not in self._begun:
            raise AccessDenied("an export is recorded before its first line is handed out")
        after = request.query_params.get("after", "0")
        if not after.isdecimal() or len(after) > _MAX_DIGITS:
            raise InputError(f"no place in the log: {after[:40]!r}")
        found, head = await self._exports().lines(int(after), limit=_PAGE)
        return reply({"lines": [[n, line.decode()] for n, line in found], "head": head})

    def _exports(self) -> Exports:
        if self._control.exports is None:
            raise Unavailable("this server has not opened its log yet")
        return self._control.exports
