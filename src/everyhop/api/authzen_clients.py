# SPDX-License-Identifier: Apache-2.0
"""Which PEP asks: by X509-SVID (RFC 8705), by an access token bound to certificate or DPoP key, or by API key.

One way at a time.  A token comes with what it is bound to, and an API key comes alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from everyhop.api.oauth_clients import certificate_of, source_of
from everyhop.api.oauth_errors import OAuthRefusal
from everyhop.apikeys.format import PREFIX
from everyhop.control.authzen_peps import Pep
from everyhop.core.errors import AccessDenied, InputError, TokenError, TrustError
from everyhop.issuing import PDP_AUDIENCE
from everyhop.tokens.dpop import access_token_hash, verify_dpop
from everyhop.tokens.expectation import Expectation

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from everyhop.api.oauth_clients import Certificate
    from everyhop.apikeys import ApiKeyPrincipal
    from everyhop.core.clock import Clock
    from everyhop.tokens.access import AccessToken
    from everyhop.tokens.replay import ReplayGuard

_AUTHORIZATION: Final = re.compile(r"(Bearer|DPoP) ([A-Za-z0-9._~+/=-]{1,8192})", re.IGNORECASE | re.ASCII)


class Tokens(Protocol):
    """The token service, as the audience of a token asks it."""

    def accept(self, token: str, expected: Expectation) -> AccessToken:
        """Return a token that is good for the call; raises TokenError or Unavailable."""


class Keys(Protocol):
    """The API keys.  Blocking."""

    def authenticate(self, presented: str, source: str | None = None) -> ApiKeyPrincipal:
        """Return whose key it is; raises TrustError, or AccessDenied for a source that failed too often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """What came with a request that may tell who asks; nothing of it is believed yet."""

    certificate: Certificate | None
    authorization: tuple[str, ...] = field(repr=False)
    proofs: tuple[str, ...] = field(repr=False)
    source: str | None
    method: str
    urls: frozenset[str]

    @classmethod
    def read(cls, request: Request, urls: frozenset[str]) -> Presented:
        """Read it from a request to the endpoint that has the names ``urls``; raises NotAuthenticated."""
        try:
            certificate = certificate_of(request)
        except OAuthRefusal as error:
            raise NotAuthenticated(error.message) from error
        return cls(
            certificate=certificate,
            authorization=tuple(request.headers.getlist("authorization")),
            proofs=tuple(request.headers.getlist("dpop")),
            source=source_of(request),
            method=request.method,
            urls=urls,
        )


class NotAuthenticated(TrustError):  # noqa: N818  # the name of the outcome, as its peers in core.errors
    """Nobody whom the PDP knows; ``message`` is for the log, ``retry_after`` seconds for a source that is shut out."""

    code = "NOT_AUTHENTICATED"

    def __init__(self, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Peps:
    """Authenticates PEPs.  Blocking: run it on a worker pool."""

    def __init__(
        self,
        *,
        service_of: Callable[[str], str | None],
        tokens: Tokens,
        keys: Keys,
        clock: Clock,
        replay: ReplayGuard,
    ) -> None:
        """``service_of`` names the service of a SPIFFE ID, ``replay`` spends DPoP proofs."""
        self._service_of = service_of
        self._tokens = tokens
        self._keys = keys
        self._clock = clock
        self._replay = replay

    def authenticate(self, shown: Presented) -> Pep:
        """Return who asks.

        Raises NotAuthenticated; InputError for two ways at once, or a header that is there twice.
        """
        if len(shown.authorization) > 1 or len(shown.proofs) > 1:
            raise InputError("a credential header is there twice")
        if not shown.authorization:
            if shown.proofs:
                raise InputError("a DPoP proof comes with a token")
            if shown.certificate is None:
                raise NotAuthenticated("no client certificate and no Authorization header")
            return self._service(shown.certificate.spiffe_id)
        match = _AUTHORIZATION.fullmatch(shown.authorization[0])
        if match is None:
            raise NotAuthenticated("the Authorization header is neither Bearer nor DPoP")
        is_dpop, credential = match[1].lower() == "dpop", match[2]
        if credential.startswith(f"{PREFIX}_"):
            return self._key(credential, shown, is_dpop=is_dpop)
        return self._token(credential, shown, is_dpop=is_dpop)

    def _service(self, spiffe_id: str) -> Pep:
        service = self._service_of(spiffe_id)
        if service is None:
            raise NotAuthenticated(f"{spiffe_id[:200]} is no identity of the policy")
        return Pep(name=spiffe_id, service=service)

    def _key(self, key: str, shown: Presented, *, is_dpop: bool) -> Pep:
        if shown.certificate is not None or shown.proofs or is_dpop:
            raise InputError("an API key comes alone, as a Bearer credential")
        try:
            principal = self._keys.authenticate(key, shown.source)
        except TrustError as error:
            raise NotAuthenticated(error.message) from error
        except AccessDenied as error:
            raise NotAuthenticated(error.message, retry_after=getattr(error, "retry_after", None)) from error
        return Pep(name=principal.subject, scopes=principal.scopes)

    def _token(self, token: str, shown: Presented, *, is_dpop: bool) -> Pep:
        try:
            jkt = self._proof_key(token, shown) if is_dpop else None
            peer, x5t = None, None
            if shown.certificate is not None:
                peer, x5t = shown.certificate.spiffe_id, None if is_dpop else shown.certificate.x5t
            found = self._tokens.accept(
                token, Expectation(audience=PDP_AUDIENCE, peer=peer, x5t=x5t, jkt=jkt)
            )
        except TokenError as error:
            raise NotAuthenticated(f"{error.token_code}: {error.message}") from error
        if found.actors:
            raise NotAuthenticated("the token is on behalf of somebody else")
        return self._service(found.client_id)

    def _proof_key(self, token: str, shown: Presented) -> str:
        """Return the thumbprint of the key of the proof (RFC 9449 section 7.1); raises NotAuthenticated."""
        refused: TokenError | None = None
        for url in sorted(shown.urls) if shown.proofs else ():
            try:
                return verify_dpop(
                    shown.proofs[0],
                    htm=shown.method,
                    htu=url,
                    ath=access_token_hash(token),
                    now=self._clock.now(),
                    replay=self._replay,
                )
            except TokenError as error:
                refused = error
        raise NotAuthenticated("no DPoP proof" if refused is None else f"the DPoP proof: {refused.message}")
