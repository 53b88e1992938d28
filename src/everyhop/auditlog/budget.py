# SPDX-License-Identifier: Apache-2.0
"""The size of a record: bounded at every producer, and nothing is refused for its length.

A leaf of the log has at most 65,535 bytes (C2SP tlog-tiles), a record at most 48 KiB.  What does not fit is cut, and the
cut says what stood there: ``beginning…[sha256:HEX:BYTES]``, so that whoever has the whole text can prove that it is it.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

import msgspec

from everyhop.auditlog.codec import encode_record
from everyhop.auditlog.model import MAX_DETAILS, MAX_NAME, MAX_PATH, MAX_TEXT, Record, Scalar

MAX_RECORD_BYTES: Final = 48 * 1024
REST: Final = "rest"
"""The detail that stands for further details."""

_LONGEST_ESCAPE: Final = 6
_REFERENCE: Final = re.compile(r"\[sha256:[0-9a-f]{64}:[0-9]{1,19}\]\Z")
_REFERENCE_LENGTH: Final = 100
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_LARGEST: Final = 2**63
_KEEP: Final = (512, 128, 32)
_TEXTS: Final = ("caller", "target", "operation", "rule", "reason", "instance")
_NAMES: Final = ("id", "producer", "method", "snapshot")
_KEPT_DETAILS: Final = ("user", "decision", "host", "api_key", "code", "would")


def fit(record: Record) -> Record:
    """Return the record within all bounds of the model and 48 KiB; the same object when it is already.

    Never raises.  Fitting twice changes nothing.
    """
    changed = _bounded(record)
    if changed:
        record = msgspec.structs.replace(record, **changed)
    if _at_most(record) <= MAX_RECORD_BYTES or len(encode_record(record)) <= MAX_RECORD_BYTES:
        return record
    for keep in _KEEP:
        record = _shortened(record, keep)
        if len(encode_record(record)) <= MAX_RECORD_BYTES:
            return record
    return _folded(record)


def refer(text: str, keep: int) -> str:
    """Return at most ``keep`` characters of ``text`` and behind them, when it is cut, its SHA-256 and length in bytes.

    A text that was cut before keeps its reference.
    """
    if len(text) <= keep + _REFERENCE_LENGTH:
        return text
    earlier = _REFERENCE.search(text[-_REFERENCE_LENGTH:])
    if earlier is not None:
        return f"{text[:keep]}…{earlier[0]}"
    raw = text.encode()
    return f"{text[:keep]}…[sha256:{hashlib.sha256(raw).hexdigest()}:{len(raw)}]"


def _bounded(record: Record) -> dict[str, Any]:
    """Return what is beyond a bound of the model, cut; and what could not be written as UTF-8 or JSON."""
    changed: dict[str, Any] = {}
    for names, limit in ((_NAMES, MAX_NAME), (_TEXTS, MAX_TEXT), (("path",), MAX_PATH)):
        for name in names:
            text = getattr(record, name)
            if text is not None and (fitting := _fitting(text, limit)) is not text:
                changed[name] = fitting
    detail = _bounded_detail(record.detail)
    if detail is not None:
        changed["detail"] = detail
    return changed


def _bounded_detail(detail: dict[str, Scalar]) -> dict[str, Scalar] | None:
    is_changed = False
    found: dict[str, Scalar] = {}
    for name, value in detail.items():
        fitting_name = _fitting(name, MAX_NAME) or "-"
        fitting: Scalar = value
        if isinstance(value, str):
            fitting = _fitting(value, MAX_TEXT)
        elif isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
            fitting = "a number beyond 64 bits"
        is_changed |= fitting is not value or fitting_name is not name
        found[fitting_name] = fitting
    if len(found) > MAX_DETAILS:
        return _fold(found)
    return found if is_changed else None


def _fitting(text: str, limit: int) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # a lone surrogate: half of a character that was never there
            text = _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
    if len(text) <= limit:
        return text
    return text[: limit - 1] + "…" if limit <= MAX_NAME else refer(text, limit - _REFERENCE_LENGTH)


def _at_most(record: Record) -> int:
    """Return a size that the record cannot exceed, without writing it."""
    texts = sum(len(text) for name in (*_TEXTS, *_NAMES, "path") if (text := getattr(record, name)))
    details = sum(len(k) + (len(v) if isinstance(v, str) else 24) for k, v in record.detail.items())
    return _LONGEST_ESCAPE * (texts + details) + 64 * len(record.detail) + 1024


def _shortened(record: Record, keep: int) -> Record:
    detail = {k: refer(v, keep) if isinstance(v, str) else v for k, v in record.detail.items()}
    texts: dict[str, Any] = {
        name: refer(text, keep) for name in _TEXTS if (text := getattr(record, name)) is not None
    }
    path = None if record.path is None else refer(record.path, 2 * keep)
    return msgspec.structs.replace(record, detail=detail, path=path, **texts)


def _folded(record: Record) -> Record:
    return msgspec.structs.replace(record, detail=_fold(record.detail, most=len(_KEPT_DETAILS)))


def _fold(detail: dict[str, Scalar], *, most: int = MAX_DETAILS - 1) -> dict[str, Scalar]:
    """Return the most telling details; one stands for the others, with the hash of them as JSON."""
    names = sorted(detail, key=lambda name: name not in _KEPT_DETAILS)
    kept = {name: detail[name] for name in names[:most] if name != REST}
    others = msgspec.json.encode({name: detail[name] for name in names if name not in kept})
    return kept | {REST: f"…[sha256:{hashlib.sha256(others).hexdigest()}:{len(others)}]"}
