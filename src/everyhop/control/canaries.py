# SPDX-License-Identifier: Apache-2.0
"""Canaries in the control plane: made, listed, ended, and recognised wherever a credential is refused.

Recognising changes nothing for whoever shows the credential: the answer is the refusal that any other would get, after the
same work as far as it can be told from outside.
"""

from __future__ import annotations

import base64
import logging
import re
import threading
from typing import TYPE_CHECKING, Final, Protocol

from everyhop.anomaly.canary import (
    DIGEST_BYTES,
    MAX_CANARIES,
    Canary,
    CanaryKind,
    Marker,
    Use,
    check_name,
    digest_of,
)
from everyhop.anomaly.detectors import ServiceCanary
from everyhop.anomaly.finding import Action
from everyhop.control.shown_credentials import Shown
from everyhop.core.errors import Conflict, InputError, NotFound
from everyhop.core.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from datetime import datetime, timedelta

    from everyhop.anomaly.canary import CanaryStore
    from everyhop.apikeys import ApiKeyEntry, CreatedKey
    from everyhop.apikeys.ports import KeyStore
    from everyhop.core.clock import Clock, Entropy
    from everyhop.policy.model import Snapshot

_log = logging.getLogger(__name__)

PURPOSE: Final = "anomaly/canaries"
META: Final = "canary-key"
FRESH_SECONDS: Final = 1.0
_PREFIX: Final = re.compile(r"[A-Za-z0-9_-]{0,40}", re.ASCII)
_SECRET_BYTES: Final = 32
_ID_BYTES: Final = 6
_AGAIN_SECONDS: Final = 10.0
_MAX_RECENT: Final = 1024


class MetaStore(Protocol):
    """Small facts by name."""

    def set_once(self, key: str, value: str) -> str:
        """Store a value unless there is one; return the one that is stored."""

    def get(self, key: str) -> str | None:
        """Return a value, or None."""


class Keys(Protocol):
    """The API keys, as canaries need them."""

    def create(
        self,
        *,
        owner: str,
        scopes: Collection[str],
        environment: str = "live",
        life: timedelta | None = None,
        by: str = "admin",
        is_canary: bool = False,
    ) -> CreatedKey:
        """Make a key."""

    def list_keys(self, owner: str | None = None) -> Sequence[ApiKeyEntry]:
        """Return the keys."""

    def revoke(self, lookup: str, *, by: str = "admin") -> ApiKeyEntry:
        """End a key."""


def open_marker(meta: MetaStore, keystore: KeyStore, entropy: Entropy) -> Marker:
    """Return the marker of this installation; its key is made once, and wrapped by the key store.

    Raises TrustError or InputError when the stored key cannot be opened.
    """
    stored = meta.get(META)
    if stored is None:
        fresh = keystore.wrap(META, PURPOSE, Secret(entropy.token_bytes(DIGEST_BYTES)))
        stored = meta.set_once(META, base64.b64encode(fresh).decode())
    try:
        return Marker(keystore.unwrap(META, PURPOSE, base64.b64decode(stored, validate=True)))
    except ValueError as error:
        raise InputError("the stored key of canaries cannot be read") from error


