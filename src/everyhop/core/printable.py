# SPDX-License-Identifier: Apache-2.0
"""JSON that a terminal, a log viewer and a reader of lines all take for what it is."""

from __future__ import annotations

from typing import Final

_BMP: Final = 0xFFFF


def escape_json(text: str, *, keep: str = "") -> str:
    r"""Return JSON text with every character that is not printable as ``\uXXXX``, except those in ``keep``.

    JSON itself escapes only what is below U+0020: a direction override, a line separator or a control character of
    Unicode would pass, and they make a line look like another one, or like two.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def escape_json_line(line: bytes) -> bytes:
    """Return one line of JSON in UTF-8 likewise; plain ASCII, the usual case, is returned as it is."""
    if line.isascii():
        return line.replace(b"\x7f", b"\\u007f")
    return escape_json(line.decode()).encode()


def _escaped(character: str) -> str:
    code = ord(character)
    if code <= _BMP:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
