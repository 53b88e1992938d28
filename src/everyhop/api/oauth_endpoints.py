# SPDX-License-Identifier: Apache-2.0
"""The endpoints at which clients ask: token, introspection, revocation.

A request is read first (what it costs is bounded), then its client is authenticated, then it is answered.  Every
refusal is recorded: by the token service where it decides, here where nothing has been asked of it yet.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final, Protocol

from starlette.responses import Response

from everyhop.api.oauth_clients import source_of
from everyhop.api.oauth_discovery import API_KEY, CLIENT_CREDENTIALS, TOKEN_EXCHANGE, TOKEN_PATH
from everyhop.api.oauth_errors import NO_STORE, OAuthCode, OAuthRefusal, error_response, json_response
from everyhop.api.oauth_form import read_form, required
from everyhop.api.oauth_requests import api_key_request, exchange_request, mint_request
from everyhop.api.refused_texts import look
from everyhop.core.errors import Unavailable
from everyhop.issuing.errors import GrantRefused, OAuthError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from everyhop.api.oauth_clients import Client, Clients
    from everyhop.api.oauth_discovery import Endpoints
    from everyhop.control.shown_credentials import CredentialWatch
    from everyhop.core.clock import Clock
    from everyhop.issuing.ports import Blocks
    from everyhop.issuing.requests import ExchangeRequest, Issued, MintRequest

_log = logging.getLogger(__name__)

# RFC 6749 section 5.2: what a description may hold.
_UNFIT: Final = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")
_MAX_DESCRIPTION: Final = 300
_GRANTS: Final = frozenset({CLIENT_CREDENTIALS, TOKEN_EXCHANGE, API_KEY})
# The policy opens nothing there: "unwilling to issue a token for the target" (RFC 8693 section 2.2.2).
_CODES: Final = {OAuthError.ACCESS_DENIED: OAuthCode.INVALID_TARGET}


class Tokens(Protocol):
    """The token service (:class:`everyhop.issuing.TokenService`).  Blocking; it records what it refuses."""

    def mint(self, request: MintRequest) -> Issued:
        """Return an access token for the caller itself; raises GrantRefused or Unavailable."""

    def exchange(self, request: ExchangeRequest) -> Issued:
        """Return a narrower token for one that the caller received; raises GrantRefused or Unavailable."""

    def introspect(self, token: str, *, asker: str) -> dict[str, Any]:
        """Return what a token says to those whom it concerns."""

    def revoke(self, token: str, *, asker: str) -> bool:
        """Take a token back; raises GrantRefused for somebody else's."""


class Refusals(Protocol):
    """Where refusals are recorded that the token service has not seen."""

    def note(self, *, caller: str | None, error: str, reason: str, detail: dict[str, str]) -> None:
        """Record one; ``caller`` None means nobody who could be told."""


