# SPDX-License-Identifier: Apache-2.0
"""The agent's side of the link to the server: HTTP on a Unix socket, one long stream for updates."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import httpx
import msgspec

from everyhop.anomaly.looking import BlockedError
from everyhop.anomaly.model import Block, BlockMode, Subject
from everyhop.control.messages import (
    AgentReport,
    ExchangeTokenRequest,
    ExchangeTokenResponse,
    MintItem,
    MintTokensRequest,
    MintTokensResponse,
    Person,
    PseudonymsRequest,
    PseudonymsResponse,
    RecordBatch,
    RecordsAccepted,
    RefusedBatch,
    RefusedCredential,
    SignJwtRequest,
    SignJwtResponse,
    SignX509Item,
    SignX509Request,
    SignX509Response,
    Update,
)
from everyhop.core.errors import AccessDenied, Conflict, EveryhopError, InputError, TokenError, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from everyhop.agent import TokenWish
    from everyhop.auditlog import Record
    from everyhop.auditlog.personal import Wish
    from everyhop.auditlog.sealing import Seal
    from everyhop.control.messages import MintResult, SignX509Result

T = TypeVar("T")
_BASE: Final = "http://server"
_SILENCE_SECONDS: Final = 10.0
_SECONDS: Final = 10.0
RECORDS_SECONDS: Final = 4.0
IDLE_SECONDS: Final = 2.0
"""How long an idle connection is used again; well under what the server keeps it, or a call may meet its closing."""
_BAD_REQUEST: Final = 400
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_CONFLICT: Final = 409
_TOO_MANY: Final = 429


class ControlClient:
    """One agent's client of the server; every failure to reach it is Unavailable."""

    def __init__(self, socket: Path, agent: str) -> None:
        self.agent = agent
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(
                uds=str(socket), limits=httpx.Limits(keepalive_expiry=IDLE_SECONDS)
            ),
            base_url=_BASE,
            timeout=httpx.Timeout(_SECONDS),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._http.aclose()

    async def _post(self, path: str, message: object, kind: type[T], *, seconds: float = _SECONDS) -> T:
        try:
            answer = await self._http.post(path, content=msgspec.json.encode(message), timeout=seconds)
        except httpx.HTTPError as error:
            raise Unavailable(f"the server does not answer: {type(error).__name__}") from error
        if answer.status_code == _TOO_MANY:
            raise _blocked(answer.json())
        if answer.status_code == _FORBIDDEN:
            raise AccessDenied(str(answer.json().get("detail", "refused")))
        if answer.status_code == _CONFLICT:
            raise Conflict(str(answer.json().get("detail", "refused")))
        if answer.status_code == _BAD_REQUEST:
            raise InputError(str(answer.json().get("detail", "refused")))
        if answer.status_code == _UNAUTHORIZED:
            problem = answer.json()
            raise TokenError(
                str(problem.get("token_code", "TOKEN_INVALID")), str(problem.get("detail", "refused"))
            )
        if answer.status_code >= 400:  # noqa: PLR2004  # every HTTP error
            raise Unavailable(f"the server refuses {path}: {answer.status_code} {answer.text[:200]}")
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except msgspec.MsgspecError as error:
            raise Unavailable(f"the server's answer to {path} cannot be read") from error

    async def updates(self) -> AsyncIterator[Update]:
        """Yield each update; the first comes at once.  Raises Unavailable when the stream ends or falls silent."""
        timeout = httpx.Timeout(5.0, read=_SILENCE_SECONDS)
        try:
            async with self._http.stream("GET", f"/v1/updates/{self.agent}", timeout=timeout) as answer:
                if answer.status_code != 200:  # noqa: PLR2004  # HTTP OK
                    raise Unavailable(f"the server refuses the update stream: {answer.status_code}")
                async for line in answer.aiter_lines():
                    yield msgspec.json.decode(line, type=Update)
        except (httpx.HTTPError, msgspec.MsgspecError) as error:
            raise Unavailable(f"the update stream broke: {type(error).__name__}: {error}") from error
        raise Unavailable("the server ended the update stream")

    async def sign_x509(self, requests: list[tuple[str, bytes]]) -> list[SignX509Result]:
        """Ask for one X509-SVID per (SPIFFE ID, CSR in DER); results keep the order."""
        items = [SignX509Item(spiffe_id=spiffe_id, csr=csr) for spiffe_id, csr in requests]
        answer = await self._post(
            "/v1/sign-x509", SignX509Request(agent=self.agent, items=items), SignX509Response
        )
        if len(answer.results) != len(requests):
            raise Unavailable("the server answered another number of SVIDs than asked for")
        return answer.results

    async def sign_jwt(self, spiffe_id: str, audience: tuple[str, ...]) -> SignJwtResponse:
        """Ask for a JWT-SVID; raises AccessDenied when the policy does not know the identity."""
        message = SignJwtRequest(agent=self.agent, spiffe_id=spiffe_id, audience=list(audience))
        return await self._post("/v1/sign-jwt", message, SignJwtResponse)

    async def mint(self, wishes: Sequence[tuple[TokenWish, int]]) -> list[MintResult]:
        """Ask for so many access tokens per wish; results keep the order."""
        items = [
            MintItem(
                spiffe_id=str(wish.spiffe_id),
                target=wish.target,
                operation=wish.operation,
                scope=None if wish.scope is None else sorted(wish.scope),
                x5t=wish.x5t,
                count=count,
            )
            for wish, count in wishes
        ]
        message = MintTokensRequest(agent=self.agent, items=items)
        return (await self._post("/v1/tokens/mint", message, MintTokensResponse)).results

    async def exchange(self, request: ExchangeTokenRequest) -> ExchangeTokenResponse:
        """Exchange a token; raises BlockedError, AccessDenied or TokenError when the server refuses."""
        return await self._post("/v1/tokens/exchange", request, ExchangeTokenResponse)

    async def send_records(
        self, records: list[Record], seal: Seal | None = None, chain: Sequence[bytes] = ()
    ) -> RecordsAccepted:
        """Hand records over; the answer says how far they are durable.

        Raises InputError for a seal that is refused, Conflict when a pseudonym in them is nobody's (any more).
        """
        batch = RecordBatch(agent=self.agent, records=records, seal=seal, chain=list(chain))
        # Short, because a spool is not cut while a part of it is under way; a repeated batch changes nothing.
        return await self._post("/v1/records", batch, RecordsAccepted, seconds=RECORDS_SECONDS)

    async def pseudonyms(self, wanted: Sequence[Wish]) -> list[str]:
        """Ask for pseudonyms, in the order given."""
        persons = [Person(kind=kind, value=value) for kind, value in wanted]
        message = PseudonymsRequest(agent=self.agent, persons=persons)
        found = (await self._post("/v1/pseudonyms", message, PseudonymsResponse)).pseudonyms
        if len(found) != len(persons):
            raise Unavailable("the server gave another number of pseudonyms than asked for")
        return found

    async def refused(self, items: Sequence[RefusedCredential]) -> None:
        """Hand over digests of credentials that sidecars refused."""
        await self._post("/v1/credentials/refused", RefusedBatch(agent=self.agent, items=list(items)), dict)

    async def report(self, report: AgentReport) -> None:
        """Tell what this agent has applied."""
        await self._post("/v1/report", report, dict)


def _blocked(problem: dict[str, Any]) -> EveryhopError:
    """Rebuild what the server says of one who is blocked; it may know it a moment before this agent does."""
    try:
        subject, seconds = Subject.parse(str(problem["blocked"])), max(1, int(problem["retry_after"]))
    except (KeyError, TypeError, ValueError, InputError):
        return Unavailable("the server refuses for now")
    since = datetime.fromtimestamp(0, UTC)
    block = Block(subject=subject, mode=BlockMode.BLOCK, since=since, until=None, reason="", by="server")
    return BlockedError(block, seconds)
