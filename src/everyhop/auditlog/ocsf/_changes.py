# SPDX-License-Identifier: Apache-2.0
"""Changes of policy, keys, API keys, workloads, blocks and the log as Entity Management (3004)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from everyhop.auditlog.model import Kind
from everyhop.auditlog.ocsf import _common as common
from everyhop.auditlog.ocsf.classes import EntityManagement
from everyhop.auditlog.ocsf.objects import Entity, ManagedPolicy, given
from everyhop.auditlog.ocsf.values import (
    Action,
    Disposition,
    EntityId,
    EntityType,
    Severity,
    Status,
)

if TYPE_CHECKING:
    from everyhop.auditlog.model import Record

_ACTIVITIES: Final = {
    "apply": EntityId.UPDATE,
    "reject": EntityId.UPDATE,
    "propose": EntityId.CREATE,
    "approve": EntityId.ACTIVATE,
    "refuse": EntityId.DEACTIVATE,
    "supersede": EntityId.DEACTIVATE,
    "create": EntityId.CREATE,
    "prepare": EntityId.CREATE,
    "activate": EntityId.ACTIVATE,
    "retire": EntityId.DEACTIVATE,
    "retain": EntityId.DEACTIVATE,
    "remove": EntityId.DELETE,
    "delete": EntityId.DELETE,
    "rotate": EntityId.UPDATE,
    "revoke": EntityId.DEACTIVATE,
    "enable": EntityId.ENABLE,
    "disable": EntityId.DISABLE,
    "start": EntityId.ENROLL,
    "end": EntityId.UNENROLL,
    "stop": EntityId.UNENROLL,
    "crash": EntityId.UNENROLL,
    "block": EntityId.SUSPEND,
    "quarantine": EntityId.SUSPEND,
    "unblock": EntityId.RESUME,
    "forget": EntityId.DELETE,
    "key": EntityId.UPDATE,
}
_API_KEY: Final = "-api-key"
_LOSSES: Final = frozenset({"gap", "may-have-lost"})
_RESTRICTING: Final = frozenset({"block", "quarantine"})


def entity_management(record: Record, place: common.Place) -> EntityManagement:
    """Return the event of a change, done or refused."""
    verb = (record.operation or "").removesuffix(_API_KEY)
    activity = _ACTIVITIES.get(verb, EntityId.OTHER)
    status = common.changed_status(record)
    entity = _entity(record)
    what = entity.name if isinstance(entity.name, str) else entity.uid
    why = f": {record.reason}" if record.reason else ""
    action, disposition = _control(record, verb)
    return EntityManagement(
        **common.base(
            record,
            place,
            class_uid=EntityManagement.class_uid,
            activity=activity,
            severity=_severity(record, status),
            message=f"{record.operation or record.kind.value} of {entity.type} {what}{why}",
            profiles=() if action is None else ("security_control",),
        ),
        activity_id=activity,
        activity_name=UNSET if activity is not EntityId.OTHER else verb or record.reason or record.kind.value,
        entity=entity,
        actor=common.actor_of(record),
        status_id=status,
        comment=given(common.text_of(record, "reason")),
        action_id=given(action),
        disposition_id=given(disposition),
        unmapped=common.left_over(record, *(("snapshot",) if record.kind is Kind.POLICY else ())),
    )


def _entity(record: Record) -> Entity:
    match record.kind:
        case Kind.POLICY:
            source = common.text_of(record, "source")
            uid = record.snapshot or common.UNKNOWN
            applied = record.decision != "deny" and record.operation in {"apply", "approve"}
            policy = ManagedPolicy(uid=uid, is_applied=applied)
            return Entity(
                type="policy", type_id=EntityType.POLICY, uid=uid, name=given(source), policy=policy
            )
        case Kind.KEY:
            key_id = common.text_of(record, "authority") or common.UNKNOWN
            kind = common.text_of(record, "authority_kind") or common.text_of(record, "algorithm")
            return Entity(type="key", uid=key_id, name=given(kind))
        case Kind.TOKEN:
            key = common.text_of(record, "api_key")
            if key is not None:
                return Entity(type="api-key", uid=key)
            told = (common.text_of(record, name) for name in ("jti", "txn", "sub", "subject"))
            return Entity(type="token", uid=next((uid for uid in told if uid), common.UNKNOWN))
        case Kind.RESPONSE:
            uid = _subject(record)
            return Entity(type="subject", uid=uid, user=common.user_of(uid.partition(":")[2] or uid))
        case Kind.LOG:
            return _of_log(record)
        case _:
            uid = record.instance or record.producer
            return Entity(type="workload", uid=uid, name=given(record.target))


def _of_log(record: Record) -> Entity:
    subject = common.text_of(record, "subject")
    if record.operation == "forget" and subject is not None:
        return Entity(type="pseudonym", type_id=EntityType.USER, uid=subject, user=common.user_of(subject))
    return Entity(type="audit-log", name="records", uid=record.producer)


def _subject(record: Record) -> str:
    user = common.text_of(record, "user")
    if common.text_of(record, "block") == "user" and user is not None:  # a user has a member of their own
        return f"user:{user}"
    found = (common.text_of(record, name) for name in ("subject", "block"))
    return next((text for text in found if text), record.target or record.caller or common.UNKNOWN)


def _control(record: Record, verb: str) -> tuple[Action | None, Disposition | None]:
    if record.kind is Kind.RESPONSE and verb in _RESTRICTING:
        is_quarantine = verb == "quarantine"
        return Action.DENIED, Disposition.QUARANTINED if is_quarantine else Disposition.BLOCKED
    return None, None


def _severity(record: Record, status: Status) -> Severity:
    if record.kind is Kind.LOG and record.operation in _LOSSES:
        return Severity.HIGH
    if record.kind is Kind.RESPONSE:
        return Severity.MEDIUM
    return Severity.LOW if status is Status.FAILURE else Severity.INFORMATIONAL
