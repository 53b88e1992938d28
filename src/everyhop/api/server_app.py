# SPDX-License-Identifier: Apache-2.0
"""The server's two doors: ``server.sock`` for agents, ``admin.sock`` for the owner of the state directory."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.responses import StreamingResponse
from starlette.routing import Route

from everyhop.api.canary_admin import canary_routes
from everyhop.api.detection_admin import detection_routes
from everyhop.api.export_admin import export_routes
from everyhop.api.http import make_app, read_message, reply
from everyhop.api.insight import insight_routes
from everyhop.api.log_admin import log_routes
from everyhop.api.log_key_admin import log_key_routes
from everyhop.api.policy_admin import policy_routes
from everyhop.api.response_admin import response_routes
from everyhop.api.token_admin import token_routes
from everyhop.authority import AuthorityKind
from everyhop.control.messages import (
    UNCHANGED,
    AgentReport,
    ExchangeTokenRequest,
    MintTokensRequest,
    MintTokensResponse,
    PseudonymsRequest,
    PseudonymsResponse,
    RecordBatch,
    RecordsAccepted,
    RefusedBatch,
    SignJwtRequest,
    SignJwtResponse,
    SignX509Request,
    SignX509Response,
    Update,
)
from everyhop.core.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from everyhop.control.feed import Truth
    from everyhop.control.service import ControlPlane

HEARTBEAT_SECONDS: Final = 2.0


def _update(known: Truth | None, truth: Truth) -> bytes:
    """Encode what changed between two truths as one line; an empty update is the heartbeat."""
    changed = known is None or truth.snapshot_hash != known.snapshot_hash
    update = Update(
        snapshot=msgspec.Raw(truth.snapshot) if changed else UNCHANGED,
        bundle=msgspec.Raw(truth.bundle)
        if known is None or truth.bundle_sequence != known.bundle_sequence
        else UNCHANGED,
        authority=truth.authority if known is None or truth.authority != known.authority else None,
        tokens=msgspec.Raw(truth.tokens) if known is None or truth.tokens != known.tokens else UNCHANGED,
        blocks=msgspec.Raw(truth.blocks) if known is None or truth.blocks != known.blocks else UNCHANGED,
    )
    return msgspec.json.encode(update) + b"\n"


class AgentDoor:
    """What an agent may ask: the stream of updates, signatures, and to hand over its records."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control

    def app(self) -> Starlette:
        """Return the ASGI app for ``server.sock``."""
        return make_app(
            [
                Route("/v1/updates/{agent}", self._updates),
                Route("/v1/sign-x509", self._sign_x509, methods=["POST"]),
                Route("/v1/sign-jwt", self._sign_jwt, methods=["POST"]),
                Route("/v1/tokens/mint", self._mint, methods=["POST"]),
                Route("/v1/tokens/exchange", self._exchange, methods=["POST"]),
                Route("/v1/credentials/refused", self._refused, methods=["POST"]),
                Route("/v1/records", self._records, methods=["POST"]),
                Route("/v1/pseudonyms", self._pseudonyms, methods=["POST"]),
                Route("/v1/report", self._report, methods=["POST"]),
            ]
        )

    async def _updates(self, request: Request) -> Response:
        agent = request.path_params["agent"]

        async def lines() -> AsyncIterator[bytes]:
            feed = self._control.feed
            feed.connected(agent)
            known: Truth | None = None
            try:
                while True:
                    truth = await feed.wait_beyond(known, HEARTBEAT_SECONDS)
                    if truth is not None:
                        yield _update(known, truth)
                        known = truth
            finally:
                feed.disconnected(agent)

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def _sign_x509(self, request: Request) -> Response:
        message = await read_message(request, SignX509Request)
        return reply(SignX509Response(results=await self._control.sign_x509(message.agent, message.items)))

    async def _sign_jwt(self, request: Request) -> Response:
        message = await read_message(request, SignJwtRequest, max_bytes=64 * 1024)
        issued = await self._control.sign_jwt(message.agent, message.spiffe_id, tuple(message.audience))
        return reply(
            SignJwtResponse(token=issued.token, issued_at=issued.issued_at, expires_at=issued.expires_at)
        )

    async def _mint(self, request: Request) -> Response:
        message = await read_message(request, MintTokensRequest)
        results = await self._control.tokens.mint(message.agent, message.items)
        return reply(MintTokensResponse(results=results))

    async def _exchange(self, request: Request) -> Response:
        message = await read_message(request, ExchangeTokenRequest, max_bytes=256 * 1024)
        return reply(await self._control.tokens.exchange(message))

    async def _refused(self, request: Request) -> Response:
        message = await read_message(request, RefusedBatch, max_bytes=1024 * 1024)
        await self._control.tokens.look_at(message.items)
        return reply({})

    async def _records(self, request: Request) -> Response:
        message = await read_message(request, RecordBatch)
        result = await self._control.log.take(message)
        return reply(
            RecordsAccepted(
                stored=result.stored,
                duplicates=result.duplicates,
                conflicts=list(result.conflicts),
                held=result.held,
                head=result.head,
            )
        )

    async def _pseudonyms(self, request: Request) -> Response:
        message = await read_message(request, PseudonymsRequest)
        wanted = [(person.kind, person.value) for person in message.persons]
        return reply(PseudonymsResponse(pseudonyms=await self._control.log.pseudonyms(wanted)))

    async def _report(self, request: Request) -> Response:
        self._control.feed.report(await read_message(request, AgentReport))
        return reply({})


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which authority to rotate, and how long to wait for agents (seconds)."""

    kind: AuthorityKind
    timeout: float = 20.0


class AdminDoor:
    """What the owner may ask: status, decisions, policy, keys."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control

    def app(self) -> Starlette:
        """Return the ASGI app for ``admin.sock``."""
        return make_app(
            [
                Route("/v1/status", self._status),
                Route("/v1/bundle", self._bundle),
                Route("/v1/snapshot", self._snapshot),
                Route("/v1/authorities", self._authorities),
                Route("/v1/rotate", self._rotate, methods=["POST"]),
                Route("/v1/policy", self._policy_status, methods=["GET"]),
                *policy_routes(self._control),
                *token_routes(self._control),
                *canary_routes(self._control),
                *insight_routes(self._control),
                *export_routes(self._control),
                *response_routes(self._control),
                *log_routes(self._control),
                *log_key_routes(self._control),
                *detection_routes(self._control),
            ]
        )

    async def _status(self, request: Request) -> Response:
        del request
        exports = self._control.exports
        more: dict[str, object] = {}
        if exports is not None:
            with suppress(Unavailable):  # a status is wanted most when the database does not answer
                more["exports"] = await exports.status()
        return reply(self._control.status() | more)

    async def _policy_status(self, request: Request) -> Response:
        del request
        return reply(self._control.policy_status())

    async def _bundle(self, request: Request) -> Response:
        del request
        truth = self._control.feed.truth
        return reply(msgspec.Raw(b"{}" if truth is None else truth.bundle))

    async def _snapshot(self, request: Request) -> Response:
        wanted = request.query_params.get("hash", self._control.snapshot.hash)
        return reply(msgspec.Raw(await self._control.document_of(wanted)))

    async def _authorities(self, request: Request) -> Response:
        del request
        return reply({"authorities": await self._control.authorities()})

    async def _rotate(self, request: Request) -> Response:
        message = await read_message(request, Rotation, max_bytes=4096)
        return reply({"authorities": await self._control.rotate(message.kind, wait_seconds=message.timeout)})
