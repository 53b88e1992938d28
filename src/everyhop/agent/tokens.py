# SPDX-License-Identifier: Apache-2.0
"""JWT-SVIDs: fetched once per identity and audience, shared until half of their life is over."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeAlias

from everyhop.agent.model import JwtIdentity
from everyhop.core.errors import InputError, Unavailable
from everyhop.jose.jws import parse_compact

if TYPE_CHECKING:
    from datetime import datetime

    from everyhop.agent.ports import ControlPlane
    from everyhop.core.clock import Clock
    from everyhop.spiffe.bundle import Bundle
    from everyhop.spiffe.ids import SpiffeId

log = logging.getLogger(__name__)

MAX_TOKENS: Final = 4096
MAX_TOKEN_BYTES: Final = 8 * 1024

_Key: TypeAlias = "tuple[SpiffeId, frozenset[str]]"


class TokenCache:
    """A bounded cache of JWT-SVIDs; the least recently used goes first.  All use is from one event loop."""

    def __init__(self, *, control: ControlPlane, clock: Clock, max_tokens: int = MAX_TOKENS) -> None:
        self._control = control
        self._clock = clock
        self._max = max_tokens
        self._tokens: OrderedDict[_Key, JwtIdentity] = OrderedDict()
        self._fetching: dict[_Key, asyncio.Task[JwtIdentity]] = {}

    async def jwt(self, spiffe_id: SpiffeId, audience: tuple[str, ...]) -> JwtIdentity:
        """Return a token for exactly this set of audiences, in the first half of its life if the server answers.

        With the server down, one that is still valid is served until its end.  Raises Unavailable when there
        is none, AccessDenied when the server refuses.
        """
        key = (spiffe_id, frozenset(audience))
        held = self._tokens.get(key)
        now = self._clock.now()
        if held is not None and now < held.issued_at + (held.expires_at - held.issued_at) / 2:
            self._tokens.move_to_end(key)
            return held
        try:
            return await self._fetch(key, audience)
        except Unavailable:
            if held is not None and self._clock.now() < held.expires_at:
                log.warning("server unavailable; the JWT-SVID of %s is served on", spiffe_id)
                return held
            raise

    def keep_only(self, bundle: Bundle) -> None:
        """Drop tokens whose key the bundle no longer holds: nobody would believe them."""
        for key, held in tuple(self._tokens.items()):
            if _key_name(held.token) not in bundle.jwt_authorities:
                del self._tokens[key]

    async def _fetch(self, key: _Key, audience: tuple[str, ...]) -> JwtIdentity:
        """Fetch once for everybody who asks meanwhile; one who stops waiting does not stop the others."""
        task = self._fetching.get(key)
        if task is None:
            task = asyncio.create_task(self._issue(key, audience))
            self._fetching[key] = task
            task.add_done_callback(lambda done: self._fetched(key, done))
        return await asyncio.shield(task)

    def _fetched(self, key: _Key, task: asyncio.Task[JwtIdentity]) -> None:
        self._fetching.pop(key, None)
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody waiting is no news

    async def _issue(self, key: _Key, audience: tuple[str, ...]) -> JwtIdentity:
        result = await self._control.sign_jwt(str(key[0]), audience)
        token = JwtIdentity(
            spiffe_id=key[0], token=result.token, issued_at=result.issued_at, expires_at=result.expires_at
        )
        self._store(key, token, self._clock.now())
        return token

    def _store(self, key: _Key, token: JwtIdentity, now: datetime) -> None:
        self._tokens[key] = token
        self._tokens.move_to_end(key)
        if len(self._tokens) > self._max:
            for old in [k for k, held in self._tokens.items() if held.expires_at <= now]:
                del self._tokens[old]
        while len(self._tokens) > self._max:
            self._tokens.popitem(last=False)

    def __len__(self) -> int:
        return len(self._tokens)


def _key_name(token: str) -> object:
    try:
        return parse_compact(token, max_bytes=MAX_TOKEN_BYTES).header.get("kid")
    except InputError:
        return None
