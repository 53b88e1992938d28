# SPDX-License-Identifier: Apache-2.0
"""The audit log behind the face (c2sp.org/tlog-tiles): what proves it for everybody, its records for readers.

``/log/checkpoint``, ``/log/vkey`` and ``/log/tile/<level>/…`` are hashes and signatures, which tell nothing of what was
logged.  ``/log/tile/entries/…`` are the records: only for an SVID of a service that the policy names a reader, and who
reads is itself recorded before the first record is shown.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from starlette.responses import Response
from starlette.routing import Route

from everyhop.api.oauth_clients import certificate_of
from everyhop.api.oauth_errors import OAuthRefusal
from everyhop.api.waiting import BoundedWork
from everyhop.auditlog import Event, Kind
from everyhop.core.errors import AccessDenied, InputError, NotFound, TrustError, Unavailable
from everyhop.tlog import Tile, encode_bundle, width_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from datetime import datetime

    from starlette.requests import Request

    from everyhop.auditlog.ports import LogSigner, LogTree, RecordStore
    from everyhop.core.clock import Clock
    from everyhop.policy.model import Snapshot

_log = logging.getLogger(__name__)

PREFIX: Final = "/log"
READ_WINDOW: Final = timedelta(seconds=60)
"""One record says that a service read, for what it reads within this time: else reading would make the log grow."""

MAX_WAITING: Final = 64
_IMMUTABLE: Final = "public, max-age=31536000, immutable"
_PRIVATE: Final = "private, max-age=31536000, immutable"
_SHORT: Final = "public, max-age=1"
_OCTETS: Final = "application/octet-stream"
_TEXT: Final = "text/plain; charset=utf-8"


class NotShown(TrustError):  # noqa: N818  # the name of the outcome
    """No client certificate: nobody who could be a reader."""

    code = "NOT_AUTHENTICATED"


class LogDoor:
    """The routes of the log.  Used from one event loop; what blocks runs on a pool of its own."""

    def __init__(
        self,
        tree: LogTree,
        signer: LogSigner,
        *,
        records: RecordStore,
        snapshot: Callable[[], Snapshot],
        clock: Clock,
        pool: Executor,
    ) -> None:
        """``snapshot`` is the policy in force, which names the readers."""
        self._tree = tree
        self._signer = signer
        self._records = records
        self._snapshot = snapshot
        self._clock = clock
        self._call = BoundedWork(pool, MAX_WAITING, "too many ask for the log at once")
        self._recorded: dict[tuple[str, bool], datetime] = {}
        self._recording = asyncio.Lock()

    def routes(self) -> list[Route]:
        """Return the routes for the door of the face."""
        return [
            Route(f"{PREFIX}/checkpoint", self._checkpoint),
            Route(f"{PREFIX}/vkey", self._vkey),
            Route(PREFIX + "/tile/{rest:path}", self._tile),
        ]

    async def _checkpoint(self, request: Request) -> Response:
        del request
        newest = await self._call(partial(self._tree.latest_checkpoint, self._signer.origin))
        if newest is None:
            raise NotFound("nothing of the log is signed for yet")
        return Response(newest.note, media_type=_TEXT, headers={"cache-control": _SHORT})

    async def _vkey(self, request: Request) -> Response:
        del request
        keys = "".join(f"{key}\n" for key in self._signer.verifiers)
        return Response(keys, media_type=_TEXT, headers={"cache-control": _SHORT})

    async def _tile(self, request: Request) -> Response:
        try:
            tile = Tile.parse(f"tile/{request.path_params['rest']}")
        except InputError as error:
            raise NotFound(error.message) from error
        if tile.level is not None:
            data = await self._call(partial(self._hashes, tile))
            return Response(data, media_type=_OCTETS, headers={"cache-control": _IMMUTABLE})
        caller, service = self._caller(request)
        readers = self._snapshot().readers
        is_reader = service in readers
        if service is not None:
            await self._record(caller, tile, is_reader=is_reader)
        if not is_reader:
            raise AccessDenied(f"{caller[:200]} is no reader of the audit log")
        data = await self._call(partial(self._entries, tile))
        return Response(
            data, media_type=_OCTETS, headers={"cache-control": _PRIVATE, "vary": "accept-encoding"}
        )

    def _hashes(self, tile: Tile) -> bytes:
        self._require(tile)
        assert tile.level is not None  # noqa: S101  # asked for hashes
        return self._tree.tile(tile.level, tile.index, tile.width)

    def _entries(self, tile: Tile) -> bytes:
        self._require(tile)
        start = tile.index * 256
        lines = [line for page in self._tree.lines(start, start + tile.width) for line in page]
        present = [line for line in lines if line is not None]
        if len(present) == len(lines):
            return encode_bundle(present)
        if start < self._tree.first_kept():
            raise NotFound("these records were removed by age")
        raise Unavailable("records are missing in the database", hint="everyhop log verify", retry=False)

    def _require(self, tile: Tile) -> None:
        """Refuse what no signed checkpoint covers: what is not signed for may still be anything."""
        newest = self._tree.latest_checkpoint(self._signer.origin)
        if newest is None or tile.width > width_of(newest.size, tile.level, tile.index):
            raise NotFound("no such tile in what was signed for")

    def _caller(self, request: Request) -> tuple[str, str | None]:
        """Return the SPIFFE ID of who asks, and its service if the policy declares one.  Raises NotShown."""
        try:
            certificate = certificate_of(request)
        except OAuthRefusal as error:
            raise NotShown(error.message) from error
        if certificate is None:
            raise NotShown("records are shown to services with an SVID that the policy names as readers")
        service = self._snapshot().service_of(certificate.spiffe_id)
        return certificate.spiffe_id, None if service is None else service.name

    async def _record(self, caller: str, tile: Tile, *, is_reader: bool) -> None:
        """Record that a service reads or may not, once in a while for each; nothing is shown when that fails."""
        async with self._recording:
            now = self._clock.now()
            last = self._recorded.get((caller, is_reader))
            if last is not None and timedelta(0) <= now - last < READ_WINDOW:
                return
            event = Event(
                kind=Kind.LOG,
                action="read",
                time=now,
                caller=caller,
                decision="allow" if is_reader else "deny",
                reason="reader" if is_reader else "not-a-reader",
                detail={"first": tile.path, "seconds": int(READ_WINDOW.total_seconds())},
            )
            await self._call(partial(self._records.note, event))
            self._recorded = {
                key: moment for key, moment in self._recorded.items() if now - moment < READ_WINDOW
            } | {(caller, is_reader): now}