class OAuthEndpoints:
    """Token, introspection and revocation endpoint."""

    def __init__(
        self,
        *,
        tokens: Tokens,
        clients: Clients,
        refusals: Refusals,
        endpoints: Endpoints,
        trust_domain: str,
        work: Callable[[Callable[[], Response]], Awaitable[Response]],
        work_long: Callable[[Callable[[], Response]], Awaitable[Response]],
        blocks: Blocks,
        clock: Clock,
        watch: CredentialWatch | None = None,
    ) -> None:
        """``work`` runs a blocking call beside the event loop, ``work_long`` one that may wait for others.

        Who is among ``blocks``, or comes from there, is answered nothing else.  ``watch`` looks at credentials that
        were refused.
        """
        self._blocks = blocks
        self._clock = clock
        self._watch = watch
        self._tokens = tokens
        self._clients = clients
        self._refusals = refusals
        self._urls = endpoints.urls(TOKEN_PATH)
        self._trust_domain = trust_domain
        self._work = work
        self._work_long = work_long

    async def token(self, request: Request) -> Response:
        """Answer a token request (RFC 6749 section 3.2)."""
        return await self._answer(request, self._token)

    async def introspect(self, request: Request) -> Response:
        """Say whether a token is active, and to whom it concerns what it says (RFC 7662)."""
        return await self._answer(request, self._introspect)

    async def revoke(self, request: Request) -> Response:
        """Take a token back (RFC 7009)."""
        return await self._answer(request, self._revoke)

    async def _answer(
        self, request: Request, answer: Callable[[Request, dict[str, str], list[Client]], Response]
    ) -> Response:
        known: list[Client] = []  # who asks, once that is established
        form: dict[str, str] = {}
        try:
            form = await read_form(request)
            is_long = form.get("grant_type", CLIENT_CREDENTIALS) != CLIENT_CREDENTIALS
            work = self._work_long if is_long else self._work
            return await work(lambda: answer(request, form, known))
        except GrantRefused as refused:
            await self._work(lambda: self._look(request, form, known))
            return error_response(_as_refusal(refused))
        except OAuthRefusal as refused:
            refusal = refused
        except Unavailable as error:
            _log.warning("cannot answer", extra={"path": request.url.path, "reason": error.message})
            return error_response(_unavailable())
        except Exception:  # noqa: BLE001  # whatever it is, its caller is a stranger
            _log.exception("unexpected failure", extra={"path": request.url.path})
            return error_response(OAuthRefusal(OAuthCode.SERVER_ERROR, "an internal error"))
        await self._work(lambda: self._note(request, refusal, known))
        await self._work(lambda: self._look(request, form, known))
        return error_response(refusal)

    def _note(self, request: Request, refusal: OAuthRefusal, known: list[Client]) -> Response:
        detail = {"endpoint": request.url.path, "source": source_of(request) or ""}
        caller = known[0].spiffe_id if known else None
        self._refusals.note(caller=caller, error=refusal.error.value, reason=refusal.message, detail=detail)
        return Response()

    def _look(self, request: Request, form: dict[str, str], known: list[Client]) -> Response:
        caller = known[0].spiffe_id if known else None
        look(self._watch, request, "oauth", caller=caller, source=source_of(request), form=form)
        return Response()

    # -- each endpoint, beside the event loop

    def _token(self, request: Request, form: dict[str, str], known: list[Client]) -> Response:
        grant = required(form, "grant_type")
        if grant not in _GRANTS:
            raise OAuthRefusal(OAuthCode.UNSUPPORTED_GRANT_TYPE, "this grant is not supported")
        client = self._authenticated(request, form, known)
        client = self._bound(request, client)
        service_of = self._clients.service_of
        if grant == CLIENT_CREDENTIALS:
            return _issued(self._tokens.mint(mint_request(form, client, service_of)))
        if grant == TOKEN_EXCHANGE:
            exchange = exchange_request(form, client, service_of, trust_domain=self._trust_domain)
        else:
            exchange = api_key_request(form, client, trust_domain=self._trust_domain)
        return _issued(self._tokens.exchange(exchange), is_exchange=True)

    def _authenticated(self, request: Request, form: dict[str, str], known: list[Client]) -> Client:
        """Return who asks, unless that one is blocked; a blocked address is not even asked who it is."""
        now = self._clock.now()
        found = self._blocks.actor(now, address=source_of(request))
        if found is None:
            client = self._clients.authenticate(request, form)
            known.append(client)
            found = self._blocks.actor(now, identity=client.spiffe_id)
            if found is None:
                return client
        raise OAuthRefusal(
            OAuthCode.TEMPORARILY_UNAVAILABLE,
            "blocked",
            status=429,
            headers={"retry-after": str(found.retry_after)},
        )

    def _bound(self, request: Request, client: Client) -> Client:
        """Return the client with what its token is bound to: the key of its proof, else its certificate.

        A client without a certificate has shown a token that whoever stole it can show; so it proves a key.
        """
        jkt = self._clients.proof_key(request, self._urls)
        if jkt is not None:
            return client.bound_to_key(jkt)
        if client.x5t is None:
            raise OAuthRefusal(
                OAuthCode.INVALID_DPOP_PROOF, "a client without a certificate sends a DPoP proof"
            )
        return client

    def _introspect(self, request: Request, form: dict[str, str], known: list[Client]) -> Response:
        self._authenticated(request, form, known)
        found = self._tokens.introspect(required(form, "token"), asker=known[0].spiffe_id)
        if not found.get("active"):
            self._look(request, form, known)
        return json_response(found)

    def _revoke(self, request: Request, form: dict[str, str], known: list[Client]) -> Response:
        self._authenticated(request, form, known)
        if not self._tokens.revoke(required(form, "token"), asker=known[0].spiffe_id):
            self._look(request, form, known)
        return Response(status_code=200, headers=NO_STORE)


def _issued(issued: Issued, *, is_exchange: bool = False) -> Response:
    """Return the answer of RFC 6749 section 5.1; an exchange tells what it gave (RFC 8693 section 2.2.1)."""
    body: dict[str, object] = {
        "access_token": issued.token,
        "token_type": issued.token_type,
        "expires_in": issued.expires_in,
        "scope": " ".join(sorted(issued.scope)),
    }
    if is_exchange:
        body["issued_token_type"] = issued.issued_token_type.value
    return json_response(body)


def _as_refusal(refused: GrantRefused) -> OAuthRefusal:
    """Return a refusal of the token service as the standards spell it."""
    code = _CODES.get(refused.error) or OAuthCode(refused.error.value)
    words = f"{refused.message}; {refused.hint}" if refused.hint else refused.message
    headers = {} if refused.retry_after is None else {"retry-after": str(refused.retry_after)}
    return OAuthRefusal(
        code, _UNFIT.sub("?", words)[:_MAX_DESCRIPTION], status=refused.status, headers=headers
    )


def _unavailable() -> OAuthRefusal:
    return OAuthRefusal(
        OAuthCode.TEMPORARILY_UNAVAILABLE, "try again in a moment", headers={"retry-after": "1"}
    )
