# SPDX-License-Identifier: Apache-2.0
"""The agent's door for the owner of the state directory: launches, SVIDs, explanations (``agent.sock``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from everyhop.agent import TokenWish
from everyhop.api.http import make_app, read_message, reply
from everyhop.control.messages import (
    LaunchRequest,
    LaunchState,
    SvidReply,
    SvidRequest,
    TokenReply,
    TokenRequest,
)
from everyhop.core.errors import AttestationError, InputError, NotFound, Unavailable
from everyhop.wire.peers import PeerInfo
from everyhop.wire.processes import ProcessHandle, read_ids

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from everyhop.agent import Attested, IdentityCache, ServiceTokens, TokenCache, WorkloadService
    from everyhop.control.node import Node
    from everyhop.policy.model import Service


class OwnerDoor:
    """What ``everyhop run``, ``svid``, ``call``, ``why --pid`` and ``envoy show`` ask."""

    def __init__(
        self,
        node: Node,
        workloads: WorkloadService,
        identities: IdentityCache,
        tokens: TokenCache,
        service_tokens: ServiceTokens,
    ) -> None:
        self._node = node
        self._service_tokens = service_tokens
        self._workloads = workloads
        self._identities = identities
        self._tokens = tokens

    def app(self) -> Starlette:
        """Return the ASGI app for ``agent.sock``."""
        return make_app(
            [
                Route("/v1/ready", self._ready),
                Route("/v1/launches", self._launch, methods=["POST"]),
                Route("/v1/launches/{id}", self._news, methods=["POST"]),
                Route("/v1/launches/{id}", self._end, methods=["DELETE"]),
                Route("/v1/svid", self._svid, methods=["POST"]),
                Route("/v1/token", self._token, methods=["POST"]),
                Route("/v1/why", self._why),
                Route("/v1/envoy/{service}", self._envoy),
            ]
        )

    async def _ready(self, request: Request) -> Response:
        del request
        if not self._node.is_ready:
            raise Unavailable("the agent is starting")
        return reply({"snapshot": self._node.snapshot.hash})

    async def _launch(self, request: Request) -> Response:
        return reply(
            await self._node.launch(await read_message(request, LaunchRequest, max_bytes=65536)), 201
        )

    async def _news(self, request: Request) -> Response:
        self._node.note(request.path_params["id"], await read_message(request, LaunchState, max_bytes=65536))
        return reply({})

    async def _end(self, request: Request) -> Response:
        self._node.end(request.path_params["id"], is_clean=request.query_params.get("envoy") == "ended")
        return reply({})

    def _service(self, name: str) -> Service:
        service = self._node.snapshot.services.get(name)
        if service is None:
            raise NotFound(f"no service {name!r} in the policy in force", hint="see: everyhop policy show")
        return service

    async def _svid(self, request: Request) -> Response:
        message = await read_message(request, SvidRequest, max_bytes=65536)
        spiffe_id = self._service(message.service).spiffe_id
        if message.audience is not None:
            token = await self._tokens.jwt(spiffe_id, tuple(message.audience))
            return reply(SvidReply(spiffe_id=str(spiffe_id), token=token.token, expires_at=token.expires_at))
        identity = await self._identities.x509(spiffe_id)
        bundle = self._identities.bundle
        return reply(
            SvidReply(
                spiffe_id=str(spiffe_id),
                chain=list(identity.chain),
                key=identity.key.reveal(),
                bundle=[] if bundle is None else list(bundle.x509_authorities),
                expires_at=identity.expires_at,
            )
        )

    async def _token(self, request: Request) -> Response:
        """Mint a token of any service: the owner may be any of them anyway (``svid fetch``)."""
        message = await read_message(request, TokenRequest, max_bytes=65536)
        caller = self._service(message.caller).spiffe_id
        self._service(message.target)
        x5t = message.x5t or (await self._identities.x509(caller)).x5t
        wish = TokenWish(
            spiffe_id=caller,
            target=message.target,
            operation=message.operation,
            x5t=x5t,
            scope=None if message.scope is None else frozenset(message.scope),
        )
        token = await self._service_tokens.fresh(wish)
        return reply(TokenReply(token=token.token, jti=token.jti, expires_at=token.expires_at, x5t=x5t))

    async def _why(self, request: Request) -> Response:
        text = request.query_params.get("pid", "")
        if not text.isdecimal() or len(text) > 9 or int(text) == 0:  # noqa: PLR2004  # a pid's length
            raise InputError("pid is a positive number")
        pid = int(text)
        try:
            process = ProcessHandle.open(pid)
        except AttestationError as error:
            raise NotFound(f"no process {pid}") from error
        try:
            uid, gid = read_ids(pid).effective
            attested = await self._workloads.attest(PeerInfo(pid=pid, uid=uid, gid=gid, process=process))
        finally:
            process.close()
        entitled = attested.no_identity is None
        return reply({**attested.to_dict(), "entitled": entitled, "text": _render(attested)})

    async def _envoy(self, request: Request) -> Response:
        return reply(self._node.describe_sidecars(request.path_params["service"]))


def _render(attested: Attested) -> str:
    """Say for people which identity a process has, or why it has none."""
    lines = [f"process {attested.facts.pid}"]
    lines += [f"  is {service.name}: {service.spiffe_id}" for service in attested.services]
    lines.append("  selectors seen:")
    lines += [f"    {selector}" for selector in sorted(attested.selectors)]
    lines += [f"    ({name} not known: {why})" for name, why in attested.facts.unknown.items()]
    if attested.no_identity is not None:
        lines += ["  no identity:", f"    {attested.no_identity.render()}"]
    return "\n".join(lines)
