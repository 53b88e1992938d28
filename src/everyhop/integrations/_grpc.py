# SPDX-License-Identifier: Apache-2.0
"""What the gRPC glues share: from a call's details to a request, from a refusal to a status."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from everyhop.core.errors import EveryhopError
from everyhop.integrations._missing import needs
from everyhop.integrations._workload import own_workload
from everyhop.sdk import grpc_peer
from everyhop.sdk.headers import is_hidden
from everyhop.sdk.model import Peer, Refusal, Request, Verified

with needs("grpcio", module="grpc"):
    import grpc  # type: ignore[import-untyped]  # published without types

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from everyhop.integrations._arrival import Checks, OwnSocket
    from everyhop.integrations._workload import Shield
    from everyhop.sdk.sources import X509Source

CODE_KEY: Final = "everyhop-code"
DECISION_KEY: Final = "everyhop-decision"

_STATUS: Final = {
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    503: grpc.StatusCode.UNAVAILABLE,
}


def source_of(given: X509Source | None, shield: Shield) -> X509Source | None:
    """Return what a caller's certificate is verified with: what was given, or this process's own identity."""
    return given or (own_workload().x509 if shield.is_own else None)


def request_of(
    method: str, metadata: Iterable[Any], context: Any, own: OwnSocket, source: X509Source | None
) -> Request:
    """Return what the client sent.

    gRPC names the other end of a Unix socket but not our own, so a call by Unix socket is the sidecar's when the
    workload's own socket is bound: bind no other Unix socket in such a process.
    """
    via_sidecar = str(context.peer()).startswith("unix:") and own.is_only_unnamed()
    return Request(
        method="POST",
        raw_path=method.encode("utf-8", "surrogateescape"),
        headers=[(_bytes(key), _bytes(value)) for key, value in metadata],
        peer=None if via_sidecar or source is None else _peer_of(context.auth_context(), source),
        via_sidecar=via_sidecar,
    )


def verified_by(guard: Checks, request: Request) -> Verified:
    """Return the verified call or raise Refusal, also for a call whose body would have to be JSON.

    Metadata cannot be taken away from a call, so off the sidecar's socket a field that no application may see is
    refused.
    """
    if not request.via_sidecar and request.flaw is None and (named := _forged(request)) is not None:
        request = replace(request, bad_header=f"nobody may send {named}")
    verified = guard.check(request)
    if verified.checks_body:
        guard.check_body(verified, ["application/grpc"], b"")
    return verified


def _forged(request: Request) -> str | None:
    return next((name.decode("latin-1") for name, _ in request.headers if is_hidden(name)), None)


def status_of(refusal: Refusal) -> grpc.StatusCode:
    """Return the status of a refusal (401 UNAUTHENTICATED, 403 PERMISSION_DENIED, 4xx INVALID_ARGUMENT)."""
    return _STATUS.get(refusal.status, grpc.StatusCode.PERMISSION_DENIED)


def trailers_of(refusal: Refusal) -> tuple[tuple[str, str], ...]:
    """Return the trailing metadata of a refusal: its code, and the decision's id."""
    found = [(CODE_KEY, refusal.code)]
    if refusal.decision_id is not None:
        found.append((DECISION_KEY, refusal.decision_id))
    return tuple(found)


def unreadable() -> Refusal:
    """Return the refusal of a message that the method's own deserialiser does not take."""
    return Refusal(400, "BODY_MALFORMED", "the message does not parse")


def call_details(details: Any, headers: Mapping[str, str]) -> Any:
    """Return the details of a call with headers of ours; metadata of the same names is replaced."""
    ours = [(name.lower(), value) for name, value in headers.items()]
    names = {name for name, _ in ours}
    metadata = [(key, value) for key, value in details.metadata or () if key.lower() not in names]
    return _CallDetails(
        details.method,
        details.timeout,
        grpc.aio.Metadata(*metadata, *ours),
        details.credentials,
        details.wait_for_ready,
        getattr(details, "compression", None),
    )


class _CallDetails(NamedTuple):
    """What an interceptor hands on; ``grpc`` and ``grpc.aio`` read the members by name."""

    method: Any
    timeout: Any
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


def _peer_of(properties: Mapping[str, Iterable[bytes]], source: X509Source) -> Peer | None:
    try:
        return grpc_peer(properties, source)
    except EveryhopError:
        return None


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
