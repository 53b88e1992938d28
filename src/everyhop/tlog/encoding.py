# SPDX-License-Identifier: Apache-2.0
"""The spellings that all formats of this room share: standard Base64, numbers and key names, each with one form only.

A text with two spellings would be two texts for a signature and one for whoever reads it.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from everyhop.core.errors import InputError
from everyhop.tlog.merkle import HASH_BYTES, MAX_SIZE

MAX_NAME_BYTES: Final = 255
"""Longest key name and origin that is taken; cosignatures of ML-DSA have no room for more."""

_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}")


def encode_base64(data: bytes) -> str:
    """Return standard Base64 with its padding (RFC 4648 section 4)."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: str) -> bytes:
    """Read standard Base64.  Raises InputError for another alphabet, missing padding or loose bits at the end."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("not Base64") from error
    if encode_base64(data) != text:
        raise InputError("not Base64 in its one spelling")
    return data


def decode_hash(text: str) -> bytes:
    """Read one hash in Base64.  Raises InputError for anything but 32 bytes."""
    data = decode_base64(text)
    if len(data) != HASH_BYTES:
        raise InputError(f"a hash has {HASH_BYTES} bytes")
    return data


def decode_number(text: str) -> int:
    """Read a decimal number up to 2^63 - 1.  Raises InputError for signs, leading zeroes or other digits."""
    if _NUMBER.fullmatch(text) is None or (number := int(text)) > MAX_SIZE:
        raise InputError("not a number from 0 to 2^63 - 1 in its one spelling")
    return number


def check_name(name: str) -> str:
    """Return ``name`` if it can name a key (c2sp.org/signed-note): no spaces, no plus, no control characters.

    Raises InputError; also for more than 255 bytes.
    """
    if not name or len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        raise InputError(f"a key name has 1 to {MAX_NAME_BYTES} bytes")
    if "+" in name or any(c.isspace() or not is_text(c) for c in name):
        raise InputError("a key name has no space, plus or control character")
    return name


def is_text(character: str) -> bool:
    """Tell whether a character may stand within a line of a note: no control below U+0020, no surrogate."""
    return character >= " " and not "\ud800" <= character <= "\udfff"
