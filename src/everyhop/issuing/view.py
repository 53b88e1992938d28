# SPDX-License-Identifier: Apache-2.0
"""The state of the issuer as one process holds it: keys parsed, the signing key opened, revocations by name.

A view is rebuilt only when the store's sequence has grown.  The hot path asks the store for the sequence at most once
a second, so what another process rotated is known here within that second; a retained key stays published for
minutes longer.  Everything that believes a token asks first.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from everyhop.core.errors import Unavailable
from everyhop.issuing.material import open_private
from everyhop.issuing.model import IssuingSettings, IssuingState, RevokedKind
from everyhop.issuing.ports import IssuingStore, KeyStore
from everyhop.issuing.publication import jwks_of
from everyhop.tokens.keyset import KeySet, StaticKeys, parse_jwks
from everyhop.tokens.mint import TokenMint, signer_for
from everyhop.tokens.revocations import Revocations

OLDEST: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class View:
    """One state, ready to use."""

    state: IssuingState
    jwks: bytes
    keys: StaticKeys
    revocations: Revocations
    mint: TokenMint | None = field(repr=False)

    def signer(self) -> TokenMint:
        """Return what signs.  Raises Unavailable when there is no active key."""
        if self.mint is None:
            raise Unavailable("there is no active signing key", hint="has the issuer been started?")
        return self.mint


class Views:
    """The present view.  Safe to share between threads."""

    def __init__(self, *, store: IssuingStore, keystore: KeyStore, settings: IssuingSettings) -> None:
        self._store = store
        self._keystore = keystore
        self._settings = settings
        self._lock = threading.Lock()
        self._held: tuple[View, datetime] | None = None

    def forget(self) -> None:
        """Ask the store at the next use."""
        with self._lock:
            if self._held is not None:
                self._held = (self._held[0], datetime.min.replace(tzinfo=self._held[1].tzinfo))

    def recent(self, now: datetime) -> View:
        """Return a view that is at most a second old."""
        held = self._held
        if held is not None and timedelta(0) <= now - held[1] < OLDEST:
            return held[0]
        return self.fresh(now)

    def fresh(self, now: datetime) -> View:
        """Return the view of the state that is stored now."""
        with self._lock:
            held = self._held
            if held is None or held[0].state.sequence != self._store.sequence():
                view = self._build(self._store.load(), None if held is None else held[0])
            else:
                view = held[0]
            self._held = (view, now)
            return view

    def _build(self, state: IssuingState, before: View | None) -> View:
        same = before is not None and before.state.keys == state.keys
        jwks = before.jwks if before is not None and same else jwks_of(state)
        signing = state.signing(self._settings.algorithm)
        mint: TokenMint | None = None
        if signing is not None:
            if before is not None and before.mint is not None and before.mint.kid == signing.kid:
                mint = before.mint
            else:
                mint = TokenMint(signer_for(signing.kid, open_private(signing, self._keystore)))
        keys = (
            before.keys if before is not None and before.jwks == jwks else StaticKeys(_key_set(state, jwks))
        )
        return View(state, jwks, keys, revocations_of(state), mint)


def _key_set(state: IssuingState, jwks: bytes) -> KeySet:
    """Read the document as a verifier does: what we publish must be what they accept."""
    return parse_jwks(jwks) if state.keys else KeySet()


def revocations_of(state: IssuingState) -> Revocations:
    """Return the stored revocations by name, with the seconds that they last."""
    ends: dict[RevokedKind, dict[str, int]] = {kind: {} for kind in RevokedKind}
    for revocation in state.revocations:
        moment = revocation.revoked_at if revocation.kind is RevokedKind.SUBJECT else revocation.expires_at
        ends[revocation.kind][revocation.value] = int(moment.timestamp())
    return Revocations(
        kids=frozenset(ends[RevokedKind.KID]),
        jtis=ends[RevokedKind.JTI],
        txns=ends[RevokedKind.TXN],
        subs=ends[RevokedKind.SUBJECT],
    )
