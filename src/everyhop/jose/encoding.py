# SPDX-License-Identifier: Apache-2.0
"""Base64url without padding (RFC 7515 section 2), with one accepted spelling for each value."""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode

from everyhop.core.errors import InputError

_ALPHABET = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)


def encode_base64url(data: bytes) -> str:
    """Encode without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode_base64url(text: str) -> bytes:
    """Decode; raises InputError for padding, any other character, or unused bits that are not zero.

    The last point matters: two spellings of one signature would be two names of one token.
    """
    if not _ALPHABET.fullmatch(text):
        raise InputError("not base64url without padding")
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise InputError("not base64url without padding") from error
    if encode_base64url(data) != text:
        raise InputError("base64url with unused bits set")
    return data
