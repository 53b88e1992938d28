# SPDX-License-Identifier: Apache-2.0
"""Names of certificates made from their bytes."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode


def sha256_fingerprint(certificate_der: bytes) -> str:
    """Return the SHA-256 of a DER certificate in 64 lower-case hex digits."""
    return hashlib.sha256(certificate_der).hexdigest()


def x5t_s256(certificate_der: bytes) -> str:
    """Return the value of ``x5t#S256``: base64url without padding (RFC 8705 section 3.1)."""
    return urlsafe_b64encode(hashlib.sha256(certificate_der).digest()).rstrip(b"=").decode()
