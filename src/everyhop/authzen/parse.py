# SPDX-License-Identifier: Apache-2.0
"""From bytes to questions: strict where two readers could differ, tolerant of members that are unknown.

Section 10.1.1: a missing or mistyped required member is refused, whatever is not understood is ignored.  Section 11.5
recommends I-JSON, and here it is demanded: a member that is there twice, or half of a surrogate pair, is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, Final

from everyhop.authzen.model import (
    Action,
    Batch,
    Entity,
    Evaluation,
    Flaw,
    Json,
    Kind,
    PageRequest,
    Search,
    Semantic,
)
from everyhop.core.errors import InputError
from everyhop.jose.strict_json import parse_json_object

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_BODY_BYTES: Final = 64 * 1024
MAX_EVALUATIONS: Final = 500
MAX_NAME: Final = 256
MAX_ID: Final = 2048
MAX_TOKEN: Final = 512
LARGEST_LIMIT: Final = 2**53
LARGEST_NUMBER: Final = 2**63 - 1

_MEDIA_TYPE: Final = re.compile(r'application/json(?:[ \t]*;[ \t]*charset=(?:"utf-8"|utf-8))?', re.IGNORECASE)


def check_media_type(values: list[str]) -> None:
    """Refuse every content type but ``application/json`` in UTF-8; raises InputError."""
    if len(values) != 1 or not _MEDIA_TYPE.fullmatch(values[0].strip()):
        raise InputError("the content type is application/json")


def parse_evaluation(body: bytes) -> Evaluation:
    """Parse an Access Evaluation request (section 6.1); raises InputError."""
    return _evaluation(_object(body), {})


def parse_evaluations(body: bytes) -> Evaluation | Batch:
    """Parse an Access Evaluations request (section 7.1).

    Without ``evaluations``, or with an empty one, it is a single evaluation.  What is wrong with the whole raises
    InputError, what is wrong with one item is kept in its place.
    """
    members = _object(body)
    semantic = _semantic(members)
    items = members.get("evaluations", [])
    if not isinstance(items, list):
        raise InputError("evaluations is an array")
    if len(items) > MAX_EVALUATIONS:
        raise InputError(f"one request holds at most {MAX_EVALUATIONS} evaluations")
    if not items:
        return _evaluation(members, {})
    defaults: Json = {
        name: members[name] for name in ("subject", "action", "resource", "context") if name in members
    }
    for name, value in defaults.items():
        _READERS[name](value, name)  # a default that no item could use makes the whole request wrong
    return Batch(items=tuple(_item(item, defaults) for item in items), semantic=semantic)


def parse_search(kind: Kind, body: bytes) -> Search:
    """Parse a search (sections 8.4 to 8.6); the id of the entity that is sought is ignored.  Raises InputError."""
    members = _object(body)
    sought = None if kind is Kind.ACTION else _sought(members, kind.value)
    subject = None if kind is Kind.SUBJECT else _entity(_required(members, "subject"), "subject")
    action = None if kind is Kind.ACTION else _action(_required(members, "action"), "action")
    resource = None if kind is Kind.RESOURCE else _entity(_required(members, "resource"), "resource")
    context = _mapping(members.get("context", {}), "context")
    page = None if "page" not in members else _page(_mapping(members["page"], "page"))
    same: list[Any] = [kind.value, sought]
    same += [None if e is None else [e.type, e.id, dict(e.properties)] for e in (subject, resource)]
    same += [None if action is None else [action.name, dict(action.properties)], context]
    text = json.dumps(same, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return Search(
        kind=kind,
        sought_type=sought,
        subject=subject,
        action=action,
        resource=resource,
        context=context,
        page=page,
        digest=hashlib.sha256(text.encode()).digest(),
    )


def _object(body: bytes) -> Json:
    if not body.strip():
        raise InputError("the body is empty; it is a JSON object")
    members = parse_json_object(body, max_bytes=MAX_BODY_BYTES)
    _check_numbers(members)
    return members


def _check_numbers(value: object) -> None:
    """Refuse integers beyond 64 bits (I-JSON section 2.2 would end at 53); the depth is bounded already."""
    if isinstance(value, dict):
        for member in value.values():
            _check_numbers(member)
    elif isinstance(value, list):
        for member in value:
            _check_numbers(member)
    elif type(value) is int and abs(value) > LARGEST_NUMBER:
        raise InputError("a whole number has at most 64 bits")


def _item(item: object, defaults: Mapping[str, Any]) -> Evaluation | Flaw:
    try:
        if not isinstance(item, dict):
            raise InputError("an evaluation is an object")
        return _evaluation(item, defaults)
    except InputError as error:
        return Flaw(message=error.message)


def _evaluation(members: Mapping[str, Any], defaults: Mapping[str, Any]) -> Evaluation:
    """Read one question; what it lacks comes whole from ``defaults`` (section 7.1.1)."""
    found = {**defaults, **{name: members[name] for name in _READERS if name in members}}
    return Evaluation(
        subject=_entity(_required(found, "subject"), "subject"),
        action=_action(_required(found, "action"), "action"),
        resource=_entity(_required(found, "resource"), "resource"),
        context=_mapping(found.get("context", {}), "context"),
    )


def _semantic(members: Mapping[str, Any]) -> Semantic:
    options = _mapping(members.get("options", {}), "options")
    wanted = options.get("evaluations_semantic", Semantic.EXECUTE_ALL.value)
    if not isinstance(wanted, str) or wanted not in {semantic.value for semantic in Semantic}:
        raise InputError("options.evaluations_semantic is one of " + ", ".join(Semantic))
    return Semantic(wanted)


def _required(members: Mapping[str, Any], name: str) -> object:
    if name not in members:
        raise InputError(f"{name} is missing")
    value: object = members[name]
    return value


def _mapping(value: object, where: str) -> Json:
    if not isinstance(value, dict):
        raise InputError(f"{where} is an object")
    return value


def _text(members: Mapping[str, Any], name: str, where: str, longest: int) -> str:
    value = members.get(name)
    if value is None:
        raise InputError(f"{where}.{name} is missing")
    if not isinstance(value, str):
        raise InputError(f"{where}.{name} is a string")
    if not 0 < len(value) <= longest:
        raise InputError(f"{where}.{name} has 1 to {longest} characters")
    return value


def _entity(value: object, where: str) -> Entity:
    members = _mapping(value, where)
    return Entity(
        type=_text(members, "type", where, MAX_NAME),
        id=_text(members, "id", where, MAX_ID),
        properties=_properties(members, where),
    )


def _sought(members: Mapping[str, Any], name: str) -> str:
    sought = _mapping(_required(members, name), name)
    _properties(sought, name)
    return _text(sought, "type", name, MAX_NAME)


def _action(value: object, where: str) -> Action:
    members = _mapping(value, where)
    return Action(name=_text(members, "name", where, MAX_NAME), properties=_properties(members, where))


def _properties(members: Mapping[str, Any], where: str) -> Json:
    return _mapping(members.get("properties", {}), f"{where}.properties")


def _page(members: Json) -> PageRequest:
    token, limit = members.get("token", ""), members.get("limit")
    if not isinstance(token, str) or len(token) > MAX_TOKEN:
        raise InputError(f"page.token is a string of at most {MAX_TOKEN} characters")
    if "limit" in members and (type(limit) is not int or not 0 <= limit <= LARGEST_LIMIT):
        raise InputError("page.limit is a whole number, not negative")
    _mapping(members.get("properties", {}), "page.properties")
    return PageRequest(token=token or None, limit=limit)


_READERS: Final = {"subject": _entity, "action": _action, "resource": _entity, "context": _mapping}
