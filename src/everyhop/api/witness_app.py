# SPDX-License-Identifier: Apache-2.0
"""The witness over HTTP (c2sp.org/tlog-witness): ``POST /add-checkpoint``, ``GET /<origin hash>/checkpoint``."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from everyhop.core.errors import EveryhopError, InputError, NotFound
from everyhop.tlog import RefusedError, Status
from everyhop.tlog.witness import MAX_REQUEST_BYTES, PATH, SIZE_TYPE

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from starlette.requests import Request

_log = logging.getLogger(__name__)
_TEXT: Final = "text/plain; charset=utf-8"


class Witness(Protocol):
    """What answers; see ``providers.witness_state.FileWitness``.  Blocking."""

    def add_checkpoint(self, body: bytes) -> str:
        """Return the line of the cosignature; raises InputError or RefusedError."""

    def checkpoint(self, origin_hash: str) -> bytes:
        """Return the last checkpoint of a log; raises NotFound."""


def witness_app(witness: Witness, pool: Executor) -> Starlette:
    """Return the ASGI app."""

    async def add(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_REQUEST_BYTES:
                return _plain(Status.BAD_REQUEST, "the request is too large")
        loop = asyncio.get_running_loop()
        try:
            line = await loop.run_in_executor(pool, partial(witness.add_checkpoint, bytes(body)))
        except InputError as error:
            return _plain(Status.BAD_REQUEST, error.message)
        except RefusedError as refused:
            if refused.evidence:  # worth more than the answer: the log signed two histories
                _log.error("evidence against a log: %s", bytes(body).decode("utf-8", "replace"))
            if refused.size is not None:
                return Response(f"{refused.size}\n", refused.status, media_type=SIZE_TYPE)
            return _plain(refused.status, refused.message)
        except EveryhopError:
            _log.exception("a checkpoint could not be judged")
            return _plain(503, "not now")
        return Response(line, media_type=_TEXT)

    async def last(request: Request) -> Response:
        loop = asyncio.get_running_loop()
        try:
            note = await loop.run_in_executor(
                pool, partial(witness.checkpoint, request.path_params["origin_hash"])
            )
        except NotFound as error:
            return _plain(Status.NOT_FOUND, error.message)
        return Response(note, media_type=_TEXT, headers={"cache-control": "public, max-age=1"})

    return Starlette(
        routes=[Route(PATH, add, methods=["POST"]), Route("/{origin_hash:str}/checkpoint", last)]
    )


def _plain(status: int, text: str) -> Response:
    return Response(text + "\n", status, media_type=_TEXT)
