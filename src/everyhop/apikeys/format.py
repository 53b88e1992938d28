# SPDX-License-Identifier: Apache-2.0
"""How an API key is written: ``eh_<environment>_<kind>_<lookup 8>_<secret 32>_<checksum 6>``.

Nothing but letters, digits and underscores, so a double click selects it whole; a prefix that scanners find; a
checksum that tells a typing error or a random text from a key without asking anybody.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Final

from everyhop.core.clock import Entropy
from everyhop.core.errors import InputError
from everyhop.core.secret import Secret

PREFIX: Final = "eh"
LOOKUP_CHARACTERS: Final = 8
SECRET_CHARACTERS: Final = 32  # 190 bits: a fast MAC is enough, guessing is hopeless
LONGEST_SECRET: Final = 64
CHECKSUM_CHARACTERS: Final = 6
MAX_KEY_CHARACTERS: Final = 128

DETECTION_REGEX: Final = (
    r"\beh_[a-z0-9]{1,16}_[a-z0-9]{1,16}_[0-9A-Za-z]{8}_[0-9A-Za-z]{32,64}_[0-9A-Za-z]{6}\b"
)
"""Finds keys in code and logs; for any engine that knows ``\\b`` (RE2, PCRE, Python).  The checksum settles doubt."""

_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM = re.compile(
    rf"{PREFIX}_([a-z0-9]{{1,16}})_([a-z0-9]{{1,16}})_([0-9A-Za-z]{{{LOOKUP_CHARACTERS}}})"
    rf"_([0-9A-Za-z]{{{SECRET_CHARACTERS},{LONGEST_SECRET}}})_([0-9A-Za-z]{{{CHECKSUM_CHARACTERS}}})",
    re.ASCII,
)
_WORD = re.compile(r"[a-z0-9]{1,16}", re.ASCII)
_UNBIASED: Final = 256 - 256 % len(_BASE62)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedKey:
    """A text of the right form with the right checksum; nobody vouches for it yet.  ``secret`` is the whole key."""

    environment: str
    kind: str
    lookup: str
    secret: Secret


def parse_key(text: str) -> ParsedKey:
    """Parse a presented key.  Raises InputError, without repeating the text, for a wrong form or checksum."""
    match = _FORM.fullmatch(text) if len(text) <= MAX_KEY_CHARACTERS else None
    if match is None:
        raise InputError("not an API key")
    environment, kind, lookup, _, checksum = match.groups()
    body = text[: -CHECKSUM_CHARACTERS - 1]
    if checksum_of(body) != checksum:  # public arithmetic on a public text: nothing to hide in its timing
        raise InputError("the checksum of the API key is wrong", hint="was it copied whole?")
    return ParsedKey(environment=environment, kind=kind, lookup=lookup, secret=Secret(text.encode("ascii")))


def make_key(environment: str, kind: str, entropy: Entropy) -> ParsedKey:
    """Make a new key.  Raises InputError unless ``environment`` and ``kind`` are 1 to 16 of a-z and 0-9."""
    for name, word in (("environment", environment), ("kind", kind)):
        if not _WORD.fullmatch(word):
            raise InputError(f"the {name} of an API key is 1 to 16 lower-case letters and digits")
    lookup = _random(LOOKUP_CHARACTERS, entropy)
    body = f"{PREFIX}_{environment}_{kind}_{lookup}_{_random(SECRET_CHARACTERS, entropy)}"
    return parse_key(f"{body}_{checksum_of(body)}")


def checksum_of(body: str) -> str:
    """Return the CRC-32 of everything before the last underscore, in six characters of base 62."""
    number = zlib.crc32(body.encode("ascii"))
    digits = []
    for _ in range(CHECKSUM_CHARACTERS):
        number, digit = divmod(number, len(_BASE62))
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))


def _random(count: int, entropy: Entropy) -> str:
    """Return characters that are all equally likely."""
    found: list[str] = []
    while len(found) < count:
        found += [_BASE62[b % len(_BASE62)] for b in entropy.token_bytes(2 * count) if b < _UNBIASED]
    return "".join(found[:count])
