# SPDX-License-Identifier: Apache-2.0
r"""Records in ArcSight's Common Event Format, version 0.

``CEF:0|Vendor|Product|Version|Event class|Name|Severity|Extension``.  In the header ``\`` and ``|`` are escaped, in
values of the extension ``\``, ``=``, and line ends as ``\n`` and ``\r``; a ``|`` there stands for itself.  A header has
no way to write a line end, so one becomes a space there.  Every other control character, and those that turn
the direction of text, become ``\\u001b`` in values: a text that says what was there.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final

from everyhop import __version__
from everyhop.auditlog import Kind

if TYPE_CHECKING:
    from everyhop.auditlog import Record
    from everyhop.auditlog.model import Scalar
    from everyhop.exports.model import Item

_UNSEEN: Final = re.compile(
    "[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_VALUE: Final = str.maketrans({"\\": r"\\", "=": r"\=", "\n": r"\n", "\r": r"\r"})
_HEADER: Final = str.maketrans({"\\": r"\\", "|": r"\|", "\n": " ", "\r": " "})
_SEVERITIES: Final = {"informational": 1, "info": 1, "low": 3, "medium": 5, "high": 8, "critical": 10}
_LOWEST, _NOTED, _DENIED, _ALARMING = 1, 3, 5, 8


def cef_of(item: Item) -> bytes:
    """Return the line of a record, UTF-8, without an end."""
    record = item.record
    header = "|".join(
        _in_header(part)
        for part in ("everyhop", "everyhop", __version__, _class_of(record), _name_of(record))
    )
    extension = " ".join(f"{key}={_in_value(value)}" for key, value in _extension(item) if value is not None)
    return f"CEF:0|{header}|{severity_of(record)}|{extension}".encode()


def severity_of(record: Record) -> int:
    """Return a number between 0 and 10."""
    if record.kind is Kind.FINDING:
        return _SEVERITIES.get(str(record.detail.get("severity", "")).lower(), _ALARMING)
    if record.kind is Kind.RESPONSE or (record.kind is Kind.LOG and record.operation == "gap"):
        return _ALARMING
    if record.decision == "deny":
        return _DENIED
    return _LOWEST if record.kind is Kind.DECISION else _NOTED


def _class_of(record: Record) -> str:
    return ":".join(part for part in (record.kind.value, record.decision, record.reason) if part)


def _name_of(record: Record) -> str:
    if record.kind is Kind.DECISION:
        return "call allowed" if record.decision == "allow" else "call denied"
    return " ".join(part for part in (record.kind.value, record.operation) if part)


def _extension(item: Item) -> list[tuple[str, Scalar]]:
    record = item.record
    host = record.detail.get("host")
    found: list[tuple[str, Scalar]] = [
        ("rt", int(record.time.timestamp() * 1000)),
        ("externalId", record.id),
        ("cat", record.kind.value),
        ("act", record.operation),
        ("outcome", record.decision),
        ("reason", record.reason),
        ("suid", record.caller),
        ("suser", record.detail.get("user")),
        ("src", host if isinstance(host, str) and _is_address(host) else None),
        ("destinationServiceName", record.target),
        ("requestMethod", record.method),
        ("request", record.path),
        ("deviceExternalId", record.producer),
    ]
    labelled = (
        ("cs1", "rule", record.rule),
        ("cs2", "snapshot", record.snapshot),
        ("cs3", "instance", record.instance),
        ("cs4", "point", record.point.value),
        ("cn1", "logIndex", item.index),
        ("cn2", "httpStatus", record.status),
        ("cfp1", "latencyMs", record.latency_ms),
    )
    for key, label, value in labelled:
        if value is not None:
            found += [(key, value), (f"{key}Label", label)]
    further = [f"{name}: {value}" for name, value in record.detail.items() if value is not None]
    return [*found, ("msg", "; ".join(further) or None)]


def _in_header(text: str) -> str:
    return (text if _is_seen(text) else _UNSEEN.sub(_named, text)).translate(_HEADER)


def _in_value(value: Scalar) -> str:
    text = str(value)
    if _is_seen(text):  # most are: half the time of a line
        return text.replace("\\", r"\\").replace("=", r"\=")
    return _UNSEEN.sub(_named, text).translate(_VALUE)


def _is_seen(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _named(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
