# SPDX-License-Identifier: Apache-2.0
"""The five OCSF classes that records become.  ``class_uid`` is the tag that tells them apart."""

from __future__ import annotations

from typing import ClassVar, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from everyhop.auditlog.ocsf.objects import (
    Actor,
    Api,
    Attestation,
    Authorization,
    Endpoint,
    Entity,
    Evidence,
    FindingInfo,
    Flag,
    HttpRequest,
    HttpResponse,
    Metadata,
    Observable,
    Service,
    Session,
    Text,
    Trace,
    Unmapped,
    User,
)
from everyhop.auditlog.ocsf.values import (
    Action,
    ApiActivityId,
    AuthenticationId,
    AuthorizeSessionId,
    AuthProtocol,
    Disposition,
    EntityId,
    FindingId,
    FindingStatus,
    Severity,
    Status,
)


class OcsfEvent(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="class_uid", tag=0
):
    """What every event has.

    ``time`` is in milliseconds since 1970.  ``type_uid`` is the class times 100 plus the activity.  ``status_code`` is
    our reason, ``unmapped`` what OCSF has no member for.
    """

    class_uid: ClassVar[int] = 0
    category_uid: int
    type_uid: int
    time: int
    severity_id: Severity
    metadata: Metadata
    message: str
    activity_name: Text = UNSET
    status_code: Text = UNSET
    action_id: Action | UnsetType = UNSET
    disposition_id: Disposition | UnsetType = UNSET
    is_alert: Flag = UNSET
    authorizations: tuple[Authorization, ...] | UnsetType = UNSET
    observables: tuple[Observable, ...] | UnsetType = UNSET
    attestation_list: tuple[Attestation, ...] | UnsetType = UNSET
    unmapped: Unmapped | UnsetType = UNSET


class ApiActivity(OcsfEvent, frozen=True, kw_only=True, tag_field="class_uid", tag=6003):
    """A decision, what an owner did, or what somebody did in an application."""

    class_uid: ClassVar[int] = 6003
    activity_id: ApiActivityId
    actor: Actor
    api: Api
    src_endpoint: Endpoint
    status_id: Status
    dst_endpoint: Endpoint | UnsetType = UNSET
    http_request: HttpRequest | UnsetType = UNSET
    http_response: HttpResponse | UnsetType = UNSET
    trace: Trace | UnsetType = UNSET


class Authentication(OcsfEvent, frozen=True, kw_only=True, tag_field="class_uid", tag=3002):
    """An SVID or a token, issued or refused; a handshake that failed."""

    class_uid: ClassVar[int] = 3002
    activity_id: AuthenticationId
    user: User
    auth_protocol_id: AuthProtocol
    auth_protocol: str
    status_id: Status
    actor: Actor | UnsetType = UNSET
    src_endpoint: Endpoint | UnsetType = UNSET
    dst_endpoint: Endpoint | UnsetType = UNSET
    service: Service | UnsetType = UNSET
    session: Session | UnsetType = UNSET


class AuthorizeSession(OcsfEvent, frozen=True, kw_only=True, tag_field="class_uid", tag=3003):
    """Roles of a user put into a token."""

    class_uid: ClassVar[int] = 3003
    activity_id: AuthorizeSessionId
    user: User
    privileges: tuple[str, ...]
    status_id: Status
    actor: Actor | UnsetType = UNSET
    src_endpoint: Endpoint | UnsetType = UNSET
    dst_endpoint: Endpoint | UnsetType = UNSET
    session: Session | UnsetType = UNSET


class EntityManagement(OcsfEvent, frozen=True, kw_only=True, tag_field="class_uid", tag=3004):
    """A policy, key, API key, workload, block or the log itself was changed."""

    class_uid: ClassVar[int] = 3004
    activity_id: EntityId
    entity: Entity
    status_id: Status
    actor: Actor | UnsetType = UNSET
    comment: Text = UNSET


class DetectionFinding(OcsfEvent, frozen=True, kw_only=True, tag_field="class_uid", tag=2004):
    """What a detector found."""

    class_uid: ClassVar[int] = 2004
    activity_id: FindingId
    finding_info: FindingInfo
    status_id: FindingStatus
    evidences: tuple[Evidence, ...]


AnyEvent: TypeAlias = ApiActivity | Authentication | AuthorizeSession | EntityManagement | DetectionFinding