class CanaryControl:
    """The canaries of one trust domain.  Safe to share between threads; every method may block on the store."""

    def __init__(
        self,
        *,
        store: CanaryStore,
        marker: Marker,
        clock: Clock,
        entropy: Entropy,
        snapshot: Callable[[], Snapshot],
        edge_scopes: Callable[[], frozenset[str]],
    ) -> None:
        self._store = store
        self._marker = marker
        self._clock = clock
        self._entropy = entropy
        self._snapshot = snapshot
        self._edge_scopes = edge_scopes
        self._lock = threading.Lock()
        self._by_mark: dict[bytes, Canary] = {}
        self._services: dict[str, Canary] = {}
        self._read_at: datetime | None = None
        self._recent: dict[tuple[str, str | None, str | None], datetime] = {}
        self.on_use: Callable[[], None] = _nothing
        """Called, from any thread, after a use was recorded: whoever follows the log need not wait to look."""

    # -- recognising

    def is_canary(self, text: str) -> bool:
        """Tell whether a text is a canary, ended ones too."""
        return self._find(digest_of(text)) is not None

    def commitment(self, lookup: str, *, is_canary: bool) -> str:
        """Return what the record of a new API key says (:meth:`everyhop.anomaly.canary.Marker.commitment`)."""
        return self._marker.commitment(lookup, is_canary=is_canary)

    def state_key(self) -> Secret:
        """Return the key under which detectors keep what they remember."""
        return self._marker.derived("detector states")

    def refused(self, texts: Iterable[str], shown: Shown) -> bool:
        """Look at credentials that were refused, and record the first that is a canary; True when one is.

        Never raises: a refusal must stay the refusal that it was.
        """
        try:
            return self.refused_digests((digest_of(text) for text in texts), shown)
        except Exception:  # noqa: BLE001  # whatever it is, the caller is refused
            _log.exception("a refused credential could not be looked at")
            return False

    def refused_digests(self, digests: Iterable[bytes], shown: Shown) -> bool:
        """Do the same for SHA-256 digests of credentials, which is what agents send.

        Raises Unavailable when a use cannot be recorded: an agent tries again.
        """
        for digest in digests:
            canary = self._find(digest)
            if canary is not None:
                self._record(canary, shown)
                return True
        return False

    def _record(self, canary: Canary, shown: Shown) -> None:
        now = self._clock.now()
        key = canary.id, shown.caller, shown.source
        with self._lock:
            last = self._recent.get(key)
            if last is not None and 0 <= (now - last).total_seconds() < _AGAIN_SECONDS:
                return  # two doors saw the same use, or somebody hammers: the first is recorded
            if len(self._recent) >= _MAX_RECENT:
                self._recent.clear()
            self._recent[key] = now
        _log.critical(
            "a canary was used",
            extra={"canary": canary.id, "caller": shown.caller, "source": shown.source, "where": shown.where},
        )
        use = Use(
            canary=canary,
            time=now,
            caller=shown.caller,
            source=shown.source,
            where=shown.where,
            target=shown.target,
            decision=shown.decision,
        )
        try:
            self._store.used(use)
        except BaseException:
            with self._lock:
                self._recent.pop(key, None)
            raise
        self.on_use()

    def find(self, service: str) -> ServiceCanary | None:
        """Return what is known of a service by its name; None unless the policy in force says that it is a canary."""
        declared = self._snapshot().services.get(service)
        if declared is None or not declared.is_canary:
            return None
        self._refresh()
        canary = self._services.get(service)
        return ServiceCanary("", Action.ALERT) if canary is None else ServiceCanary(canary.id, canary.action)

    def _find(self, digest: bytes) -> Canary | None:
        self._refresh()
        return self._by_mark.get(self._marker.mark(digest))

    def _refresh(self, *, force: bool = False) -> None:
        now = self._clock.now()
        with self._lock:
            read_at = self._read_at
            if not force and read_at is not None and 0 <= (now - read_at).total_seconds() < FRESH_SECONDS:
                return
            self._read_at = now
        every = self._store.list()
        self._by_mark = {c.mark: c for c in every if c.mark is not None}
        services = [c for c in every if c.kind is CanaryKind.SERVICE]
        # Of a service that was ended and made again, the living one counts.
        self._services = {c.name: c for c in sorted(services, key=lambda c: c.ended_at is None)}

    # -- keeping

    def create_key(
        self,
        keys: Keys,
        *,
        name: str,
        response: Action,
        owner: str | None = None,
        scopes: Collection[str] = (),
        environment: str = "live",
        life: timedelta | None = None,
        by: str = "admin",
    ) -> tuple[Canary, Secret]:
        """Make an API key that looks like any other, and opens nothing; return it with its text.

        Without ``scopes`` it seems to be for all that the policy opens to the outside.  The log has the record of a new API
        key, as for each, and no other: one beside it would tell which key it was.  Raises InputError where the policy
        opens nothing to the outside, or for what no API key can be; Conflict when there are too many canaries.
        """
        name = self._checked(name)
        wanted = frozenset(scopes) or self._edge_scopes()
        created = keys.create(
            owner=owner or "integration",
            scopes=wanted,
            environment=environment,
            life=life,
            by=by,
            is_canary=True,
        )
        text = created.key.reveal().decode()
        canary = Canary(
            id=self._marker.id_of_key(created.entry.lookup),
            kind=CanaryKind.API_KEY,
            name=name,
            response=response,
            created_at=self._clock.now(),
            created_by=by,
            mark=self._marker.mark(digest_of(text)),
        )
        try:
            self._insert(canary, recorded=False)
        except BaseException:
            keys.revoke(created.entry.lookup, by=by)  # its text was shown to nobody
            raise
        return canary, Secret(text.encode())

    def create_secret(
        self, *, name: str, response: Action, prefix: str = "", by: str = "admin"
    ) -> tuple[Canary, Secret]:
        """Make a text that looks like a secret; ``prefix`` makes it look like one of a kind.  Raises InputError, Conflict."""
        name = self._checked(name)
        if not _PREFIX.fullmatch(prefix):
            raise InputError("a prefix is at most 40 letters, digits, '_' and '-'")
        random = base64.urlsafe_b64encode(self._entropy.token_bytes(_SECRET_BYTES)).rstrip(b"=").decode()
        text = prefix + random
        canary = Canary(
            id=self._entropy.token_bytes(_ID_BYTES).hex(),
            kind=CanaryKind.SECRET,
            name=name,
            response=response,
            created_at=self._clock.now(),
            created_by=by,
            mark=self._marker.mark(digest_of(text)),
        )
        self._insert(canary, recorded=True)
        return canary, Secret(text.encode())

    def create_service(self, *, name: str, response: Action, by: str = "admin") -> tuple[Canary, bool]:
        """Say what a call to a service that is a canary leads to; return whether the policy declares it already.

        Raises Conflict for a service that exists, or is a canary already; InputError for a name that none can have.
        """
        name = self._checked(name)
        declared = self._snapshot().services.get(name)
        if declared is not None and not declared.is_canary:
            raise Conflict(f"{name} is a service of the policy, and no canary")
        canary = Canary(
            id=self._entropy.token_bytes(_ID_BYTES).hex(),
            kind=CanaryKind.SERVICE,
            name=name,
            response=response,
            created_at=self._clock.now(),
            created_by=by,
        )
        self._insert(canary, recorded=True)
        return canary, declared is not None

    def list(self) -> Sequence[Canary]:
        """Return all, oldest first.  It is the owner's: nobody else may learn it."""
        return self._store.list()

    def lookups(self, keys: Keys) -> dict[str, str]:
        """Return the public parts of all API keys by the ids that they have if they are canaries."""
        return {self._marker.id_of_key(entry.lookup): entry.lookup for entry in keys.list_keys()}

    def end(self, canary_id: str, keys: Keys, *, by: str = "admin") -> Canary:
        """End a canary: its use is still found, and leads to an alert only; an API key is revoked as well.

        Raises NotFound.
        """
        canary = next((c for c in self._store.list() if c.id == canary_id), None)
        if canary is None:
            raise NotFound(f"there is no canary {canary_id[:40]!r}", hint="`everyhop canary list` shows them")
        is_key = canary.kind is CanaryKind.API_KEY
        lookup = self.lookups(keys).get(canary_id) if is_key else None
        ended = self._store.end(canary_id, at=self._clock.now(), by=by, recorded=not is_key)
        if lookup is not None:
            keys.revoke(lookup, by=by)
        self._refresh(force=True)
        return ended

    def _checked(self, name: str) -> str:
        name = check_name(name)
        if len(self._store.list()) >= MAX_CANARIES:
            raise Conflict(f"there are {MAX_CANARIES} canaries already")
        return name

    def _insert(self, canary: Canary, *, recorded: bool) -> None:
        self._store.insert(canary, recorded=recorded)
        self._refresh(force=True)


def _nothing() -> None:
    """Nobody follows the log here."""
