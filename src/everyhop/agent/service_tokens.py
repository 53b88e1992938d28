# SPDX-License-Identifier: Apache-2.0
"""Service tokens held ready: every audience that the policy names, bound to the certificate in use.

A token is bound to one certificate (``cnf.x5t#S256``), so each new certificate needs tokens of its own, and
they must be there *before* anybody shows the new certificate.  :meth:`ServiceTokens.generation` names the
identity to show: the newest whose tokens are all there.  Until then, and for a while after, the tokens of
the one before are kept fresh too, for its connections are still open.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from everyhop.agent.minting import Minting, ServiceToken, TokenWish
from everyhop.agent.once import OnceStock
from everyhop.core.errors import AccessDenied, EveryhopError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from everyhop.agent.changes import Changes
    from everyhop.agent.identities import IdentityCache
    from everyhop.agent.model import X509Identity
    from everyhop.agent.ports import TokenMinter
    from everyhop.core.clock import Clock, Entropy
    from everyhop.spiffe.ids import SpiffeId

log = logging.getLogger(__name__)

USED_LIFE: Final = 0.8
LAST_SECONDS: Final = timedelta(seconds=30)
JITTER: Final = 0.1  # of the time until renewal, earlier only: a node's tokens do not all fall due at once
LINGER: Final = timedelta(seconds=60)
MAX_GENERATIONS: Final = 4
MAX_ENTRIES: Final = 8192
FIRST_RETRY: Final = timedelta(milliseconds=250)
LAST_RETRY: Final = timedelta(seconds=15)
MAX_WAIT_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """A token that a service needs: its audience, and the operations that the policy grants there now.

    When ``grants`` changes the token is fetched anew; what it opens is decided by the server.
    """

    target: str
    operation: str | None
    grants: frozenset[str]


@dataclass(slots=True, eq=False)
class _Entry:
    grants: frozenset[str] | None = None
    held: ServiceToken | None = None
    renew_at: datetime | None = None
    retry_at: datetime | None = None
    failures: int = 0
    refused: str | None = None
    fetching: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Generation:
    identity: X509Identity
    outdated_at: datetime | None = None


class ServiceTokens:
    """Access tokens by caller, audience and certificate.

    All use is from one event loop.  :meth:`run` does the work; every new token bumps ``changes``.
    """

    def __init__(
        self,
        *,
        control: TokenMinter,
        identities: IdentityCache,
        clock: Clock,
        entropy: Entropy,
        changes: Changes,
    ) -> None:
        self._identities = identities
        self._clock = clock
        self._entropy = entropy
        self._changes = changes
        self._minting = Minting(control)
        self._stock = OnceStock(minting=self._minting, clock=clock)
        self._needs: dict[SpiffeId, frozenset[Audience]] = {}
        self._generations: dict[SpiffeId, list[_Generation]] = {}
        self._entries: OrderedDict[TokenWish, _Entry] = OrderedDict()

    # -- what callers ask

    def need(self, needs: Mapping[SpiffeId, frozenset[Audience]]) -> None:
        """Hold exactly these tokens ready from now on, for every certificate in use of each caller."""
        if needs != self._needs:
            self._needs = dict(needs)
            self._changes.bump()

    def generation(self, spiffe_id: SpiffeId) -> X509Identity | None:
        """Return the identity to show: the newest valid one whose tokens are there (or refused for good).

        While there is none such, the oldest valid one, which is the one that is in use.
        """
        valid = [g for g in self._generations.get(spiffe_id, ()) if g.identity.expires_at > self._clock.now()]
        if not valid:
            return self._identities.current(spiffe_id)
        settled = (g.identity for g in reversed(valid) if self._is_settled(spiffe_id, g.identity.x5t))
        return next(settled, valid[0].identity)

    def certificate_of(self, spiffe_id: SpiffeId, start: str) -> str | None:
        """Return the thumbprint in use that begins with ``start``, newest first; None when there is none."""
        known = [g.identity for g in reversed(self._generations.get(spiffe_id, ()))]
        current = self._identities.current(spiffe_id)
        now = self._clock.now()
        return next(
            (
                identity.x5t
                for identity in (current, *known)
                if identity is not None and identity.expires_at > now and identity.x5t.startswith(start)
            ),
            None,
        )

    def token_for(self, spiffe_id: SpiffeId, target: str, operation: str | None, x5t: str) -> str | None:
        """Return the token that is held for a certificate, None while there is none; never waits."""
        wish = TokenWish(spiffe_id=spiffe_id, target=target, operation=operation, x5t=x5t)
        held = self._valid(self._entries.get(wish))
        return None if held is None else held.token

    async def token(self, wish: TokenWish) -> ServiceToken:
        """Return a token that is not near its end if the server answers; one that is still valid otherwise.

        Raises AccessDenied when the server refuses, Unavailable when it cannot be reached and none is held.
        """
        entry = self._entry(wish)
        held = self._valid(entry)
        if held is not None and entry.renew_at is not None and self._clock.now() < entry.renew_at:
            return held
        await asyncio.shield(self._fetch(wish, entry))
        held = self._valid(entry)
        if held is not None:
            return held
        if entry.refused is not None:
            raise AccessDenied(entry.refused)
        raise Unavailable("no token can be had now: the server does not answer")

    async def fresh(self, wish: TokenWish) -> ServiceToken:
        """Return a new token, whatever is held; raises as :meth:`token`."""
        (token,) = await self._minting.mint(wish)
        return token

    async def once(self, wish: TokenWish) -> ServiceToken:
        """Return a fresh token that nobody else gets; raises as :meth:`token`."""
        return await self._stock.take(wish)

    def drop(self, is_bad: Callable[[ServiceToken], bool]) -> None:
        """Forget tokens that nobody would believe (revoked, or of a key that is gone); fetch others at once."""
        self._stock.drop(is_bad)
        for entry in self._entries.values():
            if entry.held is not None and is_bad(entry.held):
                entry.held, entry.renew_at, entry.retry_at = None, None, None
        self._changes.bump()

    def retry_now(self) -> None:
        """Forget back-offs, e.g. because the server can be reached again or the policy is another."""
        for entry in self._entries.values():
            entry.retry_at = entry.refused = None
        self._changes.bump()

    # -- the work

    async def run(self) -> None:
        """Keep what is needed fresh, until cancelled."""
        try:
            while True:
                version = self._changes.version
                self.refresh_due()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._seconds_until_due()):
                        await self._changes.beyond(version)
        finally:
            for entry in self._entries.values():
                if entry.fetching is not None:
                    entry.fetching.cancel()

    def refresh_due(self) -> None:
        """Look at the certificates in use and start to fetch every token that is due."""
        now = self._clock.now()
        self._follow_identities(now)
        wanted = self._wanted()
        for wish, grants in wanted.items():
            entry = self._entry(wish)
            if entry.grants != grants:
                entry.renew_at = entry.retry_at = entry.refused = None
                entry.grants = grants
            if entry.fetching is None and _is_due(entry, now):
                self._fetch(wish, entry)
        self._forget(wanted)

    def _follow_identities(self, now: datetime) -> None:
        """Note new certificates; let go of those before once the new one's tokens have been there for a while."""
        for spiffe_id in self._needs:
            known = self._generations.setdefault(spiffe_id, [])
            current = self._identities.current(spiffe_id)
            if current is not None and all(g.identity.x5t != current.x5t for g in known):
                known.append(_Generation(identity=current))
            if known and self._is_settled(spiffe_id, known[-1].identity.x5t):
                known[:-1] = [g if g.outdated_at else replace(g, outdated_at=now) for g in known[:-1]]
            self._generations[spiffe_id] = [
                g
                for g in known
                if g.identity.expires_at > now and (g.outdated_at is None or now < g.outdated_at + LINGER)
            ][-MAX_GENERATIONS:]
        for spiffe_id in self._generations.keys() - self._needs.keys():
            del self._generations[spiffe_id]

    def _wanted(self) -> dict[TokenWish, frozenset[str]]:
        return {
            TokenWish(
                spiffe_id=spiffe_id, target=need.target, operation=need.operation, x5t=g.identity.x5t
            ): need.grants
            for spiffe_id, needs in self._needs.items()
            for g in self._generations.get(spiffe_id, ())
            for need in needs
        }

    def _is_settled(self, spiffe_id: SpiffeId, x5t: str) -> bool:
        for need in self._needs.get(spiffe_id, ()):
            wish = TokenWish(spiffe_id=spiffe_id, target=need.target, operation=need.operation, x5t=x5t)
            entry = self._entries.get(wish)
            if self._valid(entry) is None and (entry is None or entry.refused is None):
                return False
        return True

    def _entry(self, wish: TokenWish) -> _Entry:
        entry = self._entries.setdefault(wish, _Entry())
        self._entries.move_to_end(wish)
        return entry

    def _valid(self, entry: _Entry | None) -> ServiceToken | None:
        if entry is None or entry.held is None or entry.held.expires_at <= self._clock.now().timestamp():
            return None
        return entry.held

    def _fetch(self, wish: TokenWish, entry: _Entry) -> asyncio.Task[None]:
        """Fetch once for everybody who asks meanwhile."""
        if entry.fetching is None:
            entry.fetching = asyncio.create_task(self._fetch_now(wish, entry))
        return entry.fetching

    async def _fetch_now(self, wish: TokenWish, entry: _Entry) -> None:
        grants = entry.grants
        try:
            (token,) = await self._minting.mint(wish)
        except EveryhopError as error:
            if entry.failures == 0:  # the same trouble again is not news
                log.warning("no token for %s: %s", wish.target, error.message)
            entry.refused = error.message if isinstance(error, AccessDenied) else None
            wait = min(FIRST_RETRY * 2 ** min(entry.failures, 10), LAST_RETRY)
            entry.failures += 1
            entry.retry_at = self._clock.now() + wait * (1 + self._entropy.fraction()) / 2
        else:
            entry.held, entry.refused, entry.failures, entry.retry_at = token, None, 0, None
            entry.renew_at = self._renewal(token) if entry.grants == grants else None
        finally:
            entry.fetching = None
            self._changes.bump()

    def _renewal(self, token: ServiceToken) -> datetime:
        now = self._clock.now()
        life = max(datetime.fromtimestamp(token.expires_at, UTC) - now, timedelta())
        wait = max(min(life * USED_LIFE, life - LAST_SECONDS), life / 2)
        return now + wait * (1 - JITTER * self._entropy.fraction())

    def _forget(self, wanted: Mapping[TokenWish, frozenset[str]]) -> None:
        """Drop tokens that nobody needs: expired ones, and of those asked for singly the least recent."""
        in_use = {identity.x5t for identity in self._identities.held()}
        self._stock.keep_only(in_use | {wish.x5t for wish in wanted})
        spare = [wish for wish, entry in self._entries.items() if wish not in wanted and not entry.fetching]
        surplus = max(0, len(self._entries) - MAX_ENTRIES)
        for index, wish in enumerate(spare):
            if index < surplus or self._valid(self._entries[wish]) is None:
                del self._entries[wish]

    def _seconds_until_due(self) -> float:
        now = self._clock.now()
        waits = [MAX_WAIT_SECONDS]
        for wish in self._wanted():
            entry = self._entries.get(wish)
            if entry is None or entry.fetching is not None:
                continue
            moment = entry.retry_at or entry.renew_at or now
            waits.append((moment - now).total_seconds())
        return max(0.0, min(waits))


def _is_due(entry: _Entry, now: datetime) -> bool:
    if entry.retry_at is not None and now < entry.retry_at:
        return False
    return entry.held is None or entry.renew_at is None or now >= entry.renew_at
