# SPDX-License-Identifier: Apache-2.0
"""The bounds of the profile; every one is tested from both sides."""

from __future__ import annotations

from typing import Final

MAX_TOKEN_BYTES: Final = 8 * 1024
MAX_ACTORS: Final = 4
MAX_LIFETIME_SECONDS: Final = 3600
EXPIRY_SKEW_SECONDS: Final = 5
START_SKEW_SECONDS: Final = 30
LATEST: Final = 253402300799  # 9999-12-31T23:59:59Z; a later time is a mistake or an attack
MAX_NAME: Final = 2048  # characters of iss, sub, client_id, aud: what a SPIFFE ID may have
MAX_ID: Final = 256  # characters of jti and txn
MAX_ROLES: Final = 64
MAX_ATTRIBUTES: Final = 32  # of a user
MAX_ATTRIBUTE: Final = 1024  # characters of one
