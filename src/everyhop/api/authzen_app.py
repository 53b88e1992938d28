# SPDX-License-Identifier: Apache-2.0
"""The AuthZEN endpoints (Authorization API 1.0, section 10): one PEP, one question or more, answers or an error text.

A denial is an answer and has status 200.  Errors are 400, 401, 403 and 500 with a text (section 10.1.2); what the
texts say is our own words and never the policy's.  Everything but reading the body happens beside the event loop.
"""

from __future__ import annotations

import logging
import re
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias
from urllib.parse import urlsplit

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from everyhop.api.authzen_clients import NotAuthenticated, Presented
from everyhop.api.oauth_clients import source_of
from everyhop.api.refused_texts import look
from everyhop.authzen import (
    DecisionPoint,
    Json,
    Kind,
    PageTokens,
    answer_evaluation,
    answer_evaluations,
    answer_search,
    check_media_type,
    metadata,
)
from everyhop.authzen.metadata import (
    ACTION_SEARCH_PATH,
    EVALUATION_PATH,
    EVALUATIONS_PATH,
    RESOURCE_SEARCH_PATH,
    SUBJECT_SEARCH_PATH,
    WELL_KNOWN,
)
from everyhop.authzen.parse import MAX_BODY_BYTES
from everyhop.core.errors import AccessDenied, InputError, Unavailable
from everyhop.issuing.errors import ActorBlocked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from everyhop.api.authzen_clients import Peps
    from everyhop.api.oauth_discovery import Endpoints
    from everyhop.api.oauth_endpoints import Refusals
    from everyhop.control.authzen_peps import Pep
    from everyhop.control.shown_credentials import CredentialWatch
    from everyhop.core.clock import Clock
    from everyhop.issuing.ports import Blocks

_log = logging.getLogger(__name__)

_UNAUTHENTICATED: Final = "unauthenticated"
REQUEST_ID: Final = "x-request-id"
_REQUEST_ID_FORM: Final = re.compile(r"[\x20-\x7e]{1,256}", re.ASCII)
_HEADERS: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_CHALLENGE: Final = 'Bearer realm="everyhop", DPoP algs="ES256 RS256 EdDSA"'
_PUBLIC: Final = {**_HEADERS, "cache-control": "public, max-age=300", "access-control-allow-origin": "*"}


class Session(DecisionPoint, Protocol):
    """A decision point as one PEP asks it, for one request."""

    @property
    def forbidden(self) -> int:
        """Return how many questions were asked that this PEP may not ask."""

    def close(self) -> None:
        """Make the record of every decision durable; raises Unavailable or another error when that fails."""


Answering: TypeAlias = "Callable[[Session, bytes], Json]"


