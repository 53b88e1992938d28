# SPDX-License-Identifier: Apache-2.0
"""API keys: made, listed, rotated, ended, and recognised.

Only a MAC of each key is stored, under a pepper that the key store wraps: neither the database nor the key store alone
can tell a key.  A fast MAC is right here, since the secrets have 190 random bits.  Methods block on the store.
"""

from __future__ import annotations

import hmac
import logging
import threading
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Final

from everyhop.apikeys.format import ParsedKey, make_key, parse_key
from everyhop.apikeys.model import (
    MAC_BYTES,
    ApiKeyEntry,
    ApiKeyPrincipal,
    ApiKeyRefused,
    ApiKeySettings,
    CreatedKey,
    Network,
    Pepper,
    TooManyFailures,
)
from everyhop.apikeys.ports import (
    ApiKeyEvent,
    ApiKeyStore,
    ApiKeyTransaction,
    CanaryMarks,
    EdgeScopes,
    KeyStore,
)
from everyhop.apikeys.throttle import FailureThrottle, source_name
from everyhop.core.clock import Clock, Entropy
from everyhop.core.errors import Conflict, InputError, NotFound
from everyhop.core.secret import Secret

_log = logging.getLogger(__name__)

PURPOSE: Final = "apikeys/pepper"
MAX_OWNER: Final = 200
MAX_SCOPES: Final = 256
MAX_NETWORKS: Final = 64
_PEPPER_BYTES: Final = 32
_PEPPER_ID_BYTES: Final = 8
_TOKENS_LIVE: Final = timedelta(
    hours=2
)  # twice the longest life of a token: nothing made for the key is left then
_DUMMY_MAC: Final = bytes(MAC_BYTES)


