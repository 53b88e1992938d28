# SPDX-License-Identifier: Apache-2.0
"""The name of a certificate inside a token (RFC 8705 section 3.1)."""

from __future__ import annotations

import hashlib

from everyhop.jose.encoding import encode_base64url


def x5t_s256(der: bytes) -> str:
    """Return the ``x5t#S256`` of a certificate in DER: SHA-256, base64url, 43 characters."""
    return encode_base64url(hashlib.sha256(der).digest())
