# SPDX-License-Identifier: Apache-2.0
"""What every event takes from its record: metadata, who, where, and what is left over."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from everyhop import __version__
from everyhop.auditlog.model import Kind, Point
from everyhop.auditlog.ocsf.objects import (
    Actor,
    Attestation,
    Endpoint,
    Fingerprint,
    Metadata,
    Observable,
    Product,
    Service,
    Unmapped,
    User,
    given,
)
from everyhop.auditlog.ocsf.values import (
    VERSION,
    VERSION_WITH_ATTESTATION,
    FingerprintAlgorithm,
    FingerprintEncoding,
    Observed,
    Severity,
    Status,
    UserType,
)

if TYPE_CHECKING:
    from everyhop.auditlog.model import Record

PRODUCT: Final = Product(name="everyhop", vendor_name="everyhop", version=__version__)
THE_SERVER: Final = Service(name="everyhop")
UNKNOWN: Final = "unknown"
OUTSIDE: Final = "outside"
"""The caller of a record at the edge; the same word as in the policy."""

_FIELDS: Final = (
    *("caller", "target", "operation", "method", "path"),
    *("rule", "snapshot", "status", "instance", "trace"),
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_SPIFFE: Final = "spiffe://"
_MAX_ADDRESS: Final = 64
_EXACT: Final = 2**53 // 1000  # seconds, of which milliseconds are made
_OWNER_KINDS: Final = frozenset({Kind.POLICY, Kind.KEY, Kind.LOG, Kind.RESPONSE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a record stands in the log: the index of its leaf (from 0), the log's origin, the leaf's hash."""

    index: int | None = None
    origin: str | None = None
    leaf: bytes | None = None


def base(
    record: Record,
    place: Place,
    *,
    class_uid: int,
    activity: int,
    severity: Severity,
    message: str,
    correlation: str | None = None,
    profiles: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return the members that all classes have, for the class's constructor."""
    is_attested = place.leaf is not None
    names = (*profiles, "record_integrity") if is_attested else profiles
    return {
        "category_uid": class_uid // 1000,
        "type_uid": class_uid * 100 + activity,
        "time": millis(record.time),
        "severity_id": severity,
        "message": message,
        "metadata": Metadata(
            version=VERSION_WITH_ATTESTATION if is_attested else VERSION,
            product=PRODUCT,
            uid=record.id,
            event_code=record.kind.value,
            log_provider=record.producer,
            profiles=names,
            correlation_uid=given(correlation),
            sequence=given(place.index),
            log_name=given(place.origin),
        ),
        "status_code": given(record.reason),
        "attestation_list": UNSET if place.leaf is None else (_attestation(place, place.leaf),),
    }


def millis(moment: datetime) -> int:
    """Return milliseconds since 1970, also for moments that no platform's clock can hold."""
    return (moment - _EPOCH) // _MILLISECOND


def status_of(record: Record) -> Status:
    """Return success, failure, or unknown where nothing was decided."""
    if record.decision is None:
        return Status.UNKNOWN
    return Status.SUCCESS if record.decision == "allow" else Status.FAILURE


def changed_status(record: Record) -> Status:
    """Return the status of a change: what was not refused took place."""
    return Status.FAILURE if record.decision == "deny" else Status.SUCCESS


def text_of(record: Record, name: str) -> str | None:
    """Return a text of ``detail``, None for an absent, empty or other value."""
    value = record.detail.get(name)
    return value if isinstance(value, str) and value else None


def whole_of(record: Record, name: str) -> int | None:
    """Return a whole number of ``detail`` that every reader of JSON can hold."""
    value = record.detail.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if abs(value) < _EXACT else None


def user_of(uid: str, *, is_owner: bool = False) -> User:
    """Return somebody by his name, with the type that it shows."""
    if uid.startswith(_SPIFFE):
        return User(uid=uid, type_id=UserType.SERVICE)
    if uid.startswith("~"):  # a pseudonym stands for a person or an address
        return User(uid=uid, type_id=UserType.USER)
    return User(uid=uid, type_id=UserType.ADMIN if is_owner else UserType.UNKNOWN)


def actor_of(record: Record) -> Actor:
    """Return who acted: the identity of the caller, and at the edge the person that it is for."""
    person = text_of(record, "user")
    if record.point is Point.EDGE and person is not None:
        return Actor(user=User(uid=person, type_id=UserType.USER))
    is_owner = record.kind in _OWNER_KINDS and record.caller is not None
    return Actor(user=user_of(record.caller or UNKNOWN, is_owner=is_owner))


def observables_of(record: Record) -> tuple[Observable, ...] | Any:
    """Return the person that a service acts for; ``actor`` is the service then."""
    person = text_of(record, "user")
    if person is None or record.point is Point.EDGE:
        return UNSET
    return (Observable(name="unmapped.detail.user", type_id=Observed.USER_NAME, value=person),)


def source_of(record: Record) -> Endpoint:
    """Return where the caller is."""
    caller = record.caller
    if caller is not None and caller.startswith(_SPIFFE):
        return Endpoint(uid=caller, svc_name=given(caller.rpartition("/")[2] or None))
    host = text_of(record, "host") if record.point is not Point.EGRESS else None
    ip = address_of(host)
    if ip is not None:
        return Endpoint(ip=ip, name=given(caller))
    return Endpoint(name=caller or UNKNOWN, uid=given(host))


def destination_of(record: Record) -> Endpoint | None:
    """Return the service that was called, and the instance that took the call."""
    host = text_of(record, "host") if record.point is Point.EGRESS else None
    if record.target is None and host is None:
        return None
    took = record.instance if record.point in {Point.INGRESS, Point.EDGE} else None
    return Endpoint(svc_name=given(record.target), hostname=given(host), instance_uid=given(took))


def address_of(text: str | None) -> str | None:
    """Return the address in ``ADDRESS``, ``ADDRESS:PORT`` or ``[ADDRESS]:PORT``; None for anything else."""
    if not text or len(text) > _MAX_ADDRESS or "%" in text:
        return None
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def left_over(record: Record, *mapped: str, without: tuple[str, ...] = ()) -> Unmapped:
    """Return what has no member of its own: fields of the record but the ``mapped`` ones, ``detail`` without some."""
    detail = {name: value for name, value in record.detail.items() if name not in without}
    mapped = (*mapped, *_mapped_by_all(record))
    fields = {name: given(getattr(record, name)) for name in _FIELDS if name not in mapped}
    return Unmapped(
        producer=record.producer,
        seq=record.seq,
        point=record.point.value,
        detail=detail or UNSET,
        **fields,
    )


def _mapped_by_all(record: Record) -> tuple[str, ...]:
    """Return what :func:`actor_of` and :func:`destination_of` have put somewhere."""
    is_person = record.point is Point.EDGE and text_of(record, "user") is not None
    return () if is_person else ("caller",)


def _attestation(place: Place, leaf: bytes) -> Attestation:
    return Attestation(
        fingerprint=Fingerprint(
            algorithm_id=FingerprintAlgorithm.SHA_256,
            encoding_id=FingerprintEncoding.HEX,
            value=leaf.hex(),
        ),
        uid=UNSET if place.index is None else str(place.index),
        chain_uid=given(place.origin),
        authority_uid=given(place.origin),
    )
