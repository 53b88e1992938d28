# SPDX-License-Identifier: Apache-2.0
"""Base64url without padding (RFC 7515 section 2), with one accepted spelling for each value."""

from __future__ import annotations

import binascii
import string
from base64 import urlsafe_b64encode
from typing import Final

from everyhop.core.errors import InputError

_ALPHABET: Final = (string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_").encode()
# Every byte outside the alphabet becomes one that the strict decoder refuses, "+", "/" and "=" too.
_TO_BASE64: Final = bytes(
    (b"+" if byte == ord("-") else b"/" if byte == ord("_") else bytes([byte]))[0]
    if byte in _ALPHABET
    else ord("!")
    for byte in range(256)
)
_PADDING: Final = (b"", b"", b"==", b"=")
# What the last character may be when its low bits carry nothing: 16 values after 1 byte, 4 bits; 2 bits after 2.
_LAST: Final = (_ALPHABET, b"", _ALPHABET[::16], _ALPHABET[::4])


def encode_base64url(data: bytes) -> str:
    """Encode without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode_base64url(text: str) -> bytes:
    """Decode; raises InputError for padding, any other character, or unused bits that are not zero.

    The last point matters: two spellings of one signature would be two names of one token.
    """
    try:
        return decode_base64url_bytes(text.encode("ascii"))
    except UnicodeEncodeError as error:
        raise InputError("not base64url without padding") from error


def decode_base64url_bytes(data: bytes) -> bytes:
    """Decode ASCII bytes by the same rules as :func:`decode_base64url`."""
    surplus = len(data) & 3
    if data and data[-1] not in _LAST[surplus]:
        raise InputError("not base64url without padding, or with unused bits set")
    try:
        return binascii.a2b_base64(data.translate(_TO_BASE64) + _PADDING[surplus], strict_mode=True)
    except binascii.Error as error:
        raise InputError("not base64url without padding") from error
