# SPDX-License-Identifier: Apache-2.0
"""The certification scenario of AuthZEN Authorization API 1.0 as checks over HTTP, written from its text.

Each check has the number of its section in the scenario (C-2.2.1 is section 2.2.1 of the annex that begins with the
fixture).  :func:`run` sends one and returns what is wrong, in words; nothing in here knows which PDP answers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import httpx

EVALUATION = "access_evaluation_endpoint"
EVALUATIONS = "access_evaluations_endpoint"
SUBJECT = "search_subject_endpoint"
RESOURCE = "search_resource_endpoint"
ACTION = "search_action_endpoint"
DEFAULT_PATHS = {
    EVALUATION: "/access/v1/evaluation",
    EVALUATIONS: "/access/v1/evaluations",
    SUBJECT: "/access/v1/search/subject",
    RESOURCE: "/access/v1/search/resource",
    ACTION: "/access/v1/search/action",
}
TIMES = 3

ALICE = {"type": "user", "id": "alice"}
BOB = {"type": "user", "id": "bob"}
ADMIN = {**BOB, "properties": {"role": "admin"}}
USERS = {"type": "user"}
READ, WRITE = {"name": "read"}, {"name": "write"}
ONE = {"type": "record", "id": "record-1"}
TWO = {"type": "record", "id": "record-2"}
ACTIVE = {**ONE, "properties": {"status": "active"}}
ARCHIVED = {**TWO, "properties": {"status": "archived"}}
RECORDS = {"type": "record"}
ENVIRONMENT = {"time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1"}


def delete(*, soft: bool) -> dict[str, Any]:
    return {"name": "delete", "properties": {"soft": soft}}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One request, and what must hold of the answer; ``decision`` None asks for a boolean, whichever."""

    id: str
    level: str
    endpoint: str
    body: Any = None
    raw: bytes | None = None
    content_type: str | None = "application/json"
    status: int = 200
    decision: bool | None = None
    decisions: tuple[bool | None, ...] | None = None
    includes: tuple[str, ...] = ()
    is_empty: bool = False
    same_as: Any = None
    request_id: str | None = None
    times: int = 1

    def __str__(self) -> str:
        return f"{self.level} {self.id}"


@dataclass
class Pdp:
    """A PDP under test: a client that is authenticated as a PEP, and the paths or URLs of its endpoints."""

    client: httpx.Client
    paths: dict[str, str] = field(default_factory=lambda: dict(DEFAULT_PATHS))

    def post(self, check: Check, body: Any = None) -> httpx.Response:
        raw = (
            check.raw if check.raw is not None else json.dumps(check.body if body is None else body).encode()
        )
        headers = {} if check.content_type is None else {"content-type": check.content_type}
        if check.request_id is not None:
            headers["x-request-id"] = check.request_id
        return self.client.post(self.paths[check.endpoint], content=raw, headers=headers)


def run(pdp: Pdp, check: Check) -> list[str]:
    """Send a check as often as it says; return every way in which an answer is wrong."""
    found: list[str] = []
    for _ in range(check.times):
        answer = pdp.post(check)
        found += [f"{check}: {problem}" for problem in _problems(pdp, check, answer)]
    return found


def _problems(pdp: Pdp, check: Check, answer: httpx.Response) -> list[str]:
    if answer.status_code != check.status:
        return [f"status {answer.status_code}, not {check.status}: {answer.text[:200]}"]
    if check.request_id is not None and answer.headers.get("x-request-id") != check.request_id:
        return [f"X-Request-ID is {answer.headers.get('x-request-id')!r}"]
    if check.status != 200:
        return [] if answer.text else ["an error without a text"]
    if answer.headers.get("content-type", "").partition(";")[0] != "application/json":
        return [f"content type {answer.headers.get('content-type')!r}"]
    document = answer.json()
    if not isinstance(document, dict):
        return ["the body is no object"]
    if check.endpoint in {SUBJECT, RESOURCE, ACTION}:
        return _search_problems(pdp, check, document)
    if check.decisions is None:
        return _decision_problems(document, check.decision)
    items = document.get("evaluations")
    if not isinstance(items, list) or len(items) != len(check.decisions):
        return [f"evaluations: {items!r}"]
    return [
        f"item {index}: {problem}"
        for index, (item, wanted) in enumerate(zip(items, check.decisions, strict=True))
        for problem in _decision_problems(item, wanted)
    ]


