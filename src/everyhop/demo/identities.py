# SPDX-License-Identifier: Apache-2.0
"""Identities for attackers: real ones of the trust domain, and forged ones.

The demo owns its state directory, so it can do what nobody else can: sign with the real CA key what the authority
itself would never issue (an expired leaf, two names).  Keys stay in memory.
"""

from __future__ import annotations

import base64
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from everyhop.authority import AuthorityKind, AuthorityStatus
from everyhop.authority.lifecycle import purpose_of
from everyhop.core.errors import Unavailable
from everyhop.core.secret import Secret
from everyhop.providers.keystores import FileKeyStore
from everyhop.runtime.mtls import client_context
from everyhop.storage import open_storage
from everyhop.x509.keys import PrivateKey, decode_private_key, encode_private_key, generate_private_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from everyhop.runtime.layout import StateLayout

HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A certificate chain with its key, and the bundle to check others by.  All in DER."""

    chain: tuple[bytes, ...] = ()
    key: bytes = b""
    bundle: tuple[bytes, ...] = ()

    def context(self) -> ssl.SSLContext:
        """Return a TLS 1.3 client context that shows this identity."""
        return client_context(self.chain, self.key, self.bundle)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A CA: the real one, or one that somebody made."""

    certificate: bytes
    key: PrivateKey


def private_number(der: bytes) -> bytes:
    """Return the secret number of a P-256 key (PKCS#8 DER): the 32 bytes that every encoding of it holds."""
    return decode_private_key(Secret(der)).private_numbers().private_value.to_bytes(32, "big")


def decode_identity(message: Mapping[str, Any]) -> Identity:
    """Read an identity from JSON with base64 members."""
    return Identity(
        chain=tuple(base64.b64decode(der) for der in message["chain"]),
        key=base64.b64decode(message["key"]),
        bundle=tuple(base64.b64decode(der) for der in message["bundle"]),
    )


def open_signer(layout: StateLayout) -> Signer:
    """Open the active CA of a state directory, as its owner can."""
    storage = open_storage(layout.database)
    try:
        state = storage.authorities.load()
    finally:
        storage.close()
    entry = state.one(AuthorityKind.X509, AuthorityStatus.ACTIVE)
    if entry is None or entry.wrapped_key is None:
        raise Unavailable("the trust domain has no active authority")
    keystore = FileKeyStore(layout.keys / "kek", create=False)
    secret = keystore.unwrap(entry.id, purpose_of(entry.kind), entry.wrapped_key)
    return Signer(certificate=entry.public, key=decode_private_key(secret))


def make_signer(uri: str) -> Signer:
    """Make a CA of one's own for a trust domain that is not one's own."""
    key = generate_private_key()
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "everyhop")])
    certificate = _sign(key, name, key, name, [x509.UniformResourceIdentifier(uri)], is_ca=True)
    return Signer(certificate=certificate, key=key)


class Forger:
    """Makes identities; ``bundle`` is what the holder checks servers by."""

    def __init__(self, real: Signer, bundle: Sequence[bytes]) -> None:
        self._bundle = tuple(bundle)
        self.real = real

    @cached_property
    def stranger(self) -> Signer:
        """A CA that nobody here trusts."""
        return make_signer("spiffe://shop.example")

    def nobody(self) -> Identity:
        """Return no certificate at all."""
        return Identity(bundle=self._bundle)

    def leaf(
        self,
        names: Sequence[str],
        *,
        signer: Signer,
        since: timedelta = -HOUR,
        until: timedelta = HOUR,
        dns: Sequence[str] = (),
    ) -> Identity:
        """Return a leaf with these URIs as names, valid from ``since`` to ``until`` (relative to now)."""
        key = generate_private_key()
        issuer = x509.load_der_x509_certificate(signer.certificate).subject
        alternative: list[x509.GeneralName] = [x509.UniformResourceIdentifier(name) for name in names]
        alternative += [x509.DNSName(name) for name in dns]
        der = _sign(key, x509.Name([]), signer.key, issuer, alternative, since=since, until=until)
        return Identity(chain=(der,), key=encode_private_key(key).reveal(), bundle=self._bundle)

    def self_signed(self, name: str) -> Identity:
        """Return a leaf that vouches for itself."""
        signer = make_signer(name)
        return self.leaf([name], signer=signer)

    def authority_as_leaf(self) -> Identity:
        """Return the real CA's own certificate and key, used as if they were a workload's."""
        return Identity(
            chain=(self.real.certificate,),
            key=encode_private_key(self.real.key).reveal(),
            bundle=self._bundle,
        )


def _sign(
    key: PrivateKey,
    subject: x509.Name,
    signer: PrivateKey,
    issuer: x509.Name,
    names: list[Any],
    *,
    is_ca: bool = False,
    since: timedelta = -HOUR,
    until: timedelta = HOUR,
) -> bytes:
    now = datetime.now(UTC)
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    builder = (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + since)
        .not_valid_after(now + until)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=0 if is_ca else None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=not is_ca, key_cert_sign=is_ca, crl_sign=is_ca, **usage),
            critical=True,
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=not is_ca)
    )
    if not is_ca:
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
