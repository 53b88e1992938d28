# SPDX-License-Identifier: Apache-2.0
"""``everyhop.workload.v1.Tokens`` on ``workload.sock``: translation only, as the Workload API beside it.

Who asks is attested by the kernel; what it gets is decided by
:class:`everyhop.control.workload_tokens.WorkloadTokens`.  A token that is not believed is told by its stable
code, which is the first word of the status message.
"""

from __future__ import annotations

from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Final

from everyhop.control.messages import ExchangeTokenRequest
from everyhop.core.errors import InputError, TokenError
from everyhop.wire.rpc import Call, Cardinality, Method
from everyhop.wire.tokens import (
    EXCHANGE,
    MINT,
    WATCH_CONTEXT,
    ContextUpdate,
    ExchangeRequest,
    ExchangeResponse,
    MintRequest,
    MintResponse,
    WatchContextRequest,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from everyhop.control.workload_tokens import WorkloadTokens

_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  # a type


class TokensApi:
    """The methods of the service."""

    def __init__(self, tokens: WorkloadTokens) -> None:
        self._tokens = tokens

    def methods(self) -> list[Method]:
        """Return the methods under their paths."""
        unary, stream = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        return [
            Method(path=MINT, cardinality=unary, request=MintRequest, reply=MintResponse, handler=self.mint),
            Method(
                path=EXCHANGE,
                cardinality=unary,
                request=ExchangeRequest,
                reply=ExchangeResponse,
                handler=self.exchange,
            ),
            Method(
                path=WATCH_CONTEXT,
                cardinality=stream,
                request=WatchContextRequest,
                reply=ContextUpdate,
                handler=self.watch_context,
            ),
        ]

    async def mint(self, call: Call[MintRequest, MintResponse]) -> None:
        """Answer with one access token of the caller."""
        request = await call.receive_only()
        token = await self._tokens.mint(
            call.peer,
            target=request.target,
            operation=request.operation,
            scope=list(request.scope),
            x5t=request.x5t,
            spiffe_id=request.spiffe_id,
        )
        await call.send(MintResponse(token=token.token, expires_at=token.expires_at))

    async def exchange(self, call: Call[ExchangeRequest, ExchangeResponse]) -> None:
        """Answer with a narrower token for one that the caller has received."""
        request = await call.receive_only()
        wanted = ExchangeTokenRequest(
            agent="",
            spiffe_id="",
            subject_token=request.subject_token,
            subject_token_type=request.subject_token_type,
            requested_token_type=request.requested_token_type or _ACCESS_TOKEN,
            target=request.target or None,
            operation=request.operation or None,
            scope=list(request.scope) or None,
            x5t=request.x5t or None,
        )
        with _told():
            answer = await self._tokens.exchange(call.peer, wanted, spiffe_id=request.spiffe_id)
        await call.send(
            ExchangeResponse(
                token=answer.token, issued_token_type=answer.issued_token_type, expires_at=answer.expires_at
            )
        )

    async def watch_context(self, call: Call[WatchContextRequest, ContextUpdate]) -> None:
        """Stream the service context."""
        request = await call.receive_only()
        async with aclosing(self._tokens.watch_context(call.peer, request.spiffe_id)) as watch:
            async for document in watch:
                await call.send(ContextUpdate(document=document))


@contextmanager
def _told() -> Generator[None]:
    """Put the stable code of a refused token in front of the message."""
    try:
        yield
    except TokenError as error:
        raise InputError(f"{error.token_code}: {error.message}") from error
