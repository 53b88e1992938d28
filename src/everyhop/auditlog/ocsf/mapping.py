# SPDX-License-Identifier: Apache-2.0
"""Which class a record becomes.  Total: every record that can exist has exactly one event."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, assert_never

import msgspec

from everyhop.auditlog.model import Kind
from everyhop.auditlog.ocsf._activities import api_activity
from everyhop.auditlog.ocsf._changes import entity_management
from everyhop.auditlog.ocsf._common import Place
from everyhop.auditlog.ocsf._findings import detection_finding
from everyhop.auditlog.ocsf._identities import (
    authentication,
    authorize_session,
    carries_roles,
    is_handshake,
)
from everyhop.core.printable import escape_json_line

if TYPE_CHECKING:
    from everyhop.auditlog.model import Record
    from everyhop.auditlog.ocsf.classes import AnyEvent

_ISSUES: Final = frozenset({"mint", "exchange", "oauth"})
_READS: Final = frozenset({"read", "export"})
_CALLS: Final = frozenset({"connection-closed"})
_encoder: Final = msgspec.json.Encoder()


def event_of(
    record: Record, *, index: int | None = None, origin: str | None = None, leaf: bytes | None = None
) -> AnyEvent:
    """Return a record as an OCSF event; never raises.

    ``index`` is that of the record's leaf in the log (from 0), ``origin`` the log's name.  With ``leaf``, the leaf's
    hash (:func:`leaf_hash_of`), the event carries an attestation, by a profile that is in no OCSF release yet.  What
    the event says about persons is what the record says: a pseudonym, unless it was resolved before.
    """
    place = Place(index=index, origin=origin, leaf=leaf)
    match record.kind:
        case Kind.DECISION:
            is_failed = is_handshake(record)
            return authentication(record, place) if is_failed else api_activity(record, place)
        case Kind.IDENTITY:
            return authentication(record, place)
        case Kind.TOKEN:
            if record.operation not in _ISSUES:
                return entity_management(record, place)
            has_roles = carries_roles(record)
            return authorize_session(record, place) if has_roles else authentication(record, place)
        case Kind.APPLICATION:
            return api_activity(record, place)
        case Kind.LOG:
            is_read = record.operation in _READS
            return api_activity(record, place) if is_read else entity_management(record, place)
        case Kind.LIFECYCLE:
            is_call = record.reason in _CALLS
            return api_activity(record, place) if is_call else entity_management(record, place)
        case Kind.FINDING:
            return detection_finding(record, place)
        case Kind.KEY | Kind.POLICY | Kind.RESPONSE:
            return entity_management(record, place)
        case _:
            assert_never(record.kind)


def encode_event(event: AnyEvent) -> bytes:
    """Return an event as one line of JSON without its newline; what is not printable is escaped."""
    return escape_json_line(_encoder.encode(event))


def leaf_hash_of(line: bytes) -> bytes:
    """Return the hash of a leaf, given the record's line as it is stored (RFC 6962 section 2.1)."""
    return hashlib.sha256(b"\x00" + line).digest()
