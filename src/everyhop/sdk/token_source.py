# SPDX-License-Identifier: Apache-2.0
"""Access tokens for the calls of this workload, and tokens exchanged for a user's.

A token is bound to the certificate that carries it.  So a token and the connection it travels on must be of one
certificate: take ``x5t`` from the connection's, or use a new connection after each rotation.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import AccessDenied
from everyhop.core.secret import Secret
from everyhop.policy.model import TokenMode
from everyhop.sdk.clients import CALL_SECONDS, TXN_TOKEN
from everyhop.sdk.feed import result_of
from everyhop.sdk.loops import refuse_own_loop
from everyhop.sdk.targets import find_operation
from everyhop.sdk.token_cache import TokenCache

if TYPE_CHECKING:
    from collections.abc import Collection
    from concurrent.futures import Future

    from everyhop.core.clock import Clock
    from everyhop.sdk.clients import Issued
    from everyhop.sdk.context import ContextSource, TargetOperation
    from everyhop.sdk.feed import Feed
    from everyhop.sdk.sources import X509Source
    from everyhop.spiffe.ids import SpiffeId


@dataclass(frozen=True, slots=True)
class _Key:
    """What makes two tokens one: who, for what, with which certificate."""

    caller: SpiffeId
    target: str
    operation: str | None
    scope: frozenset[str]
    x5t: str


@dataclass(frozen=True, slots=True)
class _ExchangeKey:
    """The same for an exchanged token; the subject's token is known by its digest here."""

    digest: bytes
    kind: str
    requested: str
    target: str | None
    operation: str | None
    scope: frozenset[str]
    caller: SpiffeId
    x5t: str
    subject: Secret = field(compare=False, repr=False)


