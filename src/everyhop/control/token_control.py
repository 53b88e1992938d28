# SPDX-License-Identifier: Apache-2.0
"""Tokens in the control plane: minting for agents, signing keys, revocation, API keys, and what agents are told.

Every change of keys or revocations is published at once: an agent holds it a moment later.  Changes made by
another process that shares the database are noticed within a quarter of a second.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec

from everyhop.anomaly.canary import CanaryKind
from everyhop.anomaly.finding import Action
from everyhop.control.bounded import within
from everyhop.control.messages import (
    ApiKeyCreated,
    ApiKeyView,
    CanaryCreated,
    CanaryView,
    ExchangeTokenResponse,
    MintedToken,
    MintResult,
    RevokedDocument,
    SigningKeyView,
    TokenTruthDocument,
)
from everyhop.control.shown_credentials import Shown
from everyhop.core.errors import AccessDenied, InputError, TokenError, Unavailable
from everyhop.issuing import (
    ADMIN,
    ExchangeRequest,
    GrantRefused,
    MintRequest,
    OAuthError,
    TokenService,
)
from everyhop.issuing.errors import ActorBlocked
from everyhop.tokens.codes import TokenCode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from concurrent.futures import Executor
    from contextlib import AbstractContextManager

    from everyhop.anomaly.canary import Canary
    from everyhop.apikeys import ApiKeyEntry, ApiKeys
    from everyhop.control.canaries import CanaryControl
    from everyhop.control.feed import Feed
    from everyhop.control.messages import (
        ApiKeyWish,
        CanaryWish,
        ExchangeTokenRequest,
        MintItem,
        RefusedCredential,
        RevokeRequest,
    )
    from everyhop.core.clock import Clock
    from everyhop.issuing import SigningKey, TokenTruth

T = TypeVar("T")
_log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.25
TICK_SECONDS: Final = 1.0
MAX_ITEMS: Final = 256
MAX_COUNT: Final = 64


class Journal(Protocol):
    """Where issues are recorded."""

    def together(self) -> AbstractContextManager[None]:
        """Record what this thread issues inside at once; durable when the block ends, raises Unavailable otherwise."""

    def flush(self) -> int:
        """Write what waits; return how many records that were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWorks:
    """The rooms that this use case stands on."""

    service: TokenService
    api_keys: ApiKeys
    journal: Journal
    canaries: CanaryControl | None = None


