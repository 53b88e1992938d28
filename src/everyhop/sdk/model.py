# SPDX-License-Identifier: Apache-2.0
"""What an application sees: the peer, the caller, the user, a verified call, and a refusal.

Only the standard library is loaded here, so that importing the SDK costs next to nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import EveryhopError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from everyhop.core.secret import Secret
    from everyhop.sdk.deciding import Facts
    from everyhop.sdk.trace import TraceContext
    from everyhop.tokens.access import AccessToken

OUTSIDE: Final = "outside"
"""The caller's name for everybody beyond the edge: no workload, so no SPIFFE ID."""

_OK: Final = 200
_SERVICE_PATH: Final = "/service/"
_TITLES: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Blocked",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The other end of a TLS connection, already verified: SPIFFE ID and SHA-256 of its certificate.

    ``x5t`` is the value of ``x5t#S256`` (base64url).  Only :func:`everyhop.sdk.peer_of` and the servers' glue
    make one from a connection; never make one from what a request says.
    """

    spiffe_id: str
    x5t: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The workload that called, verified; ``spiffe_id`` is ``outside`` for a client beyond the edge.

    ``via_sidecar`` tells who verified the certificate: the sidecar in front, or this process.
    """

    spiffe_id: str
    x5t: str | None = None
    via_sidecar: bool = False

    @property
    def is_outside(self) -> bool:
        """Tell a client beyond the edge from a workload."""
        return self.spiffe_id == OUTSIDE

    @property
    def service(self) -> str | None:
        """Return the service's name where the SPIFFE ID has the usual form ``…/service/NAME``, else None."""
        _, found, name = self.spiffe_id.removeprefix("spiffe://").partition(_SERVICE_PATH)
        return name if found and name and "/" not in name else None

    def __str__(self) -> str:
        return self.spiffe_id


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """On whose behalf the call is made: the facts of a verified transaction token.

    ``kind`` is ``user`` for a person and ``client`` for an API key; ``issuer`` is who authenticated them;
    ``requester`` the SPIFFE ID of the workload that asked for the token; ``expires_at`` and ``auth_time`` are
    seconds since the epoch.
    """

    subject: str
    txn: str
    kind: str = "user"
    roles: frozenset[str] = frozenset()
    scope: frozenset[str] = frozenset()
    issuer: str | None = None
    acr: str | None = None
    amr: tuple[str, ...] = ()
    auth_time: int | None = None
    email: str | None = field(default=None, repr=False)
    requester: str | None = None
    expires_at: int = 0

    def __str__(self) -> str:
        return self.subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a server received, untouched.

    ``raw_path`` is the request target as on the wire, with or without its query; ``headers`` keeps order and
    repetitions, names in any case.  ``peer`` comes from the TLS layer of this very connection.  ``via_sidecar``
    is true only when the connection arrived on the workload's own sidecar socket: then, and only then, the
    identity headers are believed.  ``is_websocket`` tells the handshake of a WebSocket.  ``flaw`` is why the glue
    cannot tell what the client sent, for instance because the server kept only a decoded path, ``bad_header`` which
    field it cannot take away from the application: both are refused with 400.  ``source_ip`` is the address of
    the other end of this connection, if it has one.
    """

    method: str
    raw_path: bytes = field(repr=False)  # its query may hold what no log should
    headers: Sequence[tuple[bytes, bytes]] = field(repr=False)
    peer: Peer | None = None
    via_sidecar: bool = False
    query: bytes = field(default=b"", repr=False)
    is_websocket: bool = False
    flaw: str | None = None
    bad_header: str | None = None
    source_ip: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A call that passed every check.  ``user`` is None where the policy wants none or none was sent.

    ``checks_body`` tells that the operation has a JSON Schema: read the body and give it to
    :meth:`everyhop.sdk.Guard.check_body` before the application sees it.  ``note`` is where a later refusal of this
    call is recorded (:meth:`refusal`), ``facts`` what :func:`everyhop.sdk.authorize` decides by.
    """

    caller: Caller
    user: User | None
    operation: str
    decision_id: str
    snapshot: str
    trace: TraceContext
    rule: str | None = None
    token: AccessToken | None = field(default=None, repr=False)
    txn_token: Secret | None = field(default=None, repr=False)
    checks_body: bool = False
    method: str = ""
    path: str = ""
    note: Callable[[Decided], None] | None = field(default=None, repr=False, compare=False)
    facts: Facts | None = field(default=None, repr=False, compare=False)

    def refusal(
        self,
        status: int,
        code: str,
        reason: str,
        detail: str,
        *,
        challenge: str | None = None,
        pointers: tuple[str, ...] = (),
    ) -> Refusal:
        """Record that this call is refused after all, and return the refusal to be raised.

        For whatever decides later than the guard (a view, a body); ``reason`` and ``detail`` are for operators.
        """
        if self.note is not None:
            self.note(self.decided(status=status, code=code, reason=reason, detail=detail))
        return Refusal(
            status, code, detail, decision_id=self.decision_id, challenge=challenge, pointers=pointers
        )

    def decided(self, *, status: int, code: str, reason: str, detail: str | None = None) -> Decided:
        """Return the decision on this call as it is recorded; allowed for the status 200."""
        return Decided(
            allowed=status == _OK,
            decision_id=self.decision_id,
            method=self.method,
            path=self.path,
            status=status,
            code=code,
            reason=reason,
            caller=self.caller.spiffe_id,
            operation=self.operation,
            user=None if self.user is None else self.user.subject,
            rule=self.rule,
            snapshot=self.snapshot,
            detail=detail,
            trace=self.trace.record,
            via_sidecar=self.caller.via_sidecar,
        )

    @property
    def owes_authorization(self) -> bool:
        """Tell whether the policy leaves resources to the application, and it has checked none so far."""
        return self.facts is not None and self.facts.owes


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """One decision for the ``decisions`` hook; holds no token, no query, no header value and no body.

    ``reason`` and ``detail`` are for operators, the caller saw ``status``, ``code`` and ``decision_id`` only.
    ``via_sidecar`` tells that a sidecar decided on the call before, and recorded it under the same id.
    """

    allowed: bool
    decision_id: str
    method: str
    path: str
    status: int
    code: str
    reason: str
    caller: str | None
    operation: str | None
    user: str | None
    rule: str | None
    snapshot: str
    detail: str | None = None
    trace: str = ""
    via_sidecar: bool = False