class TokenSource:
    """Access tokens, minted by the agent, cached here; for threads and for asyncio (the methods with ``a``)."""

    def __init__(self, feed: Feed, x509: X509Source, context: ContextSource, clock: Clock) -> None:
        self._feed: Final = feed
        self._x509: Final = x509
        self._context: Final = context
        self._minted: TokenCache[_Key] = TokenCache(self._mint, clock=clock)
        self._exchanged: TokenCache[_ExchangeKey] = TokenCache(self._exchange, clock=clock)

    # -- access tokens

    def token(
        self,
        target: str,
        operation: str | None = None,
        scope: Collection[str] | None = None,
        *,
        x5t: str | None = None,
    ) -> str:
        """Return an access token for calls of ``target``.

        With ``operation`` its audience is what the policy asks there, and a token for one call only (``once``) is
        never cached.  ``scope`` narrows; by default it is all that the policy grants.  ``x5t`` names the
        certificate of the connection, by default the one in use.  Raises AccessDenied or Unavailable.
        """
        refuse_own_loop(self._feed.runner)
        key, once = self._key(target, operation, scope, x5t)
        if once:
            return _text(result_of(self._mint(key), CALL_SECONDS + 1))
        return self._minted.get(key)

    async def atoken(
        self,
        target: str,
        operation: str | None = None,
        scope: Collection[str] | None = None,
        *,
        x5t: str | None = None,
    ) -> str:
        """Do the same for asyncio."""
        key, once = self._key(target, operation, scope, x5t)
        if once:
            return _text(await asyncio.wrap_future(self._mint(key)))
        return await self._minted.aget(key)

    def for_call(self, target: str, method: str, path: bytes | str, *, x5t: str | None = None) -> str | None:
        """Return the token that a call of ``METHOD path`` needs, or None when the policy asks for none there.

        Raises AccessDenied for a target or an operation that the policy does not open to this workload.
        """
        operation = self.operation(target, method, path)
        if operation.token is TokenMode.NONE:
            return None
        return self.token(target, operation.name, x5t=x5t)

    async def afor_call(
        self, target: str, method: str, path: bytes | str, *, x5t: str | None = None
    ) -> str | None:
        """Do the same for asyncio."""
        operation = self.operation(target, method, path)
        if operation.token is TokenMode.NONE:
            return None
        return await self.atoken(target, operation.name, x5t=x5t)

    def refused(self, token: str) -> None:
        """Forget a token that its receiver has refused, so that the next call brings a fresh one."""
        self._minted.discard(token)

    def operation(self, target: str, method: str, path: bytes | str) -> TargetOperation:
        """Return the operation that a call is; AccessDenied when the policy opens none."""
        known = self._context.context.targets.get(target)
        found = None if known is None else find_operation(known, method, path)
        if found is None:
            raise AccessDenied(
                f"the policy does not let this workload call {method} of {target} there",
                hint="`everyhop can` tells why",
            )
        return found

    # -- exchange

    def exchange(
        self,
        subject_token: str,
        subject_token_type: str = TXN_TOKEN,
        *,
        requested: str = TXN_TOKEN,
        target: str | None = None,
        operation: str | None = None,
        scope: Collection[str] | None = None,
    ) -> str:
        """Return a narrower token for one that was received (RFC 8693), cached by the digest of that token."""
        refuse_own_loop(self._feed.runner)
        return self._exchanged.get(
            self._exchange_key(subject_token, subject_token_type, requested, target, operation, scope)
        )

    async def aexchange(
        self,
        subject_token: str,
        subject_token_type: str = TXN_TOKEN,
        *,
        requested: str = TXN_TOKEN,
        target: str | None = None,
        operation: str | None = None,
        scope: Collection[str] | None = None,
    ) -> str:
        """Do the same for asyncio."""
        return await self._exchanged.aget(
            self._exchange_key(subject_token, subject_token_type, requested, target, operation, scope)
        )

    def on_rotation(self, alive: frozenset[str], current: str | None) -> None:
        """Fetch for the certificate ``current`` what was in use with others; drop what is of none of ``alive``.

        So the first call after a rotation does not wait, and an agent that dies soon after one is not missed.
        """
        if current is not None:
            self._minted.prefetch(lambda key: replace(key, x5t=current))
        self._minted.forget(lambda key: key.x5t not in alive)
        self._exchanged.forget(lambda key: key.x5t not in alive)

    # -- how

    def _key(
        self, target: str, operation: str | None, scope: Collection[str] | None, x5t: str | None
    ) -> tuple[_Key, bool]:
        svid = self._x509.svid
        once = False
        if operation is not None:
            known = self._context.context.targets.get(target)
            for one in () if known is None else known.operations:
                if one.name == operation:
                    once = one.once
                    if one.token is not TokenMode.OPERATION and not once:
                        operation = None  # one token of the service serves all of its operations
                    break
        return _Key(svid.spiffe_id, target, operation, frozenset(scope or ()), x5t or svid.x5t), once

    def _mint(self, key: _Key) -> Future[Issued]:
        return self._feed.submit(
            lambda client: client.mint(
                key.target, operation=key.operation, scope=key.scope, x5t=key.x5t, spiffe_id=key.caller
            )
        )

    def _exchange_key(
        self,
        subject_token: str,
        kind: str,
        requested: str,
        target: str | None,
        operation: str | None,
        scope: Collection[str] | None,
    ) -> _ExchangeKey:
        svid = self._x509.svid
        data = subject_token.encode("ascii")
        return _ExchangeKey(
            hashlib.sha256(data).digest(),
            kind,
            requested,
            target,
            operation,
            frozenset(scope or ()),
            svid.spiffe_id,
            svid.x5t,
            Secret(data),
        )

    def _exchange(self, key: _ExchangeKey) -> Future[Issued]:
        return self._feed.submit(
            lambda client: client.exchange(
                key.subject,
                key.kind,
                requested=key.requested,
                target=key.target,
                operation=key.operation,
                scope=key.scope,
                x5t=key.x5t,
                spiffe_id=key.caller,
            )
        )


def _text(issued: Issued) -> str:
    return issued.token.reveal().decode("ascii")