def _decision_problems(document: Any, wanted: bool | None) -> list[str]:
    if not isinstance(document, dict) or not isinstance(document.get("decision"), bool):
        return [f"no decision: {document!r}"]
    if "context" in document and not isinstance(document["context"], dict):
        return ["context is no object"]
    if wanted is not None and document["decision"] is not wanted:
        return [f"decision {document['decision']}, not {wanted}: {document.get('context')}"]
    return []


def _search_problems(pdp: Pdp, check: Check, document: dict[str, Any]) -> list[str]:
    results = document.get("results")
    if not isinstance(results, list):
        return [f"results: {results!r}"]
    problems = []
    sought = {SUBJECT: "subject", RESOURCE: "resource"}.get(check.endpoint)
    for entity in results:
        if sought is None:
            if not isinstance(entity.get("name"), str):
                problems.append(f"no name: {entity!r}")
        elif entity.get("type") != check.body[sought]["type"] or not isinstance(entity.get("id"), str):
            problems.append(f"another entity than was sought: {entity!r}")
    names = {entity.get("name" if sought is None else "id") for entity in results}
    problems += [f"{name} is missing in {sorted(names)}" for name in check.includes if name not in names]
    if check.is_empty and results:
        problems.append(f"not empty: {results!r}")
    if check.same_as is not None and pdp.post(check, check.same_as).json().get("results") != results:
        problems.append("not the results of the same request without it")
    page = document.get("page")
    if "page" in document and (not isinstance(page, dict) or not isinstance(page.get("next_token"), str)):
        problems.append(f"page: {page!r}")
    return problems


def ask(subject: Any, action: Any, resource: Any, **more: Any) -> dict[str, Any]:
    return {"subject": subject, "action": action, "resource": resource, **more}


def _without(body: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != name}


_WHOLE = ask(ALICE, READ, ONE)
_STRANGE = ask(
    {**ALICE, "properties": {"department": "Sales", "role": "manager"}},
    {**READ, "properties": {"method": "GET"}},
    {**ONE, "properties": {"status": "active", "owner": "bob"}},
)


def _basic(check_id: str, body: Any = None, **more: Any) -> Check:
    return Check(id=check_id, level="Basic Core", endpoint=EVALUATION, body=body, **more)


BASIC_CORE = [
    _basic("2.2.1 permit", _WHOLE, decision=True),
    _basic("2.2.2 deny", ask(BOB, WRITE, ONE), decision=False),
    _basic("rule 2", ask(ALICE, WRITE, ONE), decision=True),
    _basic("rule 3", ask(BOB, READ, ONE), decision=True),
    _basic("2.2.3 context", ask(ALICE, READ, ONE, context=ENVIRONMENT), decision=True),
    _basic("2.2.8 more properties", _STRANGE, decision=True),
    _basic("2.2.9 unknown fields", {**_WHOLE, "foo": "bar", "futureField": {"nested": True}}, decision=True),
    *(_basic(f"2.4.1 without {name}", _without(_WHOLE, name), status=400) for name in _WHOLE),
    *(
        _basic(
            f"2.4.2 {entity} without {name}", {**_WHOLE, entity: _without(_WHOLE[entity], name)}, status=400
        )
        for entity, names in (
            ("subject", ("type", "id")),
            ("action", ("name",)),
            ("resource", ("type", "id")),
        )
        for name in names
    ),
    _basic("2.4.3 text/plain", _WHOLE, content_type="text/plain", status=400),
    _basic("2.4.3 no content type", _WHOLE, content_type=None, status=400),
    _basic("2.4.4 malformed", raw=b'{"subject": {"type": "user"', status=400),
    _basic("2.4.5 empty", raw=b"", status=400),
    _basic("2.4.6 subject is a string", {**_WHOLE, "subject": "alice"}, status=400),
    _basic("2.4.6 name is a number", {**_WHOLE, "action": {"name": 123}}, status=400),
    _basic("2.5.1 request id", _WHOLE, decision=True, request_id="bfe9eb29-ab87-4ca3-be83-a1d5d8305716"),
    _basic("2.5.1 request id of an error", raw=b"", status=400, request_id="req-1"),
    _basic("2.6 idempotency", _WHOLE, decision=True, times=TIMES),
    _basic("2.6 idempotency of a denial", ask(BOB, WRITE, ONE), decision=False, times=TIMES),
]


def _basic_properties(check_id: str, body: Any, *, decision: bool) -> Check:
    return Check(id=check_id, level="Basic Properties", endpoint=EVALUATION, body=body, decision=decision)