class Refusal(EveryhopError):  # noqa: N818  # the outcome, not a fault
    """A call that is answered by the guard and never reaches the application.

    Send ``status``, ``headers`` and ``body`` as they are.  ``message`` is for operators and is not in ``body``.
    """

    code: str  # type: ignore[misc]  # of the tree's class attribute this one makes an attribute of each refusal

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        decision_id: str | None = None,
        challenge: str | None = None,
        pointers: tuple[str, ...] = (),
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.decision_id = decision_id
        self.challenge = challenge
        self.pointers = pointers
        self.retry_after = retry_after

    @property
    def title(self) -> str:
        """Return the status in words."""
        return _TITLES.get(self.status, "Error")

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Return the response's headers: type, no caching, the challenge (RFC 6750 section 3), when to come again, the decision."""
        found = [("content-type", "application/problem+json"), ("cache-control", "no-store")]
        if self.challenge is not None:
            found.append(("www-authenticate", self.challenge))
        if self.retry_after is not None:
            found.append(("retry-after", str(self.retry_after)))
        if self.decision_id is not None:
            found.append(("x-everyhop-decision", self.decision_id))
        return tuple(found)

    @property
    def problem(self) -> dict[str, object]:
        """Return the members of the problem (RFC 9457): code and decision id, and never a reason or a value."""
        members: dict[str, object] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "code": self.code,
        }
        if self.decision_id is not None:
            members["decision"] = self.decision_id
        if self.pointers:
            members["pointers"] = list(self.pointers)
        return members

    @property
    def body(self) -> bytes:
        """Return the problem as JSON."""
        return json.dumps(self.problem, separators=(",", ":")).encode()
