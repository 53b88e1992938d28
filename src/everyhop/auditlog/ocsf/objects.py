# SPDX-License-Identifier: Apache-2.0
"""The objects inside our OCSF events: only what we emit, under the names of the schema.

A member that says nothing is absent, never null.  What OCSF requires has no default here, so it cannot be forgotten.
"""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from everyhop.auditlog.model import Scalar
from everyhop.auditlog.ocsf.values import (
    AnalyticType,
    EntityType,
    FingerprintAlgorithm,
    FingerprintEncoding,
    Observed,
    UserType,
)

T = TypeVar("T")
Text: TypeAlias = str | UnsetType
Whole: TypeAlias = int | UnsetType
Flag: TypeAlias = bool | UnsetType


def given(value: T | None) -> T | UnsetType:
    """Return ``value``, or what stands for an absent member."""
    return UNSET if value is None else value


class OcsfObject(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every object."""


class Product(OcsfObject, frozen=True):
    """Who made the event."""

    name: str
    vendor_name: str
    version: str


class Metadata(OcsfObject, frozen=True):
    """``uid`` is the record's id, ``correlation_uid`` the decision's, ``sequence`` the leaf's index, ``log_name`` the origin.

    ``log_provider`` is the producer of the record, ``event_code`` our kind of record.
    """

    version: str
    product: Product
    uid: str
    event_code: str
    log_provider: str
    profiles: tuple[str, ...]
    correlation_uid: Text = UNSET
    sequence: Whole = UNSET
    log_name: Text = UNSET


class User(OcsfObject, frozen=True):
    """A service by its SPIFFE ID, or a person by a pseudonym."""

    uid: str
    type_id: UserType


class Actor(OcsfObject, frozen=True):
    """Who acted."""

    user: User


class Endpoint(OcsfObject, frozen=True):
    """One side of a connection; at least one member is there."""

    uid: Text = UNSET
    svc_name: Text = UNSET
    name: Text = UNSET
    ip: Text = UNSET
    hostname: Text = UNSET
    instance_uid: Text = UNSET


class Service(OcsfObject, frozen=True):
    """A service that was asked for something."""

    name: str
    uid: Text = UNSET


class ApiRequest(OcsfObject, frozen=True):
    """``uid`` is the decision's id."""

    uid: str


class ApiResponse(OcsfObject, frozen=True):
    """``code`` is the HTTP status, ``error`` our reason for a refusal."""

    code: Whole = UNSET
    error: Text = UNSET


class Api(OcsfObject, frozen=True):
    """``operation`` is the operation that the policy declares, or the method where it declares none."""

    operation: str
    service: Service | UnsetType = UNSET
    request: ApiRequest | UnsetType = UNSET
    response: ApiResponse | UnsetType = UNSET


class Url(OcsfObject, frozen=True):
    """``path`` is the raw path without its query."""

    path: str


class HttpRequest(OcsfObject, frozen=True):
    """The request as far as it is recorded."""

    http_method: Text = UNSET
    url: Url | UnsetType = UNSET
    uid: Text = UNSET


class HttpResponse(OcsfObject, frozen=True):
    """``latency`` in milliseconds."""

    code: int
    latency: Whole = UNSET


class Policy(OcsfObject, frozen=True):
    """``uid`` is the hash of the snapshot, ``name`` the rule in it."""

    is_applied: bool
    uid: Text = UNSET
    name: Text = UNSET


class Authorization(OcsfObject, frozen=True):
    """What a policy decided; ``policy.is_applied`` is false for one that is only watched."""

    decision: str
    policy: Policy | UnsetType = UNSET


class Span(OcsfObject, frozen=True):
    """Times in milliseconds."""

    uid: str
    start_time: int
    end_time: int


class Trace(OcsfObject, frozen=True):
    """The W3C trace that a call was part of."""

    uid: str
    span: Span | UnsetType = UNSET


class Observable(OcsfObject, frozen=True):
    """A value that an analyst looks for, and where in the event it stands."""

    name: str
    type_id: Observed
    value: str


class ManagedPolicy(OcsfObject, frozen=True):
    """The policy that was changed."""

    uid: str
    is_applied: bool


class Entity(OcsfObject, frozen=True):
    """What was changed."""

    type: str
    name: Text = UNSET
    uid: Text = UNSET
    type_id: EntityType | UnsetType = UNSET
    policy: ManagedPolicy | UnsetType = UNSET
    user: User | UnsetType = UNSET


class Session(OcsfObject, frozen=True):
    """``uid`` is the id of the token."""

    uid: Text = UNSET
    expiration_time: Whole = UNSET


class Analytic(OcsfObject, frozen=True):
    """What found something."""

    name: str
    type_id: AnalyticType
    uid: str


class RelatedEvent(OcsfObject, frozen=True):
    """``uid`` is the id of a record, which is ``metadata.uid`` of its event."""

    uid: str


class FindingInfo(OcsfObject, frozen=True):
    """``uid`` is the id of the finding's record; times in milliseconds."""

    uid: str
    title: str
    analytic: Analytic
    created_time: int
    desc: Text = UNSET
    first_seen_time: Whole = UNSET
    last_seen_time: Whole = UNSET
    related_events: tuple[RelatedEvent, ...] | UnsetType = UNSET
    related_events_count: Whole = UNSET


class Evidence(OcsfObject, frozen=True):
    """Whom a finding is about, and the figures that it rests on."""

    data: dict[str, Scalar]
    user: User | UnsetType = UNSET


class Unmapped(OcsfObject, frozen=True):
    """What OCSF has no member for: the record's place, and its further facts as they were recorded."""

    producer: str
    seq: int
    point: str
    caller: Text = UNSET
    target: Text = UNSET
    operation: Text = UNSET
    method: Text = UNSET
    path: Text = UNSET
    rule: Text = UNSET
    snapshot: Text = UNSET
    status: Whole = UNSET
    instance: Text = UNSET
    trace: Text = UNSET
    detail: dict[str, Scalar] | UnsetType = UNSET


class Fingerprint(OcsfObject, frozen=True):
    """A hash; ``value`` in hexadecimal."""

    algorithm_id: FingerprintAlgorithm
    encoding_id: FingerprintEncoding
    value: str


class Attestation(OcsfObject, frozen=True):
    """The leaf of this record in the log: ``uid`` its index, ``chain_uid`` the log's origin.

    The fingerprint is of the record's stored line behind a zero byte (RFC 6962 section 2.1), not of this event.
    """

    fingerprint: Fingerprint
    uid: Text = UNSET
    chain_uid: Text = UNSET
    authority_uid: Text = UNSET
