# SPDX-License-Identifier: Apache-2.0
"""What a proxy that is not ours asks, and what it is told: the values between its protocol and the decision."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from everyhop.core.errors import InputError
from everyhop.tokens.codes import challenge

if TYPE_CHECKING:
    from collections.abc import Callable

ALLOWED: Final = 200
AMBIGUOUS: Final = 400
UNAUTHENTICATED: Final = 401
DENIED: Final = 403
BLOCKED: Final = 429
UNAVAILABLE: Final = 503

TITLES: Final = {
    AMBIGUOUS: "Ambiguous path",
    UNAUTHENTICATED: "Unauthorized",
    DENIED: "Access denied",
    BLOCKED: "Blocked",
    UNAVAILABLE: "Service Unavailable",
}


class Form(StrEnum):
    """The protocol in which a proxy asks.  Headers of one form are never believed in another."""

    ENVOY = "envoy"  # ext_authz over gRPC
    ENVOY_HTTP = "envoy-http"  # ext_authz over HTTP
    NGINX = "nginx"  # auth_request
    TRAEFIK = "traefik"  # ForwardAuth


class CallerFrom(StrEnum):
    """Where a proxy says who calls.  A client certificate that it passes on is verified in any case."""

    PRINCIPAL = "principal"  # the peer of its own TLS connection
    XFCC = "xfcc"  # x-forwarded-client-cert, which it sanitises


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingProxy:
    """A local proxy that may ask: every process of ``uid``, about ``services``.

    With one service a question need not name it; with several, each question must.
    """

    uid: int
    services: tuple[str, ...]
    caller: CallerFrom = CallerFrom.PRINCIPAL

    def target(self, named: str | None) -> str:
        """Return the service that a question is about; raises InputError when it may not ask about it."""
        if named:
            if named in self.services:
                return named
            raise InputError(f"uid {self.uid} may not ask about {named[:80]!r}")
        if len(self.services) == 1:
            return self.services[0]
        raise InputError(f"uid {self.uid} asks about several services and named none")


class Presented(NamedTuple):
    """The credentials of a request as sent: an access token, a transaction token."""

    token: str | None = None
    txn: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request as a proxy describes it.  Nothing of it is verified.

    ``method`` and ``path`` (with its query) are as on the wire, one character a byte.  ``headers`` are the client's,
    every field line of its own where ``is_raw``; else equal names came joined by commas.  ``principal`` is the
    proxy's word for its TLS peer, ``certificate`` that peer's, URL-encoded PEM or bare base64.  ``presented`` reads the
    credentials, and raises TokenError when they have more than one reading.  ``source`` is an IP address.
    """

    form: Form
    target: str
    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    is_raw: bool = True
    principal: str | None = None
    certificate: bytes | None = field(default=None, repr=False)
    presented: Callable[[], Presented] = field(default=Presented, repr=False)
    source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a proxy is told: a status, a code for the client, and header changes for a call that goes on.

    ``retry_after`` (seconds) is when one who is blocked may come again.
    """

    status: int
    code: str
    decision: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    remove: tuple[str, ...] = ()
    token_code: str | None = None
    retry_after: int | None = None

    @property
    def is_allowed(self) -> bool:
        """Tell whether the call goes on."""
        return self.status == ALLOWED

    @property
    def title(self) -> str:
        """Return the title of the problem document of a refusal."""
        return TITLES[self.status]

    @property
    def authenticate(self) -> str | None:
        """Return the challenge of a refusal that asks for a token (RFC 6750 section 3)."""
        return None if self.token_code is None else challenge(self.token_code)

    def problem(self) -> dict[str, object]:
        """Return the body of a refusal (RFC 9457): a code and the decision id, and not why."""
        body = {"type": "about:blank", "title": self.title, "status": self.status, "code": self.code}
        return body | ({"decision": self.decision} if self.decision else {})