class AuthzenDoor:
    """Answers PEPs."""

    def __init__(
        self,
        *,
        peps: Peps,
        sessions: Callable[[Pep], Session],
        tokens: PageTokens,
        refusals: Refusals,
        endpoints: Endpoints,
        names: frozenset[str],
        clock: Clock,
        blocks: Blocks,
        work: Callable[[Callable[[], Response]], Awaitable[Response]],
        watch: CredentialWatch | None = None,
    ) -> None:
        """``names`` are further base URLs under which this PDP is reached; ``work`` runs a call beside the event loop.

        ``watch`` looks at credentials that were refused.
        """
        self._watch = watch
        self._peps = peps
        self._sessions = sessions
        self._tokens = tokens
        self._refusals = refusals
        self._endpoints = endpoints
        self._names = endpoints.urls("") | names
        self._clock = clock
        self._blocks = blocks
        self._work = work

    def routes(self) -> list[Route]:
        """Return the routes: every endpoint at each of its paths, and the metadata."""
        answers: tuple[tuple[str, Answering], ...] = (
            (EVALUATION_PATH, answer_evaluation),
            (EVALUATIONS_PATH, answer_evaluations),
            (SUBJECT_SEARCH_PATH, partial(self._search, Kind.SUBJECT)),
            (RESOURCE_SEARCH_PATH, partial(self._search, Kind.RESOURCE)),
            (ACTION_SEARCH_PATH, partial(self._search, Kind.ACTION)),
        )
        routes = [Route(path, self.metadata) for path in self._endpoints.well_known(WELL_KNOWN)]
        for path, answer in answers:
            endpoint = self._endpoint(path, answer)
            routes += [Route(full, endpoint, methods=["POST"]) for full in self._endpoints.paths(path)]
        return routes

    async def metadata(self, request: Request) -> Response:
        """Tell where the endpoints are, under the very name that was asked (section 9.2.3); a foreign name is 400."""
        prefix = "" if request.scope["path"] == WELL_KNOWN else self._endpoints.prefix
        pdp = f"https://{request.headers.get('host', '').lower()}{prefix}"
        if pdp not in self._names:
            return _refusal(400, "this is not the name of a decision point of ours")
        return Response(msgspec.json.encode(metadata(pdp)), headers=_PUBLIC, media_type="application/json")

    def _search(self, kind: Kind, session: Session, body: bytes) -> Json:
        return answer_search(session, kind, body, tokens=self._tokens, now=self._clock.now())

    def _endpoint(self, path: str, answer: Answering) -> Callable[[Request], Awaitable[Response]]:
        urls = self._endpoints.urls(path) | {name + path for name in self._names}

        async def respond(request: Request) -> Response:
            request_id: str | None = None
            try:
                request_id = _request_id(request)
                body = await _read(request)
                response = await self._work(lambda: self._respond(request, urls, answer, body))
            except InputError as error:
                response = _refusal(400, error.message)
            except Unavailable as error:
                _log.warning("cannot answer", extra={"path": request.scope["path"], "reason": error.message})
                response = _refusal(503, "try again in a moment", {"retry-after": "1"})
            except Exception:  # noqa: BLE001  # whatever it is, its caller is told nothing of it
                _log.exception("unexpected failure", extra={"path": request.scope["path"]})
                response = _refusal(500, "an internal error")
            if request_id is not None:
                response.headers[REQUEST_ID] = request_id
            return response

        return respond

    def _respond(
        self, request: Request, urls: frozenset[str], answer: Answering, body: bytes | None
    ) -> Response:
        """Authenticate, then answer; runs beside the event loop."""
        name: str | None = None
        try:
            pep = self._authenticate(request, urls)
            name = pep.name
            self._refuse_blocked(request, name)
            return self._answer(request, pep, answer, body)
        except NotAuthenticated as error:
            self._note(request, name, _UNAUTHENTICATED, error.message)
            wait = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
            return _refusal(401, "authenticate as a PEP", {"www-authenticate": _CHALLENGE, **wait})
        except ActorBlocked as error:
            self._note(request, name, "blocked", error.message)
            return _refusal(429, "blocked", {"retry-after": str(error.retry_after)})
        except AccessDenied as error:
            self._note(request, name, "access_denied", error.message)
            return _refusal(403, error.message)

    def _authenticate(self, request: Request, urls: frozenset[str]) -> Pep:
        try:
            return self._peps.authenticate(Presented.read(request, urls))
        except InputError:  # shown in a way that is none: whatever it was, it was shown
            look(self._watch, request, "authzen", caller=None, source=source_of(request))
            raise

    def _answer(self, request: Request, pep: Pep, answer: Answering, body: bytes | None) -> Response:
        check_media_type(request.headers.getlist("content-type"))
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise InputError("the body is not encoded")
        if body is None:
            raise InputError(f"the body has at most {MAX_BODY_BYTES} bytes")
        session = self._sessions(pep)
        found = answer(session, body)
        session.close()  # no answer without its record
        if session.forbidden:
            reason = f"{session.forbidden} of the questions are not for this PEP"
            self._note(request, pep.name, "access_denied", reason)
        return Response(msgspec.json.encode(found), headers=_HEADERS, media_type="application/json")

    def _refuse_blocked(self, request: Request, name: str) -> None:
        """Refuse a PEP that is blocked itself, or asks from an address that is."""
        found = self._blocks.actor(self._clock.now(), subject=name, address=source_of(request))
        if found is not None:
            raise ActorBlocked(found.subject, found.retry_after)

    def _note(self, request: Request, caller: str | None, error: str, reason: str) -> None:
        detail = {"endpoint": request.scope["path"][:200], "source": source_of(request) or ""}
        self._refusals.note(caller=caller, error=error, reason=reason, detail=detail)
        if error == _UNAUTHENTICATED:
            look(self._watch, request, "authzen", caller=caller, source=source_of(request))


def _request_id(request: Request) -> str | None:
    """Return the identifier to send back, None without one; raises InputError for what cannot be sent back."""
    values = request.headers.getlist(REQUEST_ID)
    if not values:
        return None
    if len(values) > 1 or not _REQUEST_ID_FORM.fullmatch(values[0]):
        raise InputError("X-Request-ID is one text of 1 to 256 printable ASCII characters")
    return values[0]


async def _read(request: Request) -> bytes | None:
    """Return the body, None when it is too large; the rest of such a body is not read."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


def _refusal(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return Response(
        message, status_code=status, headers={**_HEADERS, **(headers or {})}, media_type="text/plain"
    )


def base_urls(local: str, names: tuple[str, ...]) -> frozenset[str]:
    """Return the base URLs at which a face that listens at ``local`` is reached under further host names."""
    port = urlsplit(local).port
    return frozenset(
        f"https://[{name}]:{port}" if ":" in name else f"https://{name}:{port}" for name in names
    )