class TokenControl:
    """Everything about tokens that agents and the owner ask.  Used from one event loop."""

    def __init__(
        self,
        works: TokenWorks,
        *,
        feed: Feed,
        clock: Clock,
        pool: Executor,
        exchange_pool: Executor,
        effects: Executor,
        publish: Callable[[], Awaitable[None]],
    ) -> None:
        self._w = works
        self._feed = feed
        self._clock = clock
        self._pool = pool
        self._exchange_pool = exchange_pool
        self._effects = effects
        self._publish = publish
        self._rotation_lock = asyncio.Lock()

    @property
    def works(self) -> TokenWorks:
        """Return what the OAuth endpoints are composed of as well; what they change is published soon after."""
        return self._w

    async def _work(self, call: Callable[..., T], /, *args: object, **kwargs: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(call, *args, **kwargs))

    async def _effect(self, call: Callable[..., T], /, *args: object, **kwargs: object) -> T:
        """Do what is recorded before it takes effect: answered in time, or Unavailable."""
        return await within(self._effects, partial(call, *args, **kwargs))

    # -- what verifiers are told

    async def truth(self) -> tuple[bytes, int]:
        """Return the encoded truth and its number."""
        truth = await self._work(self._w.service.truth)
        return msgspec.json.encode(truth_document(truth)), truth.sequence

    # -- for agents

    async def mint(self, agent: str, items: Sequence[MintItem]) -> list[MintResult]:
        """Mint for each item; a refusal touches only its item.  Raises InputError for too many."""
        if len(items) > MAX_ITEMS or not all(0 < item.count <= MAX_COUNT for item in items):
            raise InputError(f"at most {MAX_ITEMS} items of 1 to {MAX_COUNT} tokens")

        def mint_all() -> list[MintResult]:
            with self._w.journal.together():
                return [self._mint(agent, item) for item in items]

        return await self._effect(mint_all)

    def _mint(self, agent: str, item: MintItem) -> MintResult:
        request = MintRequest(
            caller=item.spiffe_id,
            target=item.target,
            operation=item.operation,
            scope=None if item.scope is None else frozenset(item.scope),
            x5t=item.x5t,
        )
        try:
            issued = [self._w.service.mint(request) for _ in range(item.count)]
        except GrantRefused as refusal:
            _log.warning("refused a token", extra={"agent": agent, "reason": refusal.message})
            return MintResult(error=_words(refusal), code=refusal.error)
        return MintResult(
            tokens=[MintedToken(token=i.token, expires_at=i.expires_at, jti=i.jti) for i in issued]
        )

    async def exchange(self, request: ExchangeTokenRequest) -> ExchangeTokenResponse:
        """Exchange for an agent's workload.

        Raises ActorBlocked for one who is blocked, TokenError with its stable code when the subject token is not believed, AccessDenied when the policy
        does not grant what is asked for, InputError for what nobody would be given.  With a ``source`` it is a stranger who is refused, always by a code.
        """
        wanted = ExchangeRequest(
            caller=request.spiffe_id,
            subject_token=request.subject_token,
            subject_token_type=request.subject_token_type,
            requested_token_type=request.requested_token_type,
            target=request.target,
            operation=request.operation,
            scope=None if request.scope is None else frozenset(request.scope),
            x5t=request.x5t,
            source=request.source,
        )
        try:
            # Somebody else's issuer may take longer than our own database may.
            await within(self._effects, self._w.service.sequence)
            loop = asyncio.get_running_loop()
            issued = await loop.run_in_executor(self._exchange_pool, self._w.service.exchange, wanted)
        except ActorBlocked:
            raise
        except GrantRefused as refusal:
            await self._work(self._look, request)
            code = refusal.token_code or (_outside_code(refusal) if request.source is not None else None)
            if code is not None:
                raise TokenError(code, refusal.message) from refusal
            if refusal.error is OAuthError.INVALID_REQUEST:
                raise InputError(refusal.message, hint=refusal.hint) from refusal
            raise
        return ExchangeTokenResponse(
            token=issued.token, issued_token_type=issued.issued_token_type, expires_at=issued.expires_at
        )

    def _look(self, request: ExchangeTokenRequest) -> None:
        """See whether what was refused must never be used; an edge only passes on what a stranger showed."""
        if self._w.canaries is not None:
            is_strangers = request.source is not None
            shown = Shown(
                where="edge" if is_strangers else "exchange",
                caller=None if is_strangers else request.spiffe_id,
                source=request.source,
                target=request.target,
            )
            self._w.canaries.refused([request.subject_token], shown)

    async def look_at(self, items: Sequence[RefusedCredential]) -> None:
        """Look at digests of credentials that the sidecars of an agent refused."""
        canaries = self._w.canaries
        if canaries is None:
            return

        def look_at_all() -> None:
            for item in items:
                shown = Shown(
                    where=item.where,
                    caller=item.caller,
                    source=item.source,
                    target=item.target,
                    decision=item.decision,
                )
                canaries.refused_digests([bytes.fromhex(item.digest)], shown)

        await self._work(look_at_all)

    # -- for the owner: canaries

    async def create_canary(self, wish: CanaryWish) -> CanaryCreated:
        """Make a canary; its text is in the answer and nowhere else.  Raises InputError, Conflict or Unavailable."""
        canaries = self._canaries()
        try:
            kind, response = CanaryKind(wish.kind), Action(wish.response)
        except ValueError as error:
            raise InputError(f"no canary is like that: {error}") from error

        def create() -> CanaryCreated:
            if kind is CanaryKind.SERVICE:
                canary, is_declared = canaries.create_service(name=wish.name, response=response)
                return CanaryCreated(canary=_canary_view(canary), is_declared=is_declared)
            if kind is CanaryKind.SECRET:
                canary, text = canaries.create_secret(name=wish.name, response=response, prefix=wish.prefix)
            else:
                canary, text = canaries.create_key(
                    self._w.api_keys,
                    name=wish.name,
                    response=response,
                    owner=wish.owner,
                    scopes=wish.scopes,
                    environment=wish.environment,
                    life=_seconds(wish.life_seconds),
                )
            lookup = canaries.lookups(self._w.api_keys).get(canary.id)
            return CanaryCreated(canary=_canary_view(canary, lookup), text=text.reveal().decode())

        return await self._work(create)

    async def list_canaries(self) -> list[CanaryView]:
        """Return all, oldest first.  Only for the owner."""
        canaries = self._canaries()

        def read() -> list[CanaryView]:
            lookups = canaries.lookups(self._w.api_keys)
            return [_canary_view(canary, lookups.get(canary.id)) for canary in canaries.list()]

        return await self._work(read)

    async def end_canary(self, canary_id: str) -> CanaryView:
        """End one: its use is still found.  Raises NotFound."""
        canaries = self._canaries()
        ended = await self._work(canaries.end, canary_id, self._w.api_keys)
        await self._publish()
        lookups = await self._work(canaries.lookups, self._w.api_keys)
        return _canary_view(ended, lookups.get(ended.id))

    def _canaries(self) -> CanaryControl:
        if self._w.canaries is None:
            raise Unavailable("this server has no canaries", retry=False)
        return self._w.canaries

    # -- for the owner: tokens

    async def introspect(self, token: str) -> dict[str, Any]:
        """Return what a token says if it is believed now, else ``{"active": false}``."""
        return await self._work(self._w.service.introspect, token, asker=ADMIN)

    async def revoke(self, request: RevokeRequest) -> dict[str, object]:
        """Take back a token, a transaction, or all that a subject had; published when this returns."""
        named = [v for v in (request.token, request.txn, request.subject) if v is not None]
        if len(named) != 1:
            raise InputError("name a token, a transaction or a subject")
        is_known = True
        if request.token is not None:
            is_known = await self._effect(self._w.service.revoke, request.token, asker=ADMIN)
        elif request.txn is not None:
            await self._effect(self._w.service.revoke_transaction, request.txn)
        else:
            await self._effect(self._w.service.revoke_subject, named[0])
        await self._publish()
        return {"revoked": is_known}

    # -- for the owner: signing keys

    async def signing_keys(self) -> list[SigningKeyView]:
        """Return every published signing key, oldest first, without its private half."""
        return [_key_view(key) for key in await self._work(self._w.service.keys.list_keys)]

    async def rotate(self, *, wait_seconds: float, now: bool) -> list[SigningKeyView]:
        """Publish the next signing key; with ``now`` let it sign as soon as every connected agent holds it.

        Otherwise it signs when readers outside have had the time that their caches last, too.  Raises Unavailable,
        with nothing activated, when an agent does not acknowledge in ``wait_seconds``.
        """
        async with self._rotation_lock:
            prepared = await self._effect(self._w.service.keys.prepare)
            await self._publish()
            if not now:
                return await self.signing_keys()
            sequence = prepared.published_sequence
            lagging = await self._feed.wait_applied(lambda r: r.token_sequence >= sequence, wait_seconds)
            if lagging:
                raise Unavailable(
                    f"not activated: {', '.join(lagging)} does not hold the signing key yet",
                    hint="the key stays published; run the command again",
                )
            await self._effect(self._w.service.keys.activate, force=True)
            await self._publish()
            return await self.signing_keys()

    async def revoke_key(self, kid: str) -> list[SigningKeyView]:
        """End a signing key and every token that it signed, now.  Raises NotFound."""
        async with self._rotation_lock:
            await self._effect(self._w.service.keys.revoke, kid)
            await self._publish()
            return await self.signing_keys()

    # -- for the owner: API keys

    async def create_api_key(self, wish: ApiKeyWish) -> ApiKeyCreated:
        """Make a key; its text is in the answer and nowhere else.  Raises InputError beyond the policy."""
        created = await self._effect(
            self._w.api_keys.create,
            owner=wish.owner,
            scopes=wish.scopes,
            environment=wish.environment,
            life=_seconds(wish.life_seconds),
            sources=wish.sources,
        )
        return ApiKeyCreated(key=created.key.reveal().decode(), entry=self._view_of(created.entry))

    async def list_api_keys(self, owner: str | None) -> list[ApiKeyView]:
        """Return the keys, oldest first; none of them can be told from it."""
        await self._work(self._w.api_keys.flush_usage)
        return [self._view_of(entry) for entry in await self._work(self._w.api_keys.list_keys, owner)]

    async def rotate_api_key(self, lookup: str, overlap_seconds: float | None) -> ApiKeyCreated:
        """Make a successor; the key itself ends after the overlap.  Raises NotFound, Conflict, InputError."""
        created = await self._effect(self._w.api_keys.rotate, lookup, overlap=_seconds(overlap_seconds))
        return ApiKeyCreated(key=created.key.reveal().decode(), entry=self._view_of(created.entry))

    async def revoke_api_key(self, lookup: str) -> ApiKeyView:
        """End a key and every token that was made for it, now.  Raises NotFound."""
        entry = await self._effect(self._w.api_keys.revoke, lookup)
        await self._publish()
        return self._view_of(entry)

    def _view_of(self, entry: ApiKeyEntry) -> ApiKeyView:
        return ApiKeyView(
            lookup=entry.lookup,
            environment=entry.environment,
            owner=entry.owner,
            scopes=sorted(entry.scopes),
            sources=[str(network) for network in entry.sources],
            state=entry.state(self._clock.now()),
            created_at=entry.created_at,
            expires_at=entry.expires_at,
            last_used_at=entry.last_used_at,
            replaces=entry.replaces,
            replaced_by=entry.replaced_by,
        )

    # -- the schedule

    async def run_schedule(self) -> None:
        """Take every step of the signing keys' life on time and publish each change, until cancelled."""
        ticked = 0.0
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if loop.time() - ticked >= TICK_SECONDS:
                    ticked = loop.time()
                    await self.tick()
                truth = self._feed.truth
                if truth is not None and await self._work(self._w.service.sequence) != truth.token_sequence:
                    await self._publish()
            except Exception:  # noqa: BLE001  # the schedule must go on, whatever one step met
                _log.exception("a scheduled task of tokens failed; it is tried again")

    async def tick(self) -> None:
        """Take the steps that are due now."""
        async with self._rotation_lock:
            for change in await self._work(self._w.service.keys.tick, self._acknowledged()):
                _log.info("signing key: %s %s", change.action, change.kid)
        await self._work(self._w.journal.flush)
        await self._work(self._w.api_keys.flush_usage)

    def _acknowledged(self) -> int | None:
        """Return the lowest truth that every connected agent holds; None while one has not told."""
        if self._feed.lagging(lambda _: True):
            return None
        held = [report.token_sequence for report in self._feed.reports()]
        return min(held, default=0 if self._feed.truth is None else self._feed.truth.token_sequence)


