# SPDX-License-Identifier: Apache-2.0
"""Certificates that everyhop signs: a self-signed CA, and leaves below it.

Every certificate carries exactly one URI, which is its identity.  A leaf has no subject at all, so no consumer can
mistake some other field for an identity; RFC 5280 section 4.1.2.6 then wants its subject alternative name critical.
The leaf of a server that ordinary TLS clients call has DNS names and addresses beside the URI.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from everyhop.core.clock import Entropy
from everyhop.core.errors import InputError
from everyhop.x509.certificates import decode_certificate
from everyhop.x509.keys import PrivateKey, PublicKey, key_identifier

SERIAL_BYTES: Final = 20  # RFC 5280 section 4.1.2.2: at most 20 octets, and positive

_ORGANIZATION: Final = "everyhop"
_HASH: Final = hashes.SHA256()


def _key_usage(*, signature: bool = False, certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )


_NO_NAME: Final = x509.Name([])
_LEAF_CONSTRAINTS: Final = x509.BasicConstraints(ca=False, path_length=None)
_LEAF_USAGE: Final = _key_usage(signature=True)
_LEAF_PURPOSES: Final = x509.ExtendedKeyUsage(
    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
)
_CA_CONSTRAINTS: Final = x509.BasicConstraints(ca=True, path_length=0)
_CA_USAGE: Final = _key_usage(certificates=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaProfile:
    """What a CA certificate says: one URI as name, and its time (aware; fractions of a second are cut)."""

    uri: str
    serial: int
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafProfile:
    """What a leaf says: one URI as name, the key of its holder, and its time (aware; fractions are cut).

    ``hosts`` are DNS names and IP addresses under which a server is reached by those who check host names.
    """

    uri: str
    public_key: PublicKey
    serial: int
    not_before: datetime
    not_after: datetime
    hosts: tuple[str, ...] = ()


def new_serial(entropy: Entropy) -> int:
    """Return an unpredictable positive serial number of 159 bits."""
    return (int.from_bytes(entropy.token_bytes(SERIAL_BYTES), "big") >> 1) or 1


def sign_ca(profile: CaProfile, key: PrivateKey) -> bytes:
    """Return a self-signed CA certificate in DER that may sign leaves only (path length 0).

    Its subject holds the key's identifier, so two authorities of one trust domain never share a name and a
    verifier finds the right issuer at once.
    """
    identifier = key_identifier(key.public_key())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANIZATION),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, identifier.hex()),
        ]
    )
    builder = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(profile.serial)
        .not_valid_before(_whole_seconds(profile.not_before))
        .not_valid_after(_whole_seconds(profile.not_after))
        .add_extension(_CA_CONSTRAINTS, critical=True)
        .add_extension(_CA_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier(identifier), critical=False)
        .add_extension(_names(profile.uri), critical=False)
    )
    return builder.sign(key, _HASH).public_bytes(serialization.Encoding.DER)


class Issuer:
    """A CA ready to sign leaves.

    What is the same in every leaf is prepared once; that, and naming keys by hash instead of asking the
    library to, is what makes an issue cost little more than its two signature operations.
    """

    __slots__ = ("_base", "_key", "certificate_der", "not_after", "not_before")

    def __init__(self, certificate_der: bytes, key: PrivateKey) -> None:
        """Bind a CA certificate to its key.  Raises InputError when they do not belong together."""
        certificate = decode_certificate(certificate_der)
        if certificate.public_key() != key.public_key():
            raise InputError("the CA certificate does not belong to the key")
        identifier = x509.AuthorityKeyIdentifier(key_identifier(key.public_key()), None, None)
        self._key = key
        self._base = (
            x509.CertificateBuilder()
            .issuer_name(certificate.subject)
            .subject_name(_NO_NAME)
            .add_extension(_LEAF_CONSTRAINTS, critical=True)
            .add_extension(_LEAF_USAGE, critical=True)
            .add_extension(_LEAF_PURPOSES, critical=False)
            .add_extension(identifier, critical=False)
        )
        self.certificate_der = certificate_der
        self.not_before = certificate.not_valid_before_utc
        self.not_after = certificate.not_valid_after_utc

    def sign_leaf(self, profile: LeafProfile) -> bytes:
        """Return a leaf in DER, its time cut to that of the CA.  Raises InputError when nothing is left of it."""
        not_before = max(_whole_seconds(profile.not_before), self.not_before)
        not_after = min(_whole_seconds(profile.not_after), self.not_after)
        if not_after <= not_before:
            raise InputError("the certificate would not be valid at any time")
        builder = (
            self._base.public_key(profile.public_key)
            .serial_number(profile.serial)
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .add_extension(x509.SubjectKeyIdentifier(key_identifier(profile.public_key)), critical=False)
            .add_extension(_names(profile.uri, profile.hosts), critical=True)
        )
        return builder.sign(self._key, _HASH).public_bytes(serialization.Encoding.DER)


def _names(uri: str, hosts: tuple[str, ...] = ()) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), *map(_host, hosts)])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _whole_seconds(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)
