# SPDX-License-Identifier: Apache-2.0
"""The SPIFFE Workload API on gRPC (SPIFFE_Workload_API.md, SPIFFE_Workload_Endpoint.md).

This module only translates; who gets what is decided by :class:`everyhop.agent.WorkloadService`.
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from grpclib.exceptions import GRPCError
from grpclib.reflection.service import ServerReflection

from everyhop.api.decisions_rpc import DecisionsApi
from everyhop.api.events_rpc import EventsApi
from everyhop.api.tokens_rpc import TokensApi
from everyhop.core.errors import InputError
from everyhop.spiffe.bundle import encode_jwt_bundle
from everyhop.wire.rpc import Call, Cardinality, GrpcStatus, Guarded, Method, Service
from everyhop.wire.schema import POOL
from everyhop.wire.transport import Limits, PeerServer
from everyhop.wire.workload_pb2 import (
    JWTSVID,
    X509SVID,
    JWTBundlesRequest,
    JWTBundlesResponse,
    JWTSVIDRequest,
    JWTSVIDResponse,
    ValidateJWTSVIDRequest,
    ValidateJWTSVIDResponse,
    WITBundlesRequest,
    WITBundlesResponse,
    WITSVIDRequest,
    WITSVIDResponse,
    X509BundlesRequest,
    X509BundlesResponse,
    X509SVIDRequest,
    X509SVIDResponse,
)

if TYPE_CHECKING:
    from grpclib._typing import IServable

    from everyhop.agent import WorkloadService, X509Context
    from everyhop.control.app_decisions import ApplicationDecisions
    from everyhop.control.workload_tokens import WorkloadTokens
    from everyhop.spiffe.bundle import Bundle

log = logging.getLogger(__name__)

SERVICE_NAME: Final = "SpiffeWorkloadAPI"
SECURITY_HEADER: Final = "workload.spiffe.io"
"""Without ``workload.spiffe.io: true`` every call is refused (Endpoint section 3): a forged request cannot set it."""


def workload_server(
    service: WorkloadService,
    *,
    tokens: WorkloadTokens | None = None,
    decisions: ApplicationDecisions | None = None,
    limits: Limits | None = None,
    kernel_pidfd: bool = True,
) -> PeerServer:
    """Return a server of the Workload API with gRPC reflection, to be started on a listening socket.

    With ``tokens`` it offers ``everyhop.workload.v1.Tokens`` too, with ``decisions`` ``everyhop.workload.v1.Decisions`` and
    ``everyhop.workload.v1.Audit``.
    """
    ours: list[IServable] = [WorkloadApi(service).routes()]
    if tokens is not None:
        ours.append(Service(TokensApi(tokens).methods(), guard=require_security_header))
    if decisions is not None:
        ours.append(Service(DecisionsApi(decisions).methods(), guard=require_security_header))
        ours.append(Service(EventsApi(decisions).methods(), guard=require_security_header))
    reflected: list[IServable] = [
        entry if entry in ours else Guarded(entry, require_security_header)
        for entry in ServerReflection.extend(ours, pool=POOL)
    ]
    return PeerServer(reflected, limits=limits, kernel_pidfd=kernel_pidfd)


class WorkloadApi:
    """The methods of the X.509 and JWT profiles; those of the WIT profile answer Unimplemented (section 7)."""

    def __init__(self, service: WorkloadService) -> None:
        self._service = service

    def routes(self) -> Service:
        """Return the methods under their standard paths."""
        stream, unary = Cardinality.UNARY_STREAM, Cardinality.UNARY_UNARY
        table = (
            ("FetchX509SVID", stream, X509SVIDRequest, X509SVIDResponse, self.fetch_x509_svid),
            ("FetchX509Bundles", stream, X509BundlesRequest, X509BundlesResponse, self.fetch_x509_bundles),
            ("FetchJWTSVID", unary, JWTSVIDRequest, JWTSVIDResponse, self.fetch_jwt_svid),
            ("FetchJWTBundles", stream, JWTBundlesRequest, JWTBundlesResponse, self.fetch_jwt_bundles),
            (
                "ValidateJWTSVID",
                unary,
                ValidateJWTSVIDRequest,
                ValidateJWTSVIDResponse,
                self.validate_jwt_svid,
            ),
            ("FetchWITSVID", stream, WITSVIDRequest, WITSVIDResponse, self.unimplemented),
            ("FetchWITBundles", stream, WITBundlesRequest, WITBundlesResponse, self.unimplemented),
        )
        return Service(
            [
                Method(
                    path=f"/{SERVICE_NAME}/{name}",
                    cardinality=cardinality,
                    request=request,
                    reply=reply,
                    handler=handler,
                )
                for name, cardinality, request, reply, handler in table
            ],
            guard=require_security_header,
        )

    async def fetch_x509_svid(self, call: Call[X509SVIDRequest, X509SVIDResponse]) -> None:
        """Stream every X509-SVID of the caller (section 5.2.1)."""
        await call.receive_only()
        async with aclosing(self._service.watch_x509(call.peer)) as watch:
            async for context in watch:
                await call.send(x509_response(context))

    async def fetch_x509_bundles(self, call: Call[X509BundlesRequest, X509BundlesResponse]) -> None:
        """Stream the X.509 authorities (section 5.2.2)."""
        await call.receive_only()
        async with aclosing(self._service.watch_bundle(call.peer)) as watch:
            async for bundle in watch:
                await call.send(X509BundlesResponse(bundles={_key(bundle): bundle.x509_der}))

    async def fetch_jwt_svid(self, call: Call[JWTSVIDRequest, JWTSVIDResponse]) -> None:
        """Issue JWT-SVIDs to the caller (section 6.2.1)."""
        request = await call.receive_only()
        tokens = await self._service.jwt_svids(call.peer, tuple(request.audience), request.spiffe_id)
        await call.send(
            JWTSVIDResponse(
                svids=[
                    JWTSVID(spiffe_id=str(token.spiffe_id), svid=token.token, hint=name)
                    for name, token in tokens
                ]
            )
        )

    async def fetch_jwt_bundles(self, call: Call[JWTBundlesRequest, JWTBundlesResponse]) -> None:
        """Stream the JWT authorities as a JWK Set without keys of other uses (section 6.2.2)."""
        await call.receive_only()
        last: bytes | None = None
        async with aclosing(self._service.watch_bundle(call.peer)) as watch:
            async for bundle in watch:
                encoded = encode_jwt_bundle(bundle)
                if encoded != last:
                    last = encoded
                    await call.send(JWTBundlesResponse(bundles={_key(bundle): encoded}))

    async def validate_jwt_svid(self, call: Call[ValidateJWTSVIDRequest, ValidateJWTSVIDResponse]) -> None:
        """Validate a JWT-SVID for the caller (section 6.2.3)."""
        request = await call.receive_only()
        svid = await self._service.validate_jwt(call.peer, request.svid, request.audience)
        response = ValidateJWTSVIDResponse(spiffe_id=str(svid.spiffe_id))
        try:
            response.claims.update(dict(svid.claims))
        except (ValueError, OverflowError, TypeError) as error:  # lone surrogates, integers beyond a double
            raise InputError("a claim cannot be expressed in the answer") from error
        await call.send(response)

    async def unimplemented(self, call: Call[Any, Any]) -> None:
        """Refuse a method of an optional profile."""
        raise GRPCError(GrpcStatus.UNIMPLEMENTED, f"{call.method} is not supported")


def x509_response(context: X509Context) -> X509SVIDResponse:
    """Return the message for a context: complete, the default identity first (sections 4.3 and 8)."""
    bundle = context.bundle.x509_der
    return X509SVIDResponse(
        svids=[
            X509SVID(
                spiffe_id=str(grant.identity.spiffe_id),
                x509_svid=grant.identity.chain_der,
                x509_svid_key=grant.identity.key.reveal(),
                bundle=bundle,
                hint=grant.service,
            )
            for grant in context.grants
        ]
    )


def _key(bundle: Bundle) -> str:
    """Return the key of a bundle in a response: the SPIFFE ID of its trust domain."""
    return str(bundle.trust_domain.id)


def require_security_header(call: Call[Any, Any]) -> None:
    """Refuse a call without the one header that shows it was meant for this API (Endpoint section 3)."""
    if call.metadata(SECURITY_HEADER) != ("true",):
        log.warning("call of pid %d to %s refused: no %s header", call.peer.pid, call.method, SECURITY_HEADER)
        raise InputError(f"the metadata '{SECURITY_HEADER}: true' is required")