def truth_document(truth: TokenTruth) -> TokenTruthDocument:
    """Return what is sent to agents."""
    return TokenTruthDocument(
        issuer=truth.issuer,
        trust_domain=truth.trust_domain,
        sequence=truth.sequence,
        jwks=msgspec.Raw(truth.jwks),
        revoked=RevokedDocument(**truth.revocations.to_members()),
    )


def _outside_code(refusal: GrantRefused) -> TokenCode:
    is_scope = refusal.error is OAuthError.INVALID_SCOPE
    return TokenCode.INSUFFICIENT_SCOPE if is_scope else TokenCode.TOKEN_INVALID


def _key_view(key: SigningKey) -> SigningKeyView:
    return SigningKeyView(
        kid=key.kid,
        algorithm=key.algorithm.value,
        state=key.status.value,
        created_at=key.created_at,
        activated_at=key.activated_at,
        retired_at=key.retired_at,
        published_sequence=key.published_sequence,
    )


def _canary_view(canary: Canary, lookup: str | None = None) -> CanaryView:
    return CanaryView(
        id=canary.id,
        kind=canary.kind.value,
        name=canary.name,
        response=canary.response.value,
        state="active" if canary.ended_at is None else "ended",
        created_at=canary.created_at,
        created_by=canary.created_by,
        ended_at=canary.ended_at,
        lookup=lookup,
    )


def _words(refusal: AccessDenied) -> str:
    return refusal.message if refusal.hint is None else f"{refusal.message}; {refusal.hint}"


def _seconds(seconds: float | None) -> timedelta | None:
    if seconds is None:
        return None
    try:
        return timedelta(seconds=seconds)
    except (OverflowError, ValueError) as error:
        raise InputError("not a duration") from error
