# SPDX-License-Identifier: Apache-2.0
"""What happens to every record before it is signed or sealed: credentials out, then within its bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.auditlog.budget import fit
from everyhop.auditlog.model import MAX_DETAILS, MAX_NAME, MAX_TEXT
from everyhop.auditlog.redaction import may_hold_secret, redact, without_random_pieces

if TYPE_CHECKING:
    from everyhop.auditlog.model import Record, Scalar

_LARGEST: Final = 2**63


def prepared(record: Record) -> Record:
    """Return the record as it may be signed and sealed; never raises, and doing it twice changes nothing.

    A producer calls it before it signs.  The append path calls it again, for whoever did not.
    """
    return record if _is_plain(record) else fit(redact(record))


def _is_plain(record: Record) -> bool:
    """Tell at once whether there is nothing to do; so it is for nearly every record, and there are many."""
    r, detail = record, record.detail
    if len(detail) > MAX_DETAILS or not all(map(_is_small, detail.values())):
        return False
    path = r.path or ""
    texts = [r.caller, r.target, r.operation, r.rule, r.reason, r.instance, r.method, path]
    texts += detail
    texts += [value for value in detail.values() if type(value) is str]
    joined = "\n".join([text for text in texts if text])
    if len(joined) > MAX_TEXT or not joined.isascii() or may_hold_secret(joined):
        return False
    names = (r.id, r.producer, r.method or "", r.snapshot or "", *detail)
    if max(map(len, names)) > MAX_NAME or not (r.id + r.producer + (r.snapshot or "")).isascii():
        return False
    return "" not in detail and "?" not in path and without_random_pieces(path) == path


def _is_small(value: Scalar) -> bool:
    return type(value) is not int or -_LARGEST <= value < _LARGEST