BASIC_PROPERTIES = [
    _basic_properties("2.2.4 rule 5", ask(ALICE, WRITE, ARCHIVED), decision=False),
    _basic_properties("2.2.5 rule 6", ask(ADMIN, WRITE, ARCHIVED), decision=True),
    _basic_properties("2.2.6 rule 7", ask(ALICE, delete(soft=True), ONE), decision=True),
    _basic_properties("2.2.7 rule 8", ask(ALICE, delete(soft=False), ONE), decision=False),
]


def _batch(check_id: str, body: Any, *, level: str = "Batch Core", **more: Any) -> Check:
    return Check(id=check_id, level=level, endpoint=EVALUATIONS, body=body, **more)


BATCH_CORE = [
    _batch(
        "3.2.1 structure",
        {"subject": ALICE, "action": READ, "evaluations": [{"resource": ONE}, {"resource": TWO}]},
        decisions=(None, None),
    ),
    _batch(
        "3.2.2 values in their order",
        {"subject": BOB, "resource": ONE, "evaluations": [{"action": READ}, {"action": WRITE}]},
        decisions=(True, False),
    ),
    _batch("3.2.5 no defaults", {"evaluations": [_WHOLE, ask(BOB, WRITE, ONE)]}, decisions=(True, False)),
    _batch(
        "3.2.6 context",
        {
            "subject": ALICE,
            "action": READ,
            "context": {"time": "2025-06-27T18:03-07:00"},
            "evaluations": [{"resource": ONE}, {"resource": TWO, "context": {"source": "override"}}],
        },
        decisions=(None, None),
    ),
    _batch(
        "3.4.1 a failed item",
        {
            "subject": ALICE,
            "action": READ,
            "options": {"evaluations_semantic": "execute_all"},
            "evaluations": [{"resource": ONE}, {}],
        },
        decisions=(True, False),
    ),
    _batch("3.4.2 no array", _WHOLE, decision=True),
    _batch("3.4.3 an empty array", {**_WHOLE, "evaluations": []}, decision=True),
    _batch("2.4.4 malformed", None, raw=b'{"evaluations": [', status=400),
    _batch("2.4.5 empty", None, raw=b"", status=400),
    _batch("2.4.1 nothing to evaluate", {"evaluations": []}, status=400),
    _batch("2.5.1 request id", _WHOLE, decision=True, request_id="r"),
]
BATCH_PROPERTIES = [
    _batch(
        "3.2.3 resource properties",
        {"subject": ALICE, "action": WRITE, "evaluations": [{"resource": ACTIVE}, {"resource": ARCHIVED}]},
        level="Batch Properties",
        decisions=(True, False),
    ),
    _batch(
        "3.2.4 subject properties",
        {"action": WRITE, "resource": ARCHIVED, "evaluations": [{"subject": ALICE}, {"subject": ADMIN}]},
        level="Batch Properties",
        decisions=(False, True),
    ),
    _batch(
        "3.2.7 whole defaults",
        {**ask(ALICE, WRITE, ACTIVE), "evaluations": [{}, {"resource": ARCHIVED}]},
        level="Batch Properties",
        decisions=(True, False),
    ),
]


def _search(check_id: str, endpoint: str, body: Any, *, level: str = "Search Core", **more: Any) -> Check:
    return Check(id=check_id, level=level, endpoint=endpoint, body=body, **more)


