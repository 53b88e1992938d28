# SPDX-License-Identifier: Apache-2.0
"""Certificate signing requests (PKCS#10, RFC 2986).

A request proves one thing: that its sender holds the private key.  Names and extensions that it asks for are
never read, so nothing that a caller writes there can reach a certificate.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import SignatureAlgorithmOID

from everyhop.core.errors import InputError, TrustError
from everyhop.x509.keys import PrivateKey, PublicKey

MAX_CSR_BYTES: Final = 4096  # ours takes about 180; other tools add names and extensions

_EMPTY_NAME = x509.Name([])


def build_csr(key: PrivateKey) -> bytes:
    """Return a request for ``key`` in DER, without names: the server knows who asks."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_EMPTY_NAME)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def verify_csr(der: bytes) -> PublicKey:
    """Return the key whose possession the request proves.

    ``der`` is at most 4 KiB.  Raises InputError when it is too large, is not one DER request, or its key is
    not P-256 signed with ECDSA and SHA-256; TrustError when its signature is false.
    """
    if len(der) > MAX_CSR_BYTES:
        raise InputError(f"a certificate request has at most {MAX_CSR_BYTES} bytes")
    try:
        request = x509.load_der_x509_csr(der)
        algorithm = request.signature_algorithm_oid
        key = request.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise InputError("not a certificate request in DER") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InputError("the key of a certificate request must be on the curve P-256")
    if algorithm != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
        raise InputError("a certificate request must be signed with ECDSA and SHA-256")
    if not request.is_signature_valid:
        raise TrustError("the certificate request does not prove possession of its key")
    return key