class ApiKeys:
    """The API keys of one trust domain.  Safe to share between threads."""

    def __init__(
        self,
        *,
        store: ApiKeyStore,
        keystore: KeyStore,
        edge_scopes: EdgeScopes,
        clock: Clock,
        entropy: Entropy,
        settings: ApiKeySettings | None = None,
        canaries: CanaryMarks | None = None,
    ) -> None:
        self._canaries = canaries
        self.settings = settings or ApiKeySettings()
        self._store = store
        self._keystore = keystore
        self._edge_scopes = edge_scopes
        self._clock = clock
        self._entropy = entropy
        self._throttle = FailureThrottle(
            failures=self.settings.failures,
            window=self.settings.window,
            max_sources=self.settings.max_sources,
        )
        self._lock = threading.Lock()
        self._peppers: dict[str, Secret] = {}
        self._newest_pepper: str | None = None
        self._used: dict[str, datetime] = {}

    # --- recognising ---------------------------------------------------------------------------------------------

    def authenticate(self, presented: str, source: str | None = None) -> ApiKeyPrincipal:
        """Return whose key ``presented`` is; ``source`` is the IP address that it came from.

        Raises ApiKeyRefused, with one message for every reason, or TooManyFailures.  A text without a right checksum
        costs no look-up; every other one costs exactly one look-up and one MAC, whether the key exists, is over, or is
        false, and all conditions are judged before the answer.
        """
        now = self._clock.now()
        counted = source_name(source)
        wait = self._throttle.retry_after(counted, now)
        if wait:
            raise TooManyFailures(wait)
        try:
            principal = self._judge(presented, source, now)
        except ApiKeyRefused as error:
            if self._throttle.note_failure(counted, now):
                _log.warning("a source is shut out after failed API keys", extra={"source": counted})
            error.add_note(error.reason)
            raise
        with self._lock:
            self._used[principal.lookup] = now
        return principal

    def _judge(self, presented: str, source: str | None, now: datetime) -> ApiKeyPrincipal:
        try:
            parsed = parse_key(presented)
        except InputError:
            raise ApiKeyRefused("malformed") from None
        entry = self._store.find(parsed.lookup)
        stored = _DUMMY_MAC if entry is None else entry.mac
        mac = self._mac(parsed.secret, None if entry is None else entry.pepper)
        is_same = hmac.compare_digest(mac, stored)
        opened = self._edge_scopes()
        scopes = frozenset() if entry is None else entry.scopes & opened
        is_canary = self._canaries is not None and self._canaries.is_canary(presented)
        failures = [
            reason
            for reason, is_failure in (
                ("unknown", entry is None),
                ("false secret", not is_same),
                ("revoked", entry is not None and entry.revoked_at is not None),
                # A key that must never be used opens nothing; whoever reads the reason learns no more from it.
                ("disabled", is_canary or (entry is not None and not entry.enabled)),
                ("expired", entry is not None and now >= entry.expires_at),
                ("source", not _is_from(source, () if entry is None else entry.sources)),
                ("no scope is left", not scopes),
            )
            if is_failure
        ]
        if entry is None or failures:
            raise ApiKeyRefused(failures[0], lookup=parsed.lookup)
        return ApiKeyPrincipal(
            lookup=entry.lookup,
            owner=entry.owner,
            environment=entry.environment,
            kind=entry.kind,
            scopes=scopes,
            expires_at=entry.expires_at,
        )

    def flush_usage(self) -> int:
        """Write down when keys were last used; call it every few seconds.  Returns how many keys that were."""
        with self._lock:
            used, self._used = self._used, {}
        if used:
            self._store.touch(used)
        return len(used)

    # --- keeping -------------------------------------------------------------------------------------------------

    def create(
        self,
        *,
        owner: str,
        scopes: Collection[str],
        environment: str = "live",
        kind: str = "key",
        life: timedelta | None = None,
        sources: Sequence[str] = (),
        by: str = "admin",
        is_canary: bool = False,
    ) -> CreatedKey:
        """Make a key; its text is in the answer and nowhere else.  ``is_canary`` is for ``control.canaries`` alone.

        ``scopes`` are ``service.operation`` that the policy opens to the outside, ``sources`` networks such as
        ``203.0.113.0/24``.  Raises InputError for anything else, a life over the longest, or no owner; Conflict when
        there are too many keys.
        """
        now = self._clock.now()
        wanted = self._checked_scopes(scopes)
        networks = _networks(sources)
        if not 0 < len(owner.strip()) <= MAX_OWNER or not owner.isprintable():
            raise InputError(f"an API key has an owner of 1 to {MAX_OWNER} printable characters")
        expires_at = now + self._checked_life(life)
        with self._store.transaction() as tx:
            if tx.count() >= self.settings.max_keys:
                raise Conflict(f"there are {self.settings.max_keys} API keys already")
            created = self._insert(
                tx,
                environment,
                kind,
                owner=owner.strip(),
                scopes=wanted,
                sources=networks,
                created_at=now,
                expires_at=expires_at,
            )
            tx.record(self._created("create", created.entry, now, by, is_canary=is_canary))
        return created

    def list_keys(self, owner: str | None = None) -> tuple[ApiKeyEntry, ...]:
        """Return the keys, or those of one owner, oldest first; none of them can be told from it."""
        return self._store.list(owner)

    def rotate(
        self,
        lookup: str,
        *,
        overlap: timedelta | None = None,
        life: timedelta | None = None,
        by: str = "admin",
    ) -> CreatedKey:
        """Make a successor with the same rights; the key itself goes on for ``overlap`` and then ends.

        The successor lives as long as the key was meant to, unless ``life`` says otherwise.  Raises NotFound; Conflict
        for a key that is over, or was rotated already; InputError for an overlap that is negative or over the life.
        """
        now = self._clock.now()
        overlap = self.settings.overlap if overlap is None else overlap
        if not timedelta(0) <= overlap <= self.settings.longest_life:
            raise InputError("the overlap of a rotation is between nothing and the longest life of a key")
        with self._store.transaction() as tx:
            old = _found(tx, lookup)
            if old.state(now) != "active":
                raise Conflict(f"the API key {lookup} is {old.state(now)}", hint="create a new one")
            if old.replaced_by is not None:
                raise Conflict(
                    f"the API key {lookup} was rotated already",
                    hint=f"rotate its successor {old.replaced_by}",
                )
            lived = old.expires_at - old.created_at
            new_life = self._checked_life(min(lived, self.settings.longest_life) if life is None else life)
            created = self._insert(
                tx,
                old.environment,
                old.kind,
                owner=old.owner,
                scopes=old.scopes,
                sources=old.sources,
                created_at=now,
                expires_at=now + new_life,
                replaces=old.lookup,
            )
            ended = replace(old, expires_at=min(old.expires_at, now + overlap))
            tx.update(ended)
            event = self._created("rotate", created.entry, now, by)
            event.detail.update(replaces=old.lookup, old_until=ended.expires_at.isoformat())
            tx.record(event)
        return created

    def revoke(self, lookup: str, *, by: str = "admin") -> ApiKeyEntry:
        """End a key, and every token that was made for it, at once; doing it again changes nothing.  Raises NotFound."""
        now = self._clock.now()
        with self._store.transaction() as tx:
            entry = _found(tx, lookup)
            if entry.revoked_at is None:
                entry = replace(entry, revoked_at=now)
                self._end(tx, entry, now, "revoke", by)
        return entry

    def set_enabled(self, lookup: str, *, enabled: bool, by: str = "admin") -> ApiKeyEntry:
        """Switch a key off, with every token that was made for it, or on again.  Raises NotFound."""
        now = self._clock.now()
        with self._store.transaction() as tx:
            entry = _found(tx, lookup)
            if entry.enabled == enabled:
                return entry
            entry = replace(entry, enabled=enabled)
            if enabled:
                tx.update(entry)
                tx.record(_event("enable", entry, now, by))
            else:
                self._end(tx, entry, now, "disable", by)
        return entry

    def _created(
        self, action: str, entry: ApiKeyEntry, now: datetime, by: str, *, is_canary: bool = False
    ) -> ApiKeyEvent:
        """Return the record of a new key; whether it is a canary stands there for those who can open it."""
        event = _event(action, entry, now, by)
        if self._canaries is not None:
            event.detail["commitment"] = self._canaries.commitment(entry.lookup, is_canary=is_canary)
        return event

    def _end(self, tx: ApiKeyTransaction, entry: ApiKeyEntry, now: datetime, action: str, by: str) -> None:
        tx.update(entry)
        tx.revoke_subject(f"apikey:{entry.lookup}", by=by, at=now, until=now + _TOKENS_LIVE)
        tx.advance()
        tx.record(_event(action, entry, now, by))

    def _insert(self, tx: ApiKeyTransaction, environment: str, kind: str, **values: object) -> CreatedKey:
        pepper_id = self._pepper_for_new(tx)
        made = self._new_key(tx, environment, kind)
        mac = self._mac(made.secret, pepper_id)
        entry = ApiKeyEntry(
            lookup=made.lookup,
            environment=made.environment,
            kind=made.kind,
            mac=mac,
            pepper=pepper_id,
            **values,  # type: ignore[arg-type]  # the two callers above name the fields
        )
        tx.insert(entry)
        return CreatedKey(key=made.secret, entry=entry)

    def _new_key(self, tx: ApiKeyTransaction, environment: str, kind: str) -> ParsedKey:
        for _ in range(self.settings.LOOKUP_ATTEMPTS):
            made = make_key(environment, kind, self._entropy)
            if tx.find(made.lookup) is None:
                return made
        raise Conflict("no free name for an API key was found", hint="is the source of randomness broken?")

    def _checked_scopes(self, scopes: Collection[str]) -> frozenset[str]:
        wanted = frozenset(scopes)
        if not 0 < len(wanted) <= MAX_SCOPES:
            raise InputError(f"an API key has 1 to {MAX_SCOPES} scopes")
        allowed = self._edge_scopes()
        surplus = sorted(wanted - allowed)
        if surplus:
            raise InputError(
                f"the policy does not open {surplus[0][:120]!r} to the outside",
                hint=f"it opens {', '.join(sorted(allowed)[:20])}"
                if allowed
                else "no rule has 'from: outside'",
            )
        return wanted

    def _checked_life(self, life: timedelta | None) -> timedelta:
        life = self.settings.default_life if life is None else life
        if not timedelta(seconds=1) <= life <= self.settings.longest_life:
            raise InputError(f"an API key lives one second to {self.settings.longest_life.days} days")
        return life

    # --- the pepper ----------------------------------------------------------------------------------------------

    def _mac(self, secret: Secret, pepper_id: str | None) -> bytes:
        """Return the MAC; under any pepper when the key is unknown, for the same work."""
        return hmac.digest(self._pepper(pepper_id).reveal(), secret.reveal(), "sha256")

    def _pepper(self, pepper_id: str | None) -> Secret:
        with self._lock:
            wanted = self._newest_pepper if pepper_id is None else pepper_id
            if wanted is None or wanted not in self._peppers:
                for pepper in self._store.peppers():
                    self._peppers[pepper.id] = self._keystore.unwrap(pepper.id, PURPOSE, pepper.wrapped)
                    self._newest_pepper = pepper.id
                wanted = self._newest_pepper if pepper_id is None else pepper_id
            if wanted is None:
                return Secret(_DUMMY_MAC)  # no key was ever made; nothing can match
            return self._peppers[wanted]

    def _pepper_for_new(self, tx: ApiKeyTransaction) -> str:
        pepper = tx.pepper()
        secret: Secret
        if pepper is None:
            pepper_id = self._entropy.token_bytes(_PEPPER_ID_BYTES).hex()
            secret = Secret(self._entropy.token_bytes(_PEPPER_BYTES))
            pepper = Pepper(
                id=pepper_id,
                wrapped=self._keystore.wrap(pepper_id, PURPOSE, secret),
                created_at=self._clock.now(),
            )
            tx.insert_pepper(pepper)
        else:
            secret = self._keystore.unwrap(pepper.id, PURPOSE, pepper.wrapped)
        with self._lock:
            self._peppers[pepper.id] = secret
            self._newest_pepper = pepper.id
        return pepper.id


