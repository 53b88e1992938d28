# SPDX-License-Identifier: Apache-2.0
"""The steps of an authority's life, each inside a transaction that the caller holds.

Content of the bundle and its sequence number change together (Bundle section 4.1.1): ``create``, ``prepare`` and
``remove`` count, ``activate`` does not, because the bundle does not say who is active.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from everyhop.authority.model import (
    AuthorityEntry,
    AuthorityKind,
    AuthoritySettings,
    AuthorityStatus,
    Change,
)
from everyhop.authority.ports import AuthorityEvent, AuthorityTransaction, KeyStore
from everyhop.core.clock import Entropy
from everyhop.jose.jwk import thumbprint
from everyhop.spiffe.ids import TrustDomain
from everyhop.x509.issue import CaProfile, new_serial, sign_ca
from everyhop.x509.keys import decode_private_key, encode_public_key, key_identifier


class Lifecycle:
    """Makes, activates and removes authorities, and writes each step into the audit log."""

    __slots__ = ("_entropy", "_keystore", "_settings", "_trust_domain")

    def __init__(
        self, *, trust_domain: TrustDomain, keystore: KeyStore, entropy: Entropy, settings: AuthoritySettings
    ) -> None:
        self._trust_domain = trust_domain
        self._keystore = keystore
        self._entropy = entropy
        self._settings = settings

    def add(
        self, tx: AuthorityTransaction, kind: AuthorityKind, status: AuthorityStatus, now: datetime
    ) -> Change:
        """Make a new authority, prepared or (only where there is none to succeed) active at once."""
        sequence = tx.load().sequence + 1
        tx.set_sequence(sequence)
        entry = self._new_entry(kind, status, sequence, now)
        tx.insert(entry)
        action = "prepare" if status is AuthorityStatus.PREPARED else "create"
        return self._note(tx, action, entry, sequence, now)

    def activate(
        self,
        tx: AuthorityTransaction,
        prepared: AuthorityEntry,
        active: AuthorityEntry | None,
        now: datetime,
        *,
        forced: bool,
    ) -> Change:
        """Let ``prepared`` take over; the private key of ``active`` is destroyed, for it will sign nothing more."""
        if active is not None:
            self.retire(tx, active, now)
        entry = replace(prepared, status=AuthorityStatus.ACTIVE, activated_at=now)
        tx.update(entry)
        return self._note(tx, "activate", entry, tx.load().sequence, now, forced=forced)

    @staticmethod
    def retire(tx: AuthorityTransaction, active: AuthorityEntry, now: datetime) -> None:
        """Make ``active`` old and destroy its private key."""
        tx.update(replace(active, status=AuthorityStatus.OLD, retired_at=now, wrapped_key=None))

    def remove(self, tx: AuthorityTransaction, entry: AuthorityEntry, now: datetime) -> Change:
        """Take an authority out of the bundle."""
        sequence = tx.load().sequence + 1
        tx.set_sequence(sequence)
        tx.delete(entry.id)
        return self._note(tx, "remove", entry, sequence, now)

    def _new_entry(
        self, kind: AuthorityKind, status: AuthorityStatus, sequence: int, now: datetime
    ) -> AuthorityEntry:
        secret = self._keystore.generate()
        key = decode_private_key(secret)
        start = (now - self._settings.backdate).replace(microsecond=0)
        end = (now + self._settings.life_of(kind)).replace(microsecond=0)
        if kind is AuthorityKind.X509:
            authority_id = key_identifier(key.public_key()).hex()
            profile = CaProfile(
                uri=str(self._trust_domain.id),
                serial=new_serial(self._entropy),
                not_before=start,
                not_after=end,
            )
            public = sign_ca(profile, key)
        else:
            authority_id = thumbprint(key.public_key())
            public = encode_public_key(key.public_key())
        return AuthorityEntry(
            id=authority_id,
            kind=kind,
            status=status,
            public=public,
            wrapped_key=self._keystore.wrap(authority_id, purpose_of(kind), secret),
            created_at=now,
            not_before=start,
            not_after=end,
            published_sequence=sequence,
            activated_at=now if status is AuthorityStatus.ACTIVE else None,
        )

    @staticmethod
    def _note(
        tx: AuthorityTransaction,
        action: str,
        entry: AuthorityEntry,
        sequence: int,
        now: datetime,
        *,
        forced: bool = False,
    ) -> Change:
        tx.record(
            AuthorityEvent(
                action=action,
                time=now,
                kind=entry.kind,
                authority_id=entry.id,
                detail={
                    "sequence": sequence,
                    "not_after": entry.not_after.isoformat(),
                    **({"forced": True} if forced else {}),
                },
            )
        )
        return Change(action=action, kind=entry.kind, authority_id=entry.id, sequence=sequence)


def purpose_of(kind: AuthorityKind) -> str:
    """Return the purpose that a key of this kind is wrapped for."""
    return f"authority/{kind.value}"
