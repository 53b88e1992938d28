# SPDX-License-Identifier: Apache-2.0
"""Active authorities with their keys unwrapped, ready to sign."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime

from everyhop.authority.lifecycle import purpose_of
from everyhop.authority.model import AuthorityEntry, AuthorityKind, AuthorityStatus
from everyhop.authority.ports import AuthorityStore, KeyStore
from everyhop.core.errors import InputError, SettingsError, TrustError, Unavailable
from everyhop.jose.jwk import thumbprint
from everyhop.spiffe.ids import TrustDomain
from everyhop.spiffe.x509_svid import check_signing_certificate
from everyhop.x509.certificates import decode_certificate
from everyhop.x509.issue import Issuer
from everyhop.x509.keys import PrivateKey, decode_private_key


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Signer:
    """A CA and its key."""

    id: str
    issuer: Issuer
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtSigner:
    """A JWT key; ``id`` is its ``kid``."""

    id: str
    key: PrivateKey
    not_after: datetime


class Signers:
    """The active authorities of one process, opened when first needed and kept until told to forget.

    What is kept may be behind the store, when another process has rotated; the store's own condition on each issue
    finds that out.  Safe to share between threads.
    """

    def __init__(self, *, trust_domain: TrustDomain, store: AuthorityStore, keystore: KeyStore) -> None:
        self._trust_domain = trust_domain
        self._store = store
        self._keystore = keystore
        self._lock = threading.Lock()
        self._x509: X509Signer | None = None
        self._jwt: JwtSigner | None = None

    def forget(self) -> None:
        """Read the store again at the next use."""
        with self._lock:
            self._x509 = self._jwt = None

    def x509(self, now: datetime) -> X509Signer:
        """Return the active CA.  Raises Unavailable when there is none whose time is not over."""
        with self._lock:
            if self._x509 is None or now >= self._x509.not_after:
                entry = self._active(AuthorityKind.X509, now)
                self._x509 = open_x509_signer(entry, self._keystore, self._trust_domain)
            return self._x509

    def jwt(self, now: datetime) -> JwtSigner:
        """Return the active JWT key.  Raises Unavailable when there is none whose time is not over."""
        with self._lock:
            if self._jwt is None or now >= self._jwt.not_after:
                self._jwt = open_jwt_signer(self._active(AuthorityKind.JWT, now), self._keystore)
            return self._jwt

    def _active(self, kind: AuthorityKind, now: datetime) -> AuthorityEntry:
        entry = self._store.load().one(kind, AuthorityStatus.ACTIVE)
        if entry is None or now >= entry.not_after:
            raise Unavailable(
                f"there is no active {kind.value} authority", hint="has the authority been started?"
            )
        return entry


def open_x509_signer(entry: AuthorityEntry, keystore: KeyStore, trust_domain: TrustDomain) -> X509Signer:
    """Unwrap the key of a CA.

    Raises SettingsError when the CA is of another trust domain, TrustError when its key does not unwrap or belongs
    to another certificate.
    """
    key = _unwrap(entry, keystore)
    spiffe_id = check_signing_certificate(decode_certificate(entry.public))
    if spiffe_id != trust_domain.id:
        raise SettingsError(
            f"the stored authority is of {spiffe_id}, not of {trust_domain.id}",
            hint="a trust domain keeps its name for ever; use another state directory for another one",
        )
    try:
        issuer = Issuer(entry.public, key)
    except InputError as error:
        raise TrustError("the stored key belongs to another CA certificate") from error
    return X509Signer(id=entry.id, issuer=issuer, not_after=entry.not_after)


def open_jwt_signer(entry: AuthorityEntry, keystore: KeyStore) -> JwtSigner:
    """Unwrap a JWT key.  Raises TrustError when it does not unwrap or is not the key that was published."""
    key = _unwrap(entry, keystore)
    if thumbprint(key.public_key()) != entry.id:
        raise TrustError("the stored key is not the JWT key that was published")
    return JwtSigner(id=entry.id, key=key, not_after=entry.not_after)


def _unwrap(entry: AuthorityEntry, keystore: KeyStore) -> PrivateKey:
    if entry.wrapped_key is None:
        raise TrustError(f"the {AuthorityKind(entry.kind).value} authority {entry.id} has no private key")
    return decode_private_key(keystore.unwrap(entry.id, purpose_of(entry.kind), entry.wrapped_key))
