# SPDX-License-Identifier: Apache-2.0
"""X.509: keys, requests, certificates and paths to a root.  Bytes in, values out; no IO.

What this room knows is RFC 5280; what a SPIFFE ID means in a certificate is the business of ``spiffe``.
"""

from everyhop.x509.certificates import (
    certificates_from_pem,
    certificates_to_pem,
    decode_certificate,
    split_certificates,
)
from everyhop.x509.chain import verify_chain
from everyhop.x509.csr import build_csr, verify_csr
from everyhop.x509.issue import CaProfile, Issuer, LeafProfile, new_serial, sign_ca
from everyhop.x509.keys import (
    PrivateKey,
    decode_private_key,
    decode_public_key,
    encode_private_key,
    encode_public_key,
    generate_private_key,
    key_identifier,
    private_key_to_pem,
)
from everyhop.x509.thumbprint import sha256_fingerprint, x5t_s256

__all__ = [
    "CaProfile",
    "Issuer",
    "LeafProfile",
    "PrivateKey",
    "build_csr",
    "certificates_from_pem",
    "certificates_to_pem",
    "decode_certificate",
    "decode_private_key",
    "decode_public_key",
    "encode_private_key",
    "encode_public_key",
    "generate_private_key",
    "key_identifier",
    "new_serial",
    "private_key_to_pem",
    "sha256_fingerprint",
    "sign_ca",
    "split_certificates",
    "verify_chain",
    "verify_csr",
    "x5t_s256",
]
