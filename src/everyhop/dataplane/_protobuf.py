# SPDX-License-Identifier: Apache-2.0
"""Resources from JSON to protobuf's wire format, by the tables of :mod:`everyhop.dataplane._schema`.

Envoy's own definitions would be the other way; as a package they overwrite files of other packages (DESIGN
section 4).  A field that the tables do not know is an error here, before Envoy sees it.
"""

from __future__ import annotations

import struct
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from everyhop.dataplane._schema import MESSAGES, Field

if TYPE_CHECKING:
    from collections.abc import Iterator

_TYPE: Final = "type.googleapis.com/"
_TYPED_STRUCT: Final = _TYPE + "xds.type.v3.TypedStruct"
_NANO: Final = 1_000_000_000
_UNSIGNED: Final = 2**64 - 1


class Prepared(dict[str, Any]):
    """A message as JSON that knows its bytes: what stands in thousands of places, or again and again, is encoded once."""

    __slots__ = ("encoded",)

    def __init__(self, message: str, fields: dict[str, Any]) -> None:
        super().__init__(fields)
        self.encoded = encode_message(message, fields)


def encode_any(value: dict[str, Any]) -> bytes:
    """Return a ``google.protobuf.Any`` of a JSON object with ``@type``.

    Raises KeyError for a field that a known message does not have.
    """
    url = value["@type"]
    fields = {key: inner for key, inner in value.items() if key != "@type"}
    name = url.removeprefix(_TYPE)
    if name in MESSAGES:
        return _text(1, url) + _bytes(2, encode_message(name, fields))
    return _text(1, _TYPED_STRUCT) + _bytes(2, _text(1, url) + _bytes(2, _struct(fields)))


def encode_resource(value: dict[str, Any]) -> tuple[str, bytes]:
    """Return type URL and bytes of a top-level resource; raises KeyError when its message is not known."""
    fields = {key: inner for key, inner in value.items() if key != "@type"}
    return value["@type"], encode_message(value["@type"].removeprefix(_TYPE), fields)


def encode_message(name: str, value: dict[str, Any]) -> bytes:
    """Return a message's bytes; members are written in the order of the JSON."""
    if isinstance(value, Prepared):
        return value.encoded
    message = MESSAGES[name]
    parts = []
    for key, inner in value.items():
        field = message[key]
        if field.kind == "map":
            parts += [
                _bytes(field.number, _text(1, name) + _bytes(2, encoded))
                for name, encoded in _map_values(field, inner)
            ]
        elif isinstance(inner, list):
            parts += [_field(field, entry) for entry in inner]
        else:
            parts.append(_field(field, inner))
    return b"".join(parts)


def _map_values(field: Field, entries: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield a map's keys with their encoded values.

    A map may come half decoded, its values still text (``msgspec.Raw``): the thousands of operations of a large
    policy have few different sets of callers, and what is the same text need be encoded only once.
    """
    known: dict[bytes, bytes] = {}
    for name, entry in entries.items():
        if not isinstance(entry, msgspec.Raw):
            yield name, encode_any(entry) if field.of == "any" else encode_message(str(field.of), entry)
            continue
        text = bytes(entry)
        encoded = known.get(text)
        if encoded is None:
            encoded = known[text] = encode_message(str(field.of), msgspec.json.decode(text))
        yield name, encoded


def _field(field: Field, value: Any) -> bytes:
    number = field.number
    match field.kind:
        case "string":
            return _text(number, value)
        case "message":
            return _bytes(number, encode_message(str(field.of), value))
        case "any":
            return _bytes(number, encode_any(value))
        case "uint" | "bool":
            return _integer(number, int(value))
        case "int":
            return _integer(number, int(value) & _UNSIGNED)
        case "double":
            return _key(number, 1) + struct.pack("<d", value)
        case "enum" if isinstance(field.of, dict):
            return _integer(number, field.of[value])
        case "uint_value" | "bool_value":
            return _bytes(number, _integer(1, int(value)))
        case "duration":
            return _bytes(number, _duration(value))
    raise TypeError(f"no encoding for {field}")


def _duration(text: str) -> bytes:
    """Return ``google.protobuf.Duration`` of a text such as ``0.25s``."""
    seconds, nanoseconds = divmod(int(Decimal(text.removesuffix("s")) * _NANO), _NANO)
    return _integer(1, seconds) + _integer(2, nanoseconds)


def _struct(value: dict[str, Any]) -> bytes:
    return b"".join(_bytes(1, _text(1, key) + _bytes(2, _value(inner))) for key, inner in value.items())


def _value(value: Any) -> bytes:
    """Return ``google.protobuf.Value``."""
    if value is None:
        return _integer(1, 0)
    if isinstance(value, bool):
        return _integer(4, int(value))
    if isinstance(value, int | float):
        return _key(2, 1) + struct.pack("<d", value)
    if isinstance(value, str):
        return _text(3, value)
    if isinstance(value, dict):
        return _bytes(5, _struct(value))
    return _bytes(6, b"".join(_bytes(1, _value(inner)) for inner in value))


_BYTES: Final = tuple(bytes([n]) for n in range(128))


def _varint(value: int) -> bytes:
    if value < 128:  # noqa: PLR2004  # one byte; by far the most common
        return _BYTES[value]
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004  # seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@lru_cache(maxsize=256)
def _key(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _integer(number: int, value: int) -> bytes:
    return _key(number, 0) + _varint(value)


def _bytes(number: int, value: bytes) -> bytes:
    return _key(number, 2) + _varint(len(value)) + value


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode())
