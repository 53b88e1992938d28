# SPDX-License-Identifier: Apache-2.0
"""Certificates as bytes: DER one by one, DER joined, PEM."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.utils import CryptographyDeprecationWarning

from everyhop.core.errors import InputError

MAX_CERTIFICATE_BYTES: Final = 16 * 1024
MAX_CERTIFICATES: Final = 64

# What the library raises for bytes that are no certificate; some of these are no ValueErrors.
_MALFORMED: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    CryptographyDeprecationWarning,  # where warnings are errors
)
_SEQUENCE: Final = 0x30
_LONG_FORM: Final = 0x80


def decode_certificate(der: bytes) -> x509.Certificate:
    """Parse one certificate of at most 16 KiB, its names, extensions and key included.

    The library parses lazily; what is read later is forced here, so that a malformed extension or key is an
    InputError at the door and not a surprise inside a decision.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise InputError(f"a certificate has at most {MAX_CERTIFICATE_BYTES} bytes")
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = (certificate.subject, certificate.issuer, certificate.serial_number, certificate.version)
        _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
        _ = (certificate.extensions, certificate.public_key())
    except _MALFORMED as error:
        raise InputError("not a certificate in DER") from error
    if certificate.serial_number <= 0:  # RFC 5280 section 4.1.2.2; the library only warns so far
        raise InputError("the serial number of a certificate is positive")
    return certificate


def split_certificates(joined: bytes) -> tuple[bytes, ...]:
    """Split DER certificates that stand one behind the other (Workload API section 5.2.1).

    Only the outer lengths are read.  Raises InputError when they do not add up or there are more than 64.
    """
    found: list[bytes] = []
    start = 0
    while start < len(joined):
        end = _end_of_element(joined, start)
        found.append(joined[start:end])
        start = end
        if len(found) > MAX_CERTIFICATES:
            raise InputError(f"more than {MAX_CERTIFICATES} certificates")
    return tuple(found)


def _end_of_element(data: bytes, start: int) -> int:
    """Return where the DER sequence that starts at ``start`` ends."""
    if len(data) - start < 2 or data[start] != _SEQUENCE:  # noqa: PLR2004  # a tag and a length
        raise InputError("not certificates in DER, one behind the other")
    length = data[start + 1]
    body = start + 2
    if length & _LONG_FORM:
        size = length & 0x7F
        length = int.from_bytes(data[body : body + size], "big")
        if size not in {1, 2, 3} or len(data) < body + size:
            raise InputError("not certificates in DER, one behind the other")
        body += size
    if body + length > len(data):
        raise InputError("a certificate is cut off")
    return body + length


def certificates_to_pem(certificates: Iterable[bytes]) -> bytes:
    """Write DER certificates as PEM in the order given."""
    return b"".join(decode_certificate(der).public_bytes(serialization.Encoding.PEM) for der in certificates)


def certificates_from_pem(pem: bytes) -> tuple[bytes, ...]:
    """Read PEM certificates, at most 64 of at most 16 KiB each, as DER.  Raises InputError."""
    if len(pem) > 2 * MAX_CERTIFICATES * MAX_CERTIFICATE_BYTES:
        raise InputError("the PEM text is too large")
    try:
        loaded = x509.load_pem_x509_certificates(pem)
    except _MALFORMED as error:
        raise InputError("not certificates in PEM") from error
    if len(loaded) > MAX_CERTIFICATES:
        raise InputError(f"more than {MAX_CERTIFICATES} certificates")
    return tuple(one.public_bytes(serialization.Encoding.DER) for one in loaded)
