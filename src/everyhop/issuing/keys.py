# SPDX-License-Identifier: Apache-2.0
"""The signing keys of one trust domain: published, then waited for, then signing, then retained.

Every method may be called from any thread, and several processes may share one store: each step is decided again
inside its transaction, and the store admits one prepared and one active key of an algorithm.  Key pairs are made
before the transaction begins, so that the slow ones (RSA) hold up nobody.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime

from everyhop.core.clock import Clock
from everyhop.core.errors import Conflict, NotFound
from everyhop.issuing import rotation
from everyhop.issuing.material import Material, make_material
from everyhop.issuing.model import (
    IssuingSettings,
    IssuingState,
    KeyChange,
    KeyStatus,
    Revocation,
    RevokedKind,
    SigningKey,
)
from everyhop.issuing.ports import IssuingStore, IssuingTransaction, KeyStore, SigningEvent
from everyhop.issuing.view import Views

_log = logging.getLogger(__name__)


class SigningKeys:
    """The life of the keys that sign tokens.  Call :meth:`start` once before anything else."""

    def __init__(
        self, *, store: IssuingStore, keystore: KeyStore, clock: Clock, settings: IssuingSettings
    ) -> None:
        self.settings = settings
        self.views = Views(store=store, keystore=keystore, settings=settings)
        self._store = store
        self._keystore = keystore
        self._clock = clock

    def start(self) -> tuple[KeyChange, ...]:
        """Create the first key where there is none, and prove that the stored one can be used.

        A restart creates nothing.  Raises TrustError when the stored key does not unwrap.
        """
        changes: tuple[KeyChange, ...] = ()
        if rotation.lacks_active(self._store.load(), self.settings):
            material = self._make()
            now = self._clock.now()
            with self._store.transaction() as tx:
                changes = self._ensure_active(tx, material, now)
        self.views.forget()
        self.views.fresh(self._clock.now()).signer()
        return changes

    def list_keys(self) -> tuple[SigningKey, ...]:
        """Return every published key, oldest first."""
        return self._store.load().keys

    def prepare(self) -> SigningKey:
        """Make and publish the next key; return the one that is prepared already, if there is one.

        Raises Conflict when so many keys are published that readers would refuse one more.
        """
        algorithm = self.settings.algorithm
        prepared = self._store.load().one(algorithm, KeyStatus.PREPARED)
        if prepared is None:
            material = self._make()
            now = self._clock.now()
            with self._store.transaction() as tx:
                state = tx.load()
                prepared = state.one(algorithm, KeyStatus.PREPARED)
                if prepared is None:
                    _demand_room(state)
                    change = _add(tx, material, KeyStatus.PREPARED, now)
                    prepared = tx.load().find(change.kid)
            self.views.forget()
        if prepared is None:
            raise Conflict("the key that was prepared is gone again", hint="try again")
        return prepared

    def rotate(self) -> SigningKey:
        """Ask for a rotation: the next key is published now and takes over at the first :meth:`tick` that may."""
        return self.prepare()

    def activate(self, acknowledged_sequence: int | None = None, *, force: bool = False) -> SigningKey:
        """Let the prepared key sign from now on; the active one is retained and its private key destroyed.

        ``acknowledged_sequence`` is the lowest sequence that everyone who verifies is known to hold.  Raises Conflict
        when nothing is prepared, or when readers may not know the key yet (less than twice ``max_age`` since it was
        published, or not acknowledged) and ``force`` is not set.
        """
        now = self._clock.now()
        with self._store.transaction() as tx:
            state = tx.load()
            prepared = state.one(self.settings.algorithm, KeyStatus.PREPARED)
            if prepared is None:
                raise Conflict("there is no prepared signing key", hint="prepare one first")
            may = rotation.is_due_to_activate(state, self.settings, now, acknowledged_sequence)
            if not may and not force:
                raise Conflict(
                    f"the signing key {prepared.kid} is not known to every verifier yet",
                    hint="wait, or force it and accept refused calls until they follow",
                )
            _activate(tx, prepared, now, forced=not may)
            active = tx.load().find(prepared.kid)
        self.views.forget()
        if active is None:
            raise Conflict("the key that was activated is gone again")
        return active

    def tick(self, acknowledged_sequence: int | None = None) -> tuple[KeyChange, ...]:
        """Take every step that is due; call it about once a second, from any number of processes.

        ``acknowledged_sequence`` as for :meth:`activate`; pass the present sequence when no agent is connected, None
        when it is not known.
        """
        now = self._clock.now()
        state = self.views.fresh(now).state
        needs_key = rotation.lacks_active(state, self.settings) or rotation.is_due_to_prepare(
            state, self.settings, now
        )
        if (
            not needs_key
            and not rotation.is_due_to_activate(state, self.settings, now, acknowledged_sequence)
            and not rotation.removable(state, self.settings, now)
            and not rotation.is_due_to_prune(state, now)
        ):
            return ()
        material = self._make() if needs_key else None
        with self._store.transaction() as tx:
            changes = self._steps(tx, material, now, acknowledged_sequence)
            if tx.prune_revocations(now):
                tx.advance()
        self.views.forget()
        return changes

    def revoke(self, kid: str, *, by: str = "admin") -> tuple[KeyChange, ...]:
        """End a signing key and everything that it signed, at once.

        It leaves the JWKS and is named as revoked.  When it was the one that signs, the prepared key takes over, or a
        new one where none is prepared: the one step that does not wait for acknowledgement, because the other way is
        that nothing is issued.  Raises NotFound.
        """
        self._find(kid)
        material = self._make()
        now = self._clock.now()
        with self._store.transaction() as tx:
            state = tx.load()
            key = state.find(kid)
            if key is None:
                raise NotFound(f"there is no signing key {kid[:64]}")
            tx.delete_key(kid)
            tx.revoke(
                Revocation(
                    kind=RevokedKind.KID,
                    value=kid,
                    revoked_at=now,
                    expires_at=now + self.settings.revoked_key_memory,
                    by=by,
                )
            )
            changes = [_note(tx, "revoke", key, now, by=by)]
            changes += self._ensure_active(tx, material, now)
        self.views.forget()
        _log.warning("a signing key was revoked", extra={"kid": kid})
        return tuple(changes)

    def retire_expired(self) -> tuple[KeyChange, ...]:
        """Take keys out of the JWKS that nothing alive depends on any more."""
        now = self._clock.now()
        if not rotation.removable(self._store.load(), self.settings, now):
            return ()
        with self._store.transaction() as tx:
            changes = self._remove(tx, now)
        self.views.forget()
        return changes

    def _find(self, kid: str) -> SigningKey:
        key = self._store.load().find(kid)
        if key is None:
            raise NotFound(f"there is no signing key {kid[:64]}")
        return key

    def _make(self) -> Material:
        return make_material(self.settings.algorithm, self.settings.rsa_bits, self._keystore)

    def _steps(
        self, tx: IssuingTransaction, material: Material | None, now: datetime, acknowledged: int | None
    ) -> tuple[KeyChange, ...]:
        changes = list(self._remove(tx, now))
        if material is not None:
            changes += self._ensure_active(tx, material, now)
            if not changes and rotation.is_due_to_prepare(tx.load(), self.settings, now):
                changes.append(_add(tx, material, KeyStatus.PREPARED, now))
        state = tx.load()
        prepared = state.one(self.settings.algorithm, KeyStatus.PREPARED)
        if prepared is not None and rotation.is_due_to_activate(state, self.settings, now, acknowledged):
            changes.append(_activate(tx, prepared, now, forced=False))
        return tuple(changes)

    def _ensure_active(
        self, tx: IssuingTransaction, material: Material, now: datetime
    ) -> tuple[KeyChange, ...]:
        """Have something to sign with: after a first start, or after the active key was revoked."""
        state = tx.load()
        if not rotation.lacks_active(state, self.settings):
            return ()
        prepared = state.one(self.settings.algorithm, KeyStatus.PREPARED)
        if prepared is not None:
            return (_activate(tx, prepared, now, forced=True),)
        return (_add(tx, material, KeyStatus.ACTIVE, now),)

    def _remove(self, tx: IssuingTransaction, now: datetime) -> tuple[KeyChange, ...]:
        changes = []
        for key in rotation.removable(tx.load(), self.settings, now):
            tx.delete_key(key.kid)
            changes.append(_note(tx, "remove", key, now))
        return tuple(changes)


def _demand_room(state: IssuingState) -> None:
    if rotation.is_full(state):
        raise Conflict(
            f"{rotation.MAX_PUBLISHED} signing keys are published already",
            hint="they go when nothing that they signed is alive; rotate less often",
        )


def _add(tx: IssuingTransaction, material: Material, status: KeyStatus, now: datetime) -> KeyChange:
    key = SigningKey(
        kid=material.kid,
        algorithm=material.algorithm,
        status=status,
        public=material.public,
        wrapped_key=material.wrapped,
        created_at=now,
        published_sequence=tx.load().sequence + 1,
        activated_at=now if status is KeyStatus.ACTIVE else None,
    )
    tx.insert_key(key)
    return _note(tx, "prepare" if status is KeyStatus.PREPARED else "create", key, now)


def _activate(tx: IssuingTransaction, prepared: SigningKey, now: datetime, *, forced: bool) -> KeyChange:
    """Let ``prepared`` take over from every active key, of whichever algorithm."""
    for key in tx.load().keys:
        if key.status is KeyStatus.ACTIVE:
            tx.update_key(replace(key, status=KeyStatus.RETAINED, retired_at=now, wrapped_key=None))
    active = replace(prepared, status=KeyStatus.ACTIVE, activated_at=now)
    tx.update_key(active)
    return _note(tx, "activate", active, now, forced=forced)


def _note(
    tx: IssuingTransaction,
    action: str,
    key: SigningKey,
    now: datetime,
    *,
    by: str | None = None,
    forced: bool = False,
) -> KeyChange:
    """Count the step and write it into the audit log."""
    sequence = tx.advance()
    detail: dict[str, str | int | float | bool | None] = {
        "algorithm": key.algorithm.value,
        "sequence": sequence,
    }
    if forced:
        detail["forced"] = True
    tx.record(SigningEvent(action=action, time=now, kid=key.kid, caller=by, detail=detail))
    return KeyChange(action=action, kid=key.kid, algorithm=key.algorithm, sequence=sequence)
