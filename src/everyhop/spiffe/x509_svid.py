# SPDX-License-Identifier: Apache-2.0
"""X509-SVIDs (X509-SVID.md): what a chain must hold to be the identity of a peer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from everyhop.core.errors import InputError, SvidError
from everyhop.spiffe.bundle import Bundle
from everyhop.spiffe.ids import SpiffeId
from everyhop.x509.certificates import decode_certificate
from everyhop.x509.chain import MAX_INTERMEDIATES, verify_chain

_BOTH_PURPOSES: Final = frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH})


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Svid:
    """A verified identity.  ``chain`` is DER, leaf first, without the root; times are aware UTC."""

    spiffe_id: SpiffeId
    chain: tuple[bytes, ...]
    serial: int
    not_before: datetime
    not_after: datetime


def validate_x509_svid(chain: Sequence[bytes], bundle: Bundle, now: datetime) -> X509Svid:
    """Return the identity that a chain proves at ``now`` under ``bundle``.

    ``chain`` is DER, leaf first, as TLS or the Workload API delivers it; nothing of it is trusted.  Raises
    InputError when it does not parse, SvidError when it breaks a clause of X509-SVID.md (the message names it)
    or belongs to another trust domain, ChainError when there is no valid path to the bundle.
    """
    if not chain:
        raise InputError("the chain is empty")
    if len(chain) > 1 + MAX_INTERMEDIATES:
        raise InputError(f"a chain has at most {1 + MAX_INTERMEDIATES} certificates")
    leaf, *intermediates = (decode_certificate(der) for der in chain)
    spiffe_id = check_leaf(leaf)
    for certificate in intermediates:
        check_signing_certificate(certificate)
    if spiffe_id.trust_domain != bundle.trust_domain:
        raise SvidError(
            f"X509-SVID 5.1: {spiffe_id} is not of the trust domain {bundle.trust_domain}",
            hint="choose the bundle by the trust domain of the peer",
        )
    roots = [decode_certificate(der) for der in bundle.x509_authorities]
    verify_chain(leaf, intermediates, roots, now)
    return X509Svid(
        spiffe_id=spiffe_id,
        chain=tuple(chain),
        serial=leaf.serial_number,
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
    )


def check_leaf(certificate: x509.Certificate) -> SpiffeId:
    """Check what section 5.2 and its references ask of a leaf, signature and time aside; return its SPIFFE ID.

    Raises SvidError; the message starts with the clause.
    """
    spiffe_id = _spiffe_id(certificate)
    if spiffe_id is None:
        raise SvidError("X509-SVID 2: the certificate has no URI as subject alternative name")
    if not spiffe_id.has_path:
        raise SvidError("X509-SVID 3.1: the SPIFFE ID of a leaf needs a path")
    if not certificate.subject.rdns and not _san_extension(certificate).critical:
        raise SvidError("X509-SVID 3.1: with an empty subject the URI must be critical")
    if _claims_ca(certificate):
        raise SvidError("X509-SVID 4.1: a leaf must not be a CA")
    usage = _key_usage(certificate)
    if not usage.digital_signature:
        raise SvidError("X509-SVID 4.3: a leaf must set digitalSignature")
    if usage.key_cert_sign or usage.crl_sign:
        raise SvidError("X509-SVID 4.3: a leaf must not set keyCertSign or cRLSign")
    _check_purposes(certificate)
    return spiffe_id


def check_signing_certificate(certificate: x509.Certificate) -> SpiffeId | None:
    """Check what sections 3.2 and 4 ask of a signing certificate; return its SPIFFE ID if it has one.

    Raises SvidError; the message starts with the clause.
    """
    spiffe_id = _spiffe_id(certificate)
    if spiffe_id is not None and spiffe_id.has_path:
        raise SvidError("X509-SVID 3.2: the SPIFFE ID of a signing certificate must not have a path")
    if not _claims_ca(certificate):
        raise SvidError("X509-SVID 4.1: a signing certificate must be a CA")
    if not _key_usage(certificate).key_cert_sign:
        raise SvidError("X509-SVID 4.3: a signing certificate must set keyCertSign")
    return spiffe_id


def _spiffe_id(certificate: x509.Certificate) -> SpiffeId | None:
    """Return the one URI as a SPIFFE ID; None when there is no URI (section 2)."""
    try:
        names = _san_extension(certificate).value
    except x509.ExtensionNotFound:
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if not uris:
        return None
    if len(uris) > 1:
        raise SvidError("X509-SVID 2: the certificate has more than one URI")
    try:
        return SpiffeId.parse(uris[0])
    except InputError as error:
        raise SvidError(f"X509-SVID 5.2: {error.message}") from error


def _san_extension(certificate: x509.Certificate) -> x509.Extension[x509.SubjectAlternativeName]:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def _claims_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _key_usage(certificate: x509.Certificate) -> x509.KeyUsage:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    except x509.ExtensionNotFound as error:
        raise SvidError("X509-SVID 4.3: key usage is missing") from error
    if not extension.critical:
        raise SvidError("X509-SVID 4.3: key usage must be critical")
    return extension.value


def _check_purposes(certificate: x509.Certificate) -> None:
    try:
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not set(purposes) >= _BOTH_PURPOSES:
        raise SvidError("X509-SVID 4.4: extended key usage must hold both serverAuth and clientAuth")
