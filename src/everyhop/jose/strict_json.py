# SPDX-License-Identifier: Apache-2.0
"""JSON in which every reader sees the same thing (RFC 8259 section 4, RFC 7515 section 4).

A parser that keeps the first of two equal members and one that keeps the last would judge two different
tokens; so a repeated member, at any depth, is refused, and so are numbers that JSON does not have.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final, NoReturn

import msgspec

from everyhop.core.errors import InputError

MAX_JSON_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 32

_decode_any: Final = msgspec.json.Decoder().decode
_encode_any: Final = msgspec.json.Encoder().encode


def parse_json_object(data: bytes, *, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Parse one JSON object in UTF-8 without a byte order mark.

    Raises InputError when it is larger than ``max_bytes``, deeper than 32 levels, not an object, repeats a
    member, or holds NaN, an infinity or half of a surrogate pair.
    """
    if len(data) > max_bytes:
        raise InputError(f"the JSON text has more than {max_bytes} bytes")
    _limit_depth(data)
    try:
        value = load_strictly(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError("not a JSON object") from error
    if not isinstance(value, dict):
        raise InputError("not a JSON object")
    return value


def parse_claims(data: bytes) -> dict[str, Any]:
    """Parse one JSON object by the same rules; quick for text in the shortest spelling, as our own tokens have it.

    The cheap proof: a value that is written down again and gives the same bytes had no repeated member, at any
    depth, because a dictionary cannot write one.  Any other text takes the long way.
    """
    if data.count(b"{") + data.count(b"[") <= MAX_DEPTH:
        try:
            value = _decode_any(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError("not a JSON object") from error
        if type(value) is dict and _encode_any(value) == data:
            return value
    return parse_json_object(data)


def load_strictly(text: str) -> Any:
    """Return the value of one JSON text in which no object repeats a member and every number is one.

    Raises InputError or ValueError for any other text, RecursionError for one that is too deep: limit the depth first.
    """
    value = json.loads(
        text, object_pairs_hook=_unique_members, parse_constant=_refuse_constant, parse_float=_finite
    )
    if "\\u" in text:  # only an escape can make half of a surrogate pair
        # That has no UTF-8, and a name that cannot be written down cannot be compared either.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _limit_depth(data: bytes) -> None:
    """Refuse deep nesting before parsing; brackets inside strings count too, which only makes it stricter."""
    if data.count(b"{") + data.count(b"[") <= MAX_DEPTH:
        return
    depth = 0
    for byte in data:
        if byte in b"{[":
            depth += 1
            if depth > MAX_DEPTH:
                raise InputError(f"the JSON text is nested deeper than {MAX_DEPTH} levels")
        elif byte in b"}]":
            depth -= 1


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InputError("a JSON object repeats a member")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise InputError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InputError("a JSON number is too large")
    return number
