# SPDX-License-Identifier: Apache-2.0
"""Who asks: an X509-SVID in the handshake (RFC 8705), or a JWT-SVID as assertion (draft-ietf-oauth-spiffe-client-auth).

There are no client secrets.  The certificate is known from the header that the face sets and nobody else can; the
socket admits only the face.  ``client_id`` is never believed, only compared.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from everyhop.api.oauth_errors import OAuthCode, OAuthRefusal
from everyhop.api.oauth_form import single_header
from everyhop.core.errors import InputError, TokenError, TrustError
from everyhop.dataplane.face import SOURCE_HEADER
from everyhop.jose.encoding import encode_base64url
from everyhop.tokens.dpop import verify_dpop

if TYPE_CHECKING:
    from datetime import datetime

    from starlette.requests import Request

    from everyhop.core.clock import Clock
    from everyhop.tokens.replay import ReplayGuard

JWT_SPIFFE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
_CERTIFICATE_HEADER: Final = "x-forwarded-client-cert"
_NAME: Final = r"[A-Za-z0-9:/._-]+"
# By is the face's own certificate; a second URI, or a second element, is not of this form.
_CERTIFICATE: Final = re.compile(rf"By={_NAME};Hash=([0-9a-f]{{64}});URI=({_NAME})")


class Registry(Protocol):
    """Which clients there are: the services of the policy in force."""

    def service_of(self, spiffe_id: str) -> str | None:
        """Return the service that owns a SPIFFE ID, None when the policy declares none."""

    def svid_subject(self, token: str, *, audiences: frozenset[str], now: datetime) -> str:
        """Return the SPIFFE ID of a JWT-SVID that is for exactly one of ``audiences``.

        Raises InputError or TrustError.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """An authenticated client, and what its tokens can be bound to.

    ``x5t`` names its certificate, ``jkt`` the key of its proof; one of them.  ``source`` is the address that
    connected to the face.
    """

    spiffe_id: str
    service: str
    x5t: str | None = None
    jkt: str | None = None
    source: str | None = None

    def bound_to_key(self, jkt: str) -> Client:
        """Return the same client, whose tokens are bound to the key of its proof."""
        return replace(self, x5t=None, jkt=jkt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A client certificate that the face has verified: its URI, and its RFC 8705 thumbprint."""

    spiffe_id: str
    x5t: str


def certificate_of(request: Request) -> Certificate | None:
    """Return the certificate that came with the connection, None without one.

    Raises OAuthRefusal ``invalid_client`` for one that is no SVID: no URI, or several.
    """
    values = request.headers.getlist(_CERTIFICATE_HEADER)
    if not values:
        return None
    match = _CERTIFICATE.fullmatch(values[0]) if len(values) == 1 else None
    if match is None:
        raise _unknown("the client certificate is no X509-SVID")
    return Certificate(spiffe_id=match[2], x5t=encode_base64url(bytes.fromhex(match[1])))


def source_of(request: Request) -> str | None:
    """Return the address that connected to the face."""
    return request.headers.get(SOURCE_HEADER)


class Clients:
    """Authenticates the clients of the endpoints."""

    def __init__(
        self,
        *,
        registry: Registry,
        clock: Clock,
        replay: ReplayGuard,
        audiences: frozenset[str],
    ) -> None:
        """``audiences`` are the issuer and its token endpoint; ``replay`` spends DPoP proofs."""
        self._registry = registry
        self._clock = clock
        self._replay = replay
        self._audiences = audiences

    def service_of(self, spiffe_id: str) -> str | None:
        """Return the service that owns a SPIFFE ID."""
        return self._registry.service_of(spiffe_id)

    def authenticate(self, request: Request, form: dict[str, str]) -> Client:
        """Return who asks.

        Raises OAuthRefusal: ``invalid_client`` for nobody, somebody unknown, or another than ``client_id`` says,
        ``invalid_request`` for more than one way to authenticate at once (RFC 6749 section 2.3).
        """
        _refuse_secrets(request, form)
        certificate = certificate_of(request)
        has_assertion = "client_assertion" in form or "client_assertion_type" in form
        if certificate is not None and has_assertion:
            raise OAuthRefusal(OAuthCode.INVALID_REQUEST, "a client authenticates in one way only")
        if certificate is not None:
            spiffe_id, x5t = certificate.spiffe_id, certificate.x5t
        elif has_assertion:
            spiffe_id, x5t = self._asserted(form), None
        else:
            raise _unknown("no client certificate and no assertion")
        service = self._registry.service_of(spiffe_id)
        if service is None:
            raise _unknown(
                "the client is not known", reason=f"{spiffe_id[:200]} is no identity of the policy"
            )
        if form.get("client_id", spiffe_id) != spiffe_id:
            raise _unknown("client_id is another client", reason=f"{spiffe_id} names another client_id")
        return Client(spiffe_id=spiffe_id, service=service, x5t=x5t, source=source_of(request))

    def proof_key(self, request: Request, urls: frozenset[str]) -> str | None:
        """Return the thumbprint of the key of a DPoP proof (RFC 9449 section 5), None when there is none.

        ``urls`` are the names of this endpoint.  Raises OAuthRefusal ``invalid_dpop_proof``.
        """
        try:
            proof = single_header(request, "dpop")
        except OAuthRefusal as error:
            raise OAuthRefusal(OAuthCode.INVALID_DPOP_PROOF, error.description) from error
        if proof is None:
            return None
        refused: TokenError | None = None
        for url in sorted(urls):
            try:
                return verify_dpop(
                    proof, htm=request.method, htu=url, ath=None, now=self._clock.now(), replay=self._replay
                )
            except TokenError as error:
                refused = error
        raise OAuthRefusal(
            OAuthCode.INVALID_DPOP_PROOF,
            "the DPoP proof is not valid",
            reason=None if refused is None else refused.message,
        )

    def _asserted(self, form: dict[str, str]) -> str:
        if form.get("client_assertion_type") != JWT_SPIFFE:
            raise _unknown(f"client_assertion_type is {JWT_SPIFFE}")
        try:
            return self._registry.svid_subject(
                form.get("client_assertion", ""), audiences=self._audiences, now=self._clock.now()
            )
        except (InputError, TrustError) as error:
            raise _unknown("the assertion is not valid", reason=error.message) from error


def _refuse_secrets(request: Request, form: dict[str, str]) -> None:
    """Refuse ways to authenticate that do not exist here."""
    authorization = request.headers.get("authorization")
    if authorization is not None:
        # RFC 6749 section 5.2 wants a challenge of the scheme that was tried.
        scheme = "Basic" if authorization[:6].lower() == "basic " else "Bearer"
        headers = {"www-authenticate": f'{scheme} realm="everyhop"'}
        raise _unknown("clients authenticate by SVID, not by the Authorization header", headers=headers)
    if "client_secret" in form:
        raise _unknown("there are no client secrets")


def _unknown(
    description: str, *, reason: str | None = None, headers: dict[str, str] | None = None
) -> OAuthRefusal:
    return OAuthRefusal(OAuthCode.INVALID_CLIENT, description, reason=reason, headers=headers)
