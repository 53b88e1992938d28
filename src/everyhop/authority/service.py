# SPDX-License-Identifier: Apache-2.0
"""The authority of one trust domain: life cycle, bundle, and issuing.

Every method may be called from any thread, and several processes may share one store: each step is decided again
inside its transaction, and nothing that was signed leaves before the store has confirmed, in the same transaction as
the audit record, that the signing authority is still active.  Methods block on the store; run them on a worker pool.

Who is entitled to which SPIFFE ID is decided by the caller.  This room refuses only what no caller may have: an id
of another trust domain or without a path, a request that does not prove possession of its key.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from everyhop.authority import rotation
from everyhop.authority.lifecycle import Lifecycle
from everyhop.authority.model import (
    AuthorityEntry,
    AuthorityKind,
    AuthoritySettings,
    AuthorityState,
    AuthorityStatus,
    Change,
    IssuedJwt,
    IssuedX509,
)
from everyhop.authority.ports import AuthorityEvent, AuthorityStore, AuthorityTransaction, KeyStore
from everyhop.authority.publication import bundle_of
from everyhop.authority.signing import Signers
from everyhop.core.clock import Clock, Entropy, rfc3339
from everyhop.core.errors import AccessDenied, Conflict, InputError, Unavailable
from everyhop.jose.encoding import encode_base64url
from everyhop.spiffe.bundle import Bundle
from everyhop.spiffe.ids import SpiffeId, TrustDomain
from everyhop.spiffe.jwt_svid import check_audience, mint_jwt_svid
from everyhop.x509.csr import verify_csr
from everyhop.x509.issue import LeafProfile, new_serial
from everyhop.x509.thumbprint import sha256_fingerprint

_ATTEMPTS: Final = 4
_SHORTEST: Final = timedelta(seconds=1)
_TOKEN_ID_BYTES: Final = 16


class Authority:
    """The signing authority of ``trust_domain``.  Call :meth:`start` once before anything else."""

    def __init__(
        self,
        *,
        trust_domain: TrustDomain,
        store: AuthorityStore,
        keystore: KeyStore,
        clock: Clock,
        entropy: Entropy,
        settings: AuthoritySettings | None = None,
    ) -> None:
        self.trust_domain = trust_domain
        self.settings = settings or AuthoritySettings()
        self._store = store
        self._keystore = keystore
        self._clock = clock
        self._entropy = entropy
        self._lifecycle = Lifecycle(
            trust_domain=trust_domain, keystore=keystore, entropy=entropy, settings=self.settings
        )
        self._signers = Signers(trust_domain=trust_domain, store=store, keystore=keystore)

    # --- life cycle ----------------------------------------------------------------------------------------------

    def start(self) -> tuple[Change, ...]:
        """Create the first authorities where there are none, and prove that the stored ones can be used.

        A restart creates nothing.  Raises SettingsError when the store belongs to another trust domain, TrustError
        when a stored key does not unwrap.
        """
        now = self._clock.now()
        with self._store.transaction() as tx:
            changes = [change for kind in AuthorityKind for change in self._ensure_active(tx, kind, now)]
        self._signers.forget()
        self._signers.x509(now)
        self._signers.jwt(now)
        return tuple(changes)

    def list_authorities(self) -> tuple[AuthorityEntry, ...]:
        """Return every authority, oldest first."""
        return self._store.load().entries

    def bundle(self) -> Bundle:
        """Return the trust bundle as it is now, with its sequence number and refresh hint."""
        return bundle_of(self.trust_domain, self._store.load(), self.settings.refresh_hint)

    def prepare(self, kind: AuthorityKind) -> AuthorityEntry:
        """Make and publish the next authority; return the one that is prepared already, if there is one."""
        now = self._clock.now()
        with self._store.transaction() as tx:
            prepared = tx.load().one(kind, AuthorityStatus.PREPARED)
            if prepared is not None and now >= prepared.not_after:
                self._lifecycle.remove(tx, prepared, now)
                prepared = None
            if prepared is None:
                self._lifecycle.add(tx, kind, AuthorityStatus.PREPARED, now)
                prepared = _required(tx.load(), kind, AuthorityStatus.PREPARED)
        return prepared

    def activate(
        self, kind: AuthorityKind, acknowledged_sequence: int | None = None, *, force: bool = False
    ) -> AuthorityEntry:
        """Let the prepared authority sign from now on; the active one becomes old.

        ``acknowledged_sequence`` is the lowest bundle sequence that everyone who verifies is known to hold.  Raises
        Conflict when nothing is prepared, when the prepared one has expired, or when it is not in that bundle and
        ``force`` is not set: a peer that does not know the authority refuses everything it signs.
        """
        now = self._clock.now()
        with self._store.transaction() as tx:
            state = tx.load()
            prepared = _required(state, kind, AuthorityStatus.PREPARED)
            if now >= prepared.not_after:
                raise Conflict(f"the prepared {kind.value} authority has expired", hint="prepare another one")
            if not force and not rotation.is_acknowledged(prepared, acknowledged_sequence):
                raise Conflict(
                    f"the bundle {prepared.published_sequence} with the prepared {kind.value} authority"
                    " is not acknowledged by everyone yet",
                    hint="wait for the agents, or force it and accept refused calls until they follow",
                )
            active = state.one(kind, AuthorityStatus.ACTIVE)
            self._lifecycle.activate(tx, prepared, active, now, forced=force)
            entry = _required(tx.load(), kind, AuthorityStatus.ACTIVE)
        self._signers.forget()
        return entry

    def retire_expired(self) -> tuple[Change, ...]:
        """Take authorities out of the bundle that nothing alive depends on any more."""
        now = self._clock.now()
        if not rotation.removable(self._store.load(), now):
            return ()
        with self._store.transaction() as tx:
            return self._remove_expired(tx, now)

    def tick(self, acknowledged_sequence: int | None = None) -> tuple[Change, ...]:
        """Take every step that is due; call it about once a second, from any number of processes.

        ``acknowledged_sequence`` as for :meth:`activate`; pass the present sequence when nobody is connected, None
        when it is not known.  A prepared authority that is never acknowledged takes over late in the active one's
        life (``force_at``), because the alternative is that nothing is issued at all.
        """
        now = self._clock.now()
        if not self._is_anything_due(self._store.load(), now, acknowledged_sequence):
            return ()
        changes: list[Change] = []
        with self._store.transaction() as tx:
            changes += self._remove_expired(tx, now)
            for kind in AuthorityKind:
                changes += self._ensure_active(tx, kind, now)
                changes += self._rotate(tx, kind, now, acknowledged_sequence)
        self._signers.forget()
        return tuple(changes)

    def _is_anything_due(self, state: AuthorityState, now: datetime, acknowledged: int | None) -> bool:
        return bool(rotation.removable(state, now)) or any(
            rotation.lacks_active(state, kind, now)
            or rotation.is_due_to_prepare(state, kind, self.settings, now)
            or rotation.is_due_to_activate(state, kind, self.settings, now, acknowledged)
            for kind in AuthorityKind
        )

    def _ensure_active(self, tx: AuthorityTransaction, kind: AuthorityKind, now: datetime) -> list[Change]:
        """Have something to sign with after a first start, or after a pause longer than an authority's life."""
        state = tx.load()
        if not rotation.lacks_active(state, kind, now):
            return []
        active = state.one(kind, AuthorityStatus.ACTIVE)
        prepared = state.one(kind, AuthorityStatus.PREPARED)
        if prepared is not None and now < prepared.not_after:
            return [self._lifecycle.activate(tx, prepared, active, now, forced=True)]
        if active is not None:
            self._lifecycle.retire(tx, active, now)
        return [self._lifecycle.add(tx, kind, AuthorityStatus.ACTIVE, now)]

    def _rotate(
        self, tx: AuthorityTransaction, kind: AuthorityKind, now: datetime, acknowledged: int | None
    ) -> list[Change]:
        changes: list[Change] = []
        if rotation.is_due_to_prepare(tx.load(), kind, self.settings, now):
            changes.append(self._lifecycle.add(tx, kind, AuthorityStatus.PREPARED, now))
        state = tx.load()
        if rotation.is_due_to_activate(state, kind, self.settings, now, acknowledged):
            prepared = _required(state, kind, AuthorityStatus.PREPARED)
            active = state.one(kind, AuthorityStatus.ACTIVE)
            forced = not rotation.is_acknowledged(prepared, acknowledged)
            changes.append(self._lifecycle.activate(tx, prepared, active, now, forced=forced))
        return changes

    def _remove_expired(self, tx: AuthorityTransaction, now: datetime) -> tuple[Change, ...]:
        return tuple(self._lifecycle.remove(tx, entry, now) for entry in rotation.removable(tx.load(), now))

    # --- issuing -------------------------------------------------------------------------------------------------

    def issue_x509(
        self,
        spiffe_id: SpiffeId,
        csr_der: bytes,
        ttl: timedelta | None = None,
        *,
        hosts: tuple[str, ...] = (),
    ) -> IssuedX509:
        """Return an X509-SVID for the key that ``csr_der`` proves possession of; nothing else is read from it.

        ``hosts`` are DNS names and IP addresses that the certificate names as well.  ``ttl`` is cut to the settings
        and to the life of the CA.  Raises AccessDenied for an id that this authority never signs, InputError or
        TrustError for the request (see :func:`~everyhop.x509.csr.verify_csr`), Unavailable when there is no
        authority to sign with.
        """
        self._check_subject(spiffe_id)
        lifetime = _lifetime(ttl, self.settings.x509_ttl)
        public_key = verify_csr(csr_der)
        for _ in range(_ATTEMPTS):
            now = self._clock.now()
            signer = self._signers.x509(now)
            profile = LeafProfile(
                uri=str(spiffe_id),
                public_key=public_key,
                serial=new_serial(self._entropy),
                not_before=now - self.settings.backdate,
                not_after=_expiry(now, lifetime, signer.not_after),
                hosts=hosts,
            )
            leaf = signer.issuer.sign_leaf(profile)
            detail = {"serial": f"{profile.serial:x}", "sha256": sha256_fingerprint(leaf)}
            if hosts:
                detail["hosts"] = " ".join(hosts)
            if self._confirm(AuthorityKind.X509, signer.id, spiffe_id, profile.not_after, now, detail):
                return IssuedX509(chain_der=(leaf,), expires_at=profile.not_after, authority_id=signer.id)
        raise Unavailable("the authority changes too often to sign; try again")

    def issue_jwt(
        self, spiffe_id: SpiffeId, audience: Sequence[str], ttl: timedelta | None = None
    ) -> IssuedJwt:
        """Return a JWT-SVID for ``audience`` (1 to 32 of them; one is best).

        ``ttl`` is cut to the settings and to the life of the key.  Raises AccessDenied for an id that this authority
        never signs, InputError for the audience, Unavailable when there is no authority to sign with.
        """
        self._check_subject(spiffe_id)
        check_audience(audience)
        lifetime = _lifetime(ttl, self.settings.jwt_ttl)
        for _ in range(_ATTEMPTS):
            now = self._clock.now()
            signer = self._signers.jwt(now)
            issued_at, expires_at = now.replace(microsecond=0), _expiry(now, lifetime, signer.not_after)
            token_id = encode_base64url(self._entropy.token_bytes(_TOKEN_ID_BYTES))
            token = mint_jwt_svid(
                spiffe_id=spiffe_id,
                audience=audience,
                issued_at=issued_at,
                expires_at=expires_at,
                token_id=token_id,
                kid=signer.id,
                key=signer.key,
            )
            detail = {"jti": token_id, "audience": " ".join(audience)}
            if self._confirm(AuthorityKind.JWT, signer.id, spiffe_id, expires_at, now, detail):
                return IssuedJwt(
                    token=token, expires_at=expires_at, issued_at=issued_at, authority_id=signer.id
                )
        raise Unavailable("the authority changes too often to sign; try again")

    def _check_subject(self, spiffe_id: SpiffeId) -> None:
        if spiffe_id.trust_domain != self.trust_domain:
            raise AccessDenied(f"{spiffe_id} is not of the trust domain {self.trust_domain}")
        if not spiffe_id.has_path:
            raise AccessDenied("the SPIFFE ID of the trust domain itself is not issued to anyone")

    def _confirm(
        self,
        kind: AuthorityKind,
        authority_id: str,
        spiffe_id: SpiffeId,
        expires_at: datetime,
        now: datetime,
        detail: dict[str, str],
    ) -> bool:
        """Record the issue; False when the authority has been retired meanwhile, so the result must be dropped."""
        with self._store.transaction() as tx:
            if not tx.extend_signed_until(authority_id, expires_at):
                self._signers.forget()
                return False
            tx.record(
                AuthorityEvent(
                    action=f"issue-{kind.value}-svid",
                    time=now,
                    kind=kind,
                    authority_id=authority_id,
                    subject=str(spiffe_id),
                    detail={**detail, "expires_at": rfc3339(expires_at)},
                )
            )
        return True


def _required(state: AuthorityState, kind: AuthorityKind, status: AuthorityStatus) -> AuthorityEntry:
    entry = state.one(kind, status)
    if entry is None:
        raise Conflict(f"there is no {status.value} {kind.value} authority", hint="prepare one first")
    return entry


def _lifetime(asked: timedelta | None, most: timedelta) -> timedelta:
    if asked is None:
        return most
    if asked < _SHORTEST:
        raise InputError("a lifetime is at least one second")
    return min(asked, most)


def _expiry(now: datetime, lifetime: timedelta, end: datetime) -> datetime:
    """Return the expiry in whole seconds, never beyond the authority's own."""
    expires_at = min(now + lifetime, end).replace(microsecond=0)
    if end - now < _SHORTEST:
        raise Unavailable("the active authority is about to expire; its successor is not active yet")
    return expires_at
