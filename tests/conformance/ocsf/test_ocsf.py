# SPDX-License-Identifier: Apache-2.0
"""Every event against what the published OCSF schema says of its members: names, types, values, what is required.

``facts.json`` comes from the schema's own sources by ``make_facts.py``; the walk below knows nothing of our structs.
"""

import copy
import enum
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from tests.records import records

from everyhop.auditlog import Kind, encode_record
from everyhop.auditlog.ocsf import encode_event, event_of, leaf_hash_of, values

FACTS = json.loads((Path(__file__).parent / "facts.json").read_text(encoding="utf-8"))
PRIMITIVES = {"integer_t": int, "long_t": int, "port_t": int, "boolean_t": bool}
ANYTHING = {"object", "json_t"}


def problems(event: dict[str, Any]) -> list[str]:
    """What is wrong with an event, by the version that it names."""
    facts = FACTS[event["metadata"]["version"]]
    told = facts["classes"].get(str(event["class_uid"]))
    if told is None:
        return [f"no class {event['class_uid']}"]
    found = list(_walk(event, told, facts["objects"], "event", {"class_uid"}))
    if event["category_uid"] != told["category_uid"]:
        found.append("category_uid")
    if event["type_uid"] != event["class_uid"] * 100 + event["activity_id"]:
        found.append("type_uid")
    return found


def _walk(
    value: Any, told: dict[str, Any], objects: dict[str, Any], where: str, known: set[str] = frozenset()
):
    if not isinstance(value, dict):
        yield f"{where} is no object"
        return
    yield from (f"{where}.{name} is required" for name in told["required"] if name not in value)
    for rule, names in told["constraints"].items():
        count = sum(name in value for name in names)
        if (rule == "at_least_one" and not count) or (rule == "just_one" and count != 1):
            yield f"{where}: {rule} of {names}"
    for name, inner in value.items():
        if name in known:
            continue
        kind = told["attributes"].get(name)
        if kind is None:
            yield f"{where}.{name} is not in the schema"
            continue
        is_array = isinstance(kind, str) and kind.endswith("[]")
        if is_array and not isinstance(inner, list):
            yield f"{where}.{name} is no array"
            continue
        for item in inner if is_array else [inner]:
            yield from _one(item, kind, objects, f"{where}.{name}")


def _one(value: Any, kind: Any, objects: dict[str, Any], where: str):
    if isinstance(kind, dict):  # an enumeration
        if type(value) is not int or str(value) not in kind:
            yield f"{where}: {value!r} is none of its values"
        return
    kind = kind.removesuffix("[]")
    if kind in ANYTHING:
        return
    if kind in objects:
        yield from _walk(value, objects[kind], objects, where)
    elif kind == "timestamp_t":
        if type(value) is not int:
            yield f"{where} is no time"
    elif type(value) is not PRIMITIVES.get(kind, str):
        yield f"{where}: {value!r} is no {kind}"


def event(record, **place):
    return json.loads(encode_event(event_of(record, **place)))


@pytest.mark.parametrize("kind", Kind)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=records())
def test_every_record_is_an_event_of_the_schema(kind, data):
    import msgspec

    record = msgspec.structs.replace(data, kind=kind)
    assert problems(event(record, index=3, origin="shop.example/log/1")) == []
    attested = event(record, index=3, origin="shop.example/log/1", leaf=leaf_hash_of(encode_record(record)))
    assert attested["metadata"]["version"] == values.VERSION_WITH_ATTESTATION
    assert problems(attested) == []


@pytest.fixture
def good():
    from datetime import UTC, datetime

    from everyhop.auditlog import Point, Record

    record = Record(
        id="d1",
        seq=1,
        producer="p",
        time=datetime(2026, 7, 1, tzinfo=UTC),
        kind=Kind.DECISION,
        point=Point.INGRESS,
        caller="spiffe://shop.example/service/orders",
        target="payments",
        method="POST",
        path="/v1/charges",
        decision="deny",
        status=403,
        trace=f"{'1' * 32}-{'2' * 16}",
    )
    return event(record)


def without(*path):
    def spoil(found):
        for name in path[:-1]:
            found = found[name]
        del found[path[-1]]

    return spoil


def putting(value, *path):
    def spoil(found):
        for name in path[:-1]:
            found = found[name]
        found[path[-1]] = value

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        without("metadata", "product"),
        without("actor", "user", "uid"),
        without("time"),
        without("src_endpoint"),
        without("trace", "span", "end_time"),
        without("http_response", "code"),
        putting("7", "time"),
        putting(4, "activity_id"),
        putting(77, "severity_id"),
        putting(2, "category_uid"),
        putting("BREW", "made_up"),
        putting({}, "dst_endpoint"),
        putting(True, "http_response", "code"),
        putting({}, "authorizations"),
        putting(1999, "class_uid"),
    ],
)
def test_the_check_finds_what_is_wrong(good, spoil):
    assert problems(good) == []
    spoiled = copy.deepcopy(good)
    spoil(spoiled)
    assert problems(spoiled)


def numbers():
    return {
        "action_id": values.Action,
        "disposition_id": values.Disposition,
        "severity_id": values.Severity,
    }


@pytest.mark.parametrize("version", FACTS)
def test_our_names_of_values_are_the_captions_of_the_schema(version):
    compared = 0
    for uid, activities in (
        (6003, values.ApiActivityId),
        (3002, values.AuthenticationId),
        (3003, values.AuthorizeSessionId),
        (3004, values.EntityId),
        (2004, values.FindingId),
    ):
        attributes = FACTS[version]["classes"][str(uid)]["attributes"]
        status = values.FindingStatus if uid == 2004 else values.Status
        for name, ours in {"activity_id": activities, "status_id": status, **numbers()}.items():
            assert attributes[name] == {str(v.value): caption(attributes[name], v) for v in ours}
            compared += 1
    users = FACTS[version]["objects"]["user"]["attributes"]["type_id"]
    assert users == {str(v.value): caption(users, v) for v in values.UserType}
    assert compared == 25


def caption(captions: dict[str, str], value: enum.IntEnum) -> str:
    """The schema's caption if our name says the same, else our name, which then does not match."""
    found = captions.get(str(value.value), "")
    said = re.sub(r"[^A-Z0-9]+", "_", found.upper()).strip("_")
    return found if said == value.name else value.name
