# SPDX-License-Identifier: Apache-2.0
"""Messages of syslog (RFC 5424) and their frame on a stream (RFC 5425 section 4.3)."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

from everyhop.auditlog import Kind
from everyhop.core.clock import rfc3339

if TYPE_CHECKING:
    from everyhop.auditlog import Record
    from everyhop.exports.model import Item

APP_NAME: Final = "everyhop"
FACILITIES: Final = {
    "kern": 0,
    "user": 1,
    "mail": 2,
    "daemon": 3,
    "auth": 4,
    "syslog": 5,
    "cron": 9,
    "authpriv": 10,
    "audit": 13,
    "alert": 14,
    **{f"local{n}": 16 + n for n in range(8)},
}
MIN_BYTES: Final = 1024  # header and structured data always fit
MAX_BYTES: Final = 256 * 1024
_CRITICAL, _ERROR, _WARNING, _NOTICE, _INFO = 2, 3, 4, 5, 6
_FINDINGS: Final = {"critical": _CRITICAL, "high": _ERROR, "medium": _WARNING, "low": _NOTICE}
_PLAIN: Final = re.compile(r"[^\x21-\x7e]", re.ASCII)
_SD_ID: Final = re.compile(r'[^\x00-\x20="\]\x7f-\U0010ffff]{1,32}')
_VALUE: Final = re.compile(r'["\\\]]')


def is_sd_id(text: str) -> bool:
    """Tell whether ``text`` may name structured data (section 6.3.2); names of our own hold an ``@`` and a number."""
    name, at, number = text.partition("@")
    return bool(_SD_ID.fullmatch(text) and name and at and re.fullmatch(r"[0-9]+(\.[0-9]+)*", number))


def severity_of(record: Record) -> int:
    """Return the severity of a record (section 6.2.1).

    2 to 5 for a finding by its own severity, 3 for records that may be missing, 4 for a denial or a block, 6 for an
    allowed call, and 5 for everything else.
    """
    if record.kind is Kind.FINDING:
        return _FINDINGS.get(str(record.detail.get("severity", "")).lower(), _WARNING)
    if record.kind is Kind.LOG and record.operation in {"gap", "may-have-lost"}:
        return _ERROR
    if record.decision == "deny" or record.kind is Kind.RESPONSE:
        return _WARNING
    return _INFO if record.kind is Kind.DECISION else _NOTICE


def message_of(item: Item, body: bytes, *, facility: int, hostname: str, sd_id: str, max_bytes: int) -> bytes:
    """Return one message of at most ``max_bytes``.

    The structured data has ``id`` and ``index``.  A body that does not fit is cut at the end of a character; then
    ``sha256`` is the hash of the whole body in hex and ``length`` its bytes.  MSG is UTF-8 without a byte order mark,
    which most receivers would hand on as a part of the JSON.
    """
    record = item.record
    head = (
        f"<{facility * 8 + severity_of(record)}>1 {rfc3339(record.time)} {_field(hostname, 255)} {APP_NAME}"
        f" {_field(record.producer, 128)} {_field(record.kind.value, 32)} "
    ).encode()
    names = {"id": record.id[:128], "index": str(item.index)}
    whole = head + _structured(sd_id, names) + b" " + body
    if len(whole) <= max_bytes:
        return whole
    names |= {"sha256": hashlib.sha256(body).hexdigest(), "length": str(len(body))}
    start = head + _structured(sd_id, names) + b" "
    return start + cut_text(body, max_bytes - len(start))


def frame_of(message: bytes) -> bytes:
    """Return a message with its length before it (RFC 5425 section 4.3)."""
    return b"%d %b" % (len(message), message)


def cut_text(text: bytes, size: int) -> bytes:
    """Cut UTF-8 to at most ``size`` bytes without splitting a character."""
    if size <= 0:
        return b""
    if len(text) <= size:
        return text
    while size and (text[size] & 0xC0) == 0x80:  # noqa: PLR2004  # a byte inside a character
        size -= 1
    return text[:size]


def _structured(sd_id: str, values: dict[str, str]) -> bytes:
    parts = "".join(f' {name}="{_VALUE.sub(_escaped, _seen(value))}"' for name, value in values.items())
    return f"[{sd_id}{parts}]".encode("utf-8", "replace")


def _seen(text: str) -> str:
    return "".join(c if c.isprintable() else "_" for c in text)


def _escaped(match: re.Match[str]) -> str:
    return "\\" + match[0]


def _field(text: str, limit: int) -> str:
    """Return a header field: printable ASCII without spaces, ``-`` for nothing."""
    return _PLAIN.sub("_", text)[:limit] or "-"