_WHO, _WHICH = ask(USERS, READ, ONE), ask(ALICE, READ, RECORDS)
_WHAT = {"subject": ALICE, "resource": ONE}
SEARCH_CORE = [
    _search("4.2.1 S1", SUBJECT, _WHO, includes=("alice", "bob")),
    _search(
        "4.2.2 context", SUBJECT, {**_WHO, "context": ENVIRONMENT}, includes=("alice", "bob"), same_as=_WHO
    ),
    _search("4.2.3 an id", SUBJECT, {**_WHO, "subject": ALICE}, includes=("alice", "bob"), same_as=_WHO),
    _search("4.3.1 S2", RESOURCE, _WHICH, includes=("record-1",)),
    _search(
        "4.3.2 context", RESOURCE, {**_WHICH, "context": ENVIRONMENT}, includes=("record-1",), same_as=_WHICH
    ),
    _search("4.3.3 an id", RESOURCE, {**_WHICH, "resource": ONE}, includes=("record-1",), same_as=_WHICH),
    _search("4.4.1 S3", ACTION, _WHAT, includes=("read", "write")),
    _search(
        "4.4.2 context", ACTION, {**_WHAT, "context": ENVIRONMENT}, includes=("read", "write"), same_as=_WHAT
    ),
    _search("4.5.1 a limit", SUBJECT, {**_WHO, "page": {"limit": 1}}),
    _search(
        "4.6.1 unknown user", ACTION, {**_WHAT, "subject": {"type": "user", "id": "nobody"}}, is_empty=True
    ),
    _search(
        "4.6.1 unknown user", RESOURCE, {**_WHICH, "subject": {"type": "user", "id": "nobody"}}, is_empty=True
    ),
    _search("4.6.1 unknown action", SUBJECT, {**_WHO, "action": {"name": "fly"}}, is_empty=True),
    _search("4.6.2 unknown type", SUBJECT, {**_WHO, "subject": {"type": "spaceship"}}, is_empty=True),
    _search("4.6.2 unknown type", RESOURCE, {**_WHICH, "resource": {"type": "spaceship"}}, is_empty=True),
    _search(
        "4.6.2 unknown type", ACTION, {**_WHAT, "resource": {"type": "spaceship", "id": "x"}}, is_empty=True
    ),
    _search("4.7.1 no action", SUBJECT, _without(_WHO, "action"), status=400),
    _search("4.7.1 no subject", RESOURCE, _without(_WHICH, "subject"), status=400),
    _search("4.7.1 no resource", ACTION, _without(_WHAT, "resource"), status=400),
    _search("4.7.2 input without id", SUBJECT, {**_WHO, "resource": RECORDS}, status=400),
    _search("4.7.2 input without id", RESOURCE, {**_WHICH, "subject": USERS}, status=400),
    _search("4.7.2 input without id", ACTION, {**_WHAT, "subject": USERS}, status=400),
    *(
        _search("2.4.3 content type", endpoint, _WHO, content_type="text/plain", status=400)
        for endpoint in (SUBJECT, RESOURCE, ACTION)
    ),
    _search("2.5.1 request id", SUBJECT, _WHO, request_id="s"),
]
SEARCH_PROPERTIES = [
    _search("4.2.4 S4", SUBJECT, ask(USERS, WRITE, ARCHIVED), level="Search Properties", includes=("bob",)),
    _search(
        "4.3.4 S5", RESOURCE, ask(ADMIN, WRITE, RECORDS), level="Search Properties", includes=("record-2",)
    ),
    _search(
        "4.4.3 S6",
        ACTION,
        {"subject": ADMIN, "resource": ARCHIVED},
        level="Search Properties",
        includes=("write",),
    ),
]
CHECKS = [
    *BASIC_CORE,
    *BASIC_PROPERTIES,
    *BATCH_CORE,
    *BATCH_PROPERTIES,
    *SEARCH_CORE,
    *SEARCH_PROPERTIES,
]


def run_pages(pdp: Pdp) -> list[str]:
    """Section 4.5.2: follow tokens without a limit, as the scenario does, until the empty one."""
    seen: list[str] = []
    page: dict[str, Any] = {"limit": 1}
    for _ in range(10):
        answer = pdp.client.post(pdp.paths[SUBJECT], json={**_WHO, "page": page})
        if answer.status_code != 200 or not isinstance(answer.json().get("page"), dict):
            return [f"4.5.2: {answer.status_code} {answer.text[:200]}"]
        seen += [entity["id"] for entity in answer.json()["results"]]
        token = answer.json()["page"].get("next_token")
        if not isinstance(token, str):
            return [f"4.5.2: next_token is {token!r}"]
        if not token:
            return [] if {"alice", "bob"} <= set(seen) else [f"4.5.2: only {seen}"]
        page = {"token": token}
    return ["4.5.2: the walk does not end"]


def discover(client: httpx.Client, base: str) -> tuple[dict[str, str], list[str]]:
    """Section 6: read the metadata of the PDP at ``base``; return its endpoints and what is wrong with them."""
    answer = client.get(base + "/.well-known/authzen-configuration")
    if answer.status_code != 200:
        return {}, [f"6.2: status {answer.status_code}"]
    problems = []
    if answer.headers.get("content-type", "").partition(";")[0] != "application/json":
        problems.append("6.2: content type")
    document = answer.json()
    if document.get("policy_decision_point") != base:
        problems.append(
            f"6.5: policy_decision_point is {document.get('policy_decision_point')!r}, not {base!r}"
        )
    found = {name: document[name] for name in DEFAULT_PATHS if name in document}
    if EVALUATION not in found:
        problems.append("6.3: no access_evaluation_endpoint")
    problems += [f"6.5: {name} is {url!r}" for name, url in found.items() if not url.startswith("https://")]
    if not all(isinstance(name, str) for name in document.get("capabilities", [])):
        problems.append("6.5: capabilities")
    problems += [f"9.2.2: {name} has no value" for name, value in document.items() if value in (None, "", [])]
    return found, problems