def _found(tx: ApiKeyTransaction, lookup: str) -> ApiKeyEntry:
    entry = tx.find(lookup)
    if entry is None:
        raise NotFound(f"there is no API key {lookup[:40]!r}", hint="`everyhop apikey list` shows them")
    return entry


def _networks(sources: Sequence[str]) -> tuple[Network, ...]:
    if len(sources) > MAX_NETWORKS:
        raise InputError(f"an API key is restricted to at most {MAX_NETWORKS} networks")
    try:
        return tuple(sorted({ip_network(source) for source in sources}, key=str))
    except ValueError as error:
        raise InputError(
            f"not a network: {error}", hint="write 203.0.113.7 or 203.0.113.0/24, without host bits"
        ) from error


def _is_from(source: str | None, networks: tuple[Network, ...]) -> bool:
    """Tell whether a source lies in one of the networks; a key without any may come from anywhere."""
    if not networks:
        return True
    try:
        address = ip_address(source or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)


def _event(action: str, entry: ApiKeyEntry, now: datetime, by: str) -> ApiKeyEvent:
    return ApiKeyEvent(
        action=action,
        time=now,
        lookup=entry.lookup,
        by=by,
        detail={
            "owner": entry.owner,
            "scopes": " ".join(sorted(entry.scopes)),
            "expires_at": entry.expires_at.isoformat(),
        },
    )
