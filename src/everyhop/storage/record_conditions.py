# SPDX-License-Identifier: Apache-2.0
"""A ``RecordFilter`` in SQL: what ``RecordFilter.matches`` says in Python.

What has a column is asked by it, and by its index.  What has none is looked for in the line, as the codec writes it; that
can find too much, never too little, and the reader has the last word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import sqlalchemy as sa

from everyhop.storage.dialect import holds
from everyhop.storage.record_rows import findable
from everyhop.storage.schema import records, to_micros

if TYPE_CHECKING:
    from everyhop.auditlog.query import RecordFilter

_LAST_CHARACTER: Final = "\U0010ffff"


def conditions_of(wanted: RecordFilter) -> list[sa.ColumnElement[bool]]:
    """Return the conditions; what they let through is to be matched again where the filter looks within."""
    equal = {
        "target": wanted.service,
        "caller": wanted.caller,
        "decision": "deny" if wanted.denied else wanted.decision,
        "rule": wanted.rule,
        "kind": None if wanted.kind is None else wanted.kind.value,
        "subject": wanted.user,
    }
    conditions = [records.c[name] == findable(value) for name, value in equal.items() if value is not None]
    if wanted.kinds:
        conditions.append(records.c.kind.in_(sorted(kind.value for kind in wanted.kinds)))
    if wanted.since is not None:
        conditions.append(records.c.time >= to_micros(wanted.since))
    if wanted.until is not None:
        conditions.append(records.c.time < to_micros(wanted.until))
    if wanted.id_prefix:
        prefix = wanted.id_prefix
        conditions += [records.c.id >= prefix, records.c.id < prefix + _LAST_CHARACTER]
    return [*conditions, *_within(wanted)]


def place_of(wanted: RecordFilter) -> sa.ColumnElement[int]:
    """Return what to order by: for a few ids, something that no index gives, or the log would be walked to find them."""
    return records.c.n + 0 if wanted.id_prefix else records.c.n


def _within(wanted: RecordFilter) -> list[sa.ColumnElement[bool]]:
    said = {
        "operation": wanted.operation,
        "reason": wanted.reason,
        "point": None if wanted.point is None else wanted.point.value,
        "api_key": wanted.api_key,
    }
    conditions = [
        holds(records.c.line, _member(name, value)) for name, value in said.items() if value is not None
    ]
    if wanted.address is not None:
        # Without its last quotation mark, since a port may follow; of an IPv6 /64 only its beginning can be looked for.
        address = wanted.address.removesuffix("/64").removesuffix("::")
        if ":" in address:
            return conditions
        conditions.append(
            sa.or_(*(holds(records.c.line, _member(name, address)[:-1]) for name in ("host", "source")))
        )
    return conditions


def _member(name: str, value: str) -> bytes:
    return msgspec.json.encode(name) + b":" + msgspec.json.encode(value)
