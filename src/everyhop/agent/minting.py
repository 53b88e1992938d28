# SPDX-License-Identifier: Apache-2.0
"""Access tokens from the server, in batches: whatever is asked for while one request is under way joins the next."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import AccessDenied, EveryhopError, InputError, Unavailable
from everyhop.jose.jws import parse_compact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from everyhop.agent.ports import MintOutcome, TokenMinter
    from everyhop.spiffe.ids import SpiffeId

MAX_BATCH: Final = 256
MAX_WAITING: Final = 4096
MAX_TOKEN_BYTES: Final = 8 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWish:
    """What a token is for.

    ``operation`` set makes the audience ``target#operation``; ``scope`` of None is everything that the policy
    grants there; ``x5t`` is the thumbprint of the caller's certificate (base64url SHA-256).
    """

    spiffe_id: SpiffeId
    target: str
    operation: str | None
    x5t: str
    scope: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceToken:
    """An access token; ``token`` is a secret and never logged, ``expires_at`` is in epoch seconds."""

    token: str = field(repr=False)
    jti: str
    kid: str
    expires_at: int


@dataclass(slots=True, eq=False)
class _Waiting:
    wish: TokenWish
    count: int
    answer: asyncio.Future[tuple[ServiceToken, ...]]


class Minting:
    """One request to the server at a time.  All use is from one event loop."""

    def __init__(self, control: TokenMinter) -> None:
        self._control = control
        self._waiting: list[_Waiting] = []
        self._sending: asyncio.Task[None] | None = None

    async def mint(self, wish: TokenWish, *, count: int = 1) -> tuple[ServiceToken, ...]:
        """Return ``count`` new tokens.

        Raises AccessDenied when the server refuses, Unavailable when it cannot be reached or too many wait.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise Unavailable("too many tokens are being asked for")
        answer: asyncio.Future[tuple[ServiceToken, ...]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(wish, count, answer))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())
        return await answer

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                await self._send([waiting for waiting in batch if not waiting.answer.done()])
        finally:
            self._sending = None
            for waiting in self._waiting:
                waiting.answer.cancel()
            self._waiting.clear()

    async def _send(self, batch: Sequence[_Waiting]) -> None:
        if not batch:
            return
        try:
            outcomes = await self._control.mint([(waiting.wish, waiting.count) for waiting in batch])
            if len(outcomes) != len(batch):
                raise Unavailable("the server answered another number of tokens than asked for")
        except EveryhopError as error:
            outcomes = []
            for waiting in batch:
                _fail(waiting, Unavailable(error.message))
        except BaseException:
            for waiting in batch:
                waiting.answer.cancel()
            raise
        for waiting, outcome in zip(batch, outcomes, strict=False):
            _settle(waiting, outcome)


def _settle(waiting: _Waiting, outcome: MintOutcome) -> None:
    """Hand one outcome to whoever waits for it, if they still do."""
    if outcome.error is not None:
        _fail(waiting, AccessDenied(outcome.error))
        return
    try:
        tokens = tuple(
            ServiceToken(token=t.token, jti=t.jti, kid=_kid(t.token), expires_at=t.expires_at)
            for t in outcome.tokens
        )
    except InputError:
        _fail(waiting, Unavailable("the server's token cannot be read"))
        return
    if len(tokens) != waiting.count:
        _fail(waiting, Unavailable("the server answered another number of tokens than asked for"))
    elif not waiting.answer.done():
        waiting.answer.set_result(tokens)


def _fail(waiting: _Waiting, error: EveryhopError) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)


def _kid(token: str) -> str:
    kid = parse_compact(token, max_bytes=MAX_TOKEN_BYTES).header.get("kid")
    return kid if isinstance(kid, str) else ""
