# SPDX-License-Identifier: Apache-2.0
"""Just enough HTTP/2 to send header blocks that no library would send (RFC 9113)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from hpack import Decoder, Encoder

from everyhop.demo.raw import PATIENCE_SECONDS, READ_BYTES, Connection, Reply, describe_error

if TYPE_CHECKING:
    from collections.abc import Sequence

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x7
_END_STREAM, _END_HEADERS = 0x1, 0x4
_HEADER_BYTES: Final = 9


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Write one frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def call(connection: Connection, headers: Sequence[tuple[str, str]], *, body: bytes | None = None) -> Reply:
    """Send one request with exactly these headers (pseudo-headers included) and tell what comes back."""
    block = Encoder().encode([(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers])
    flags = _END_HEADERS | (_END_STREAM if body is None else 0)
    data = PREFACE + frame(_SETTINGS, 0, 0, b"") + frame(_HEADERS, flags, 1, block)
    if body is not None:
        data += frame(_DATA, _END_STREAM, 1, body)
    connection.settimeout(PATIENCE_SECONDS)
    try:
        connection.sendall(data)
        return _read(connection)
    except OSError as error:
        return Reply(end=describe_error(error))


def _read(connection: Connection) -> Reply:
    decoder, buffer, body = Decoder(), b"", b""
    headers: tuple[tuple[str, str], ...] = ()
    while True:
        while len(buffer) < _HEADER_BYTES or len(buffer) < _HEADER_BYTES + int.from_bytes(buffer[:3], "big"):
            part = connection.recv(READ_BYTES)
            if not part:
                return Reply(end="closed")
            buffer += part
        end = _HEADER_BYTES + int.from_bytes(buffer[:3], "big")
        kind, flags = buffer[3], buffer[4]
        payload, buffer = buffer[_HEADER_BYTES:end], buffer[end:]
        if kind == _RST_STREAM:
            return Reply(end="stream reset")
        if kind == _GOAWAY:
            return Reply(end="connection ended")
        if kind == _HEADERS:
            headers = tuple((_text(n), _text(v)) for n, v in decoder.decode(payload, raw=True))
        elif kind == _DATA:
            body += payload
        if kind in {_HEADERS, _DATA} and flags & _END_STREAM:
            status = next((int(value) for name, value in headers if name == ":status"), None)
            return Reply(status=status, headers=headers, body=body)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
