# SPDX-License-Identifier: Apache-2.0
"""The shapes of the interop scenarios (todo, API gateway, search), with people and things of our own.

What is expected is worked out here from the rules in words, by other code than the policy's; then every combination is
asked: one by one, as batches, and by search in all three directions.
"""

import itertools

import pytest
from authzen_policies import SEARCH, TODO
from scenario import ask

PEOPLE = {
    "Q2hpZWY": ("chief", "nora@mill.example"),
    "VHlyYW50": ("tyrant", "olga@mill.example"),
    "RWRpdG9y": ("editor", "piet@mill.example"),
    "Vmlld2Vy": ("viewer", "quin@mill.example"),
    "Vmlld2VyMg": ("viewer", "rosa@mill.example"),
}
OWNERS = [email for _, email in PEOPLE.values()]
ACTIONS = ("can_read_user", "can_read_todos", "can_create_todo", "can_update_todo", "can_delete_todo")


def todo_expected(who, action, owner):
    role, email = PEOPLE[who]
    if action in {"can_read_user", "can_read_todos"}:
        return True
    if role == "viewer":
        return False
    if action == "can_create_todo":
        return True
    if action == "can_update_todo":
        return role == "tyrant" or owner == email
    return role in {"chief", "tyrant"} or owner == email


def todo(owner):
    return {"type": "todo", "id": "7240d0db", "properties": {"ownerID": owner}}


def todo_resource(action, owner):
    return {"type": "user", "id": owner} if action == "can_read_user" else todo(owner)


def todo_cases():
    for who, action in itertools.product(PEOPLE, ACTIONS):
        own, foreign = PEOPLE[who][1], next(o for o in OWNERS if o != PEOPLE[who][1])
        for owner in (own, foreign):
            yield who, action, owner


@pytest.fixture(scope="module")
def todos(serve):
    return serve(TODO).as_service("gateway")


@pytest.mark.parametrize(("who", "action", "owner"), list(todo_cases()))
def test_todo_evaluation(todos, who, action, owner):
    body = ask({"type": "user", "id": who}, {"name": action}, todo_resource(action, owner))
    answer = todos.post("/access/v1/evaluation", json=body)
    assert answer.status_code == 200
    assert answer.json()["decision"] is todo_expected(who, action, owner), answer.json()


@pytest.mark.parametrize("who", PEOPLE)
@pytest.mark.parametrize("action", ["can_update_todo", "can_delete_todo"])
def test_todo_batch(todos, who, action):
    body = {
        "subject": {"type": "user", "id": who},
        "action": {"name": action},
        "evaluations": [{"resource": todo(owner)} for owner in OWNERS],
    }
    answer = todos.post("/access/v1/evaluations", json=body).json()
    expected = [todo_expected(who, action, owner) for owner in OWNERS]
    assert [item["decision"] for item in answer["evaluations"]] == expected


ROUTES = {
    ("GET", "/people/{person}"): ("chief", "tyrant", "editor", "viewer"),
    ("GET", "/todos"): ("chief", "tyrant", "editor", "viewer"),
    ("POST", "/todos"): ("chief", "tyrant", "editor"),
    ("PUT", "/todos/{todo}"): ("tyrant",),  # whose todo it is, a gateway does not know
    ("DELETE", "/todos/{todo}"): ("chief", "tyrant"),
}


@pytest.mark.parametrize("who", PEOPLE)
@pytest.mark.parametrize(("method", "route"), list(ROUTES))
def test_gateway_evaluation(todos, who, method, route):
    """25 cases: an identity, a method, and a route as its template or as a path of it."""
    role = PEOPLE[who][0]
    for path in {route, route.replace("{person}", "rick").replace("{todo}", "7240d0db")}:
        resource = {"type": "route", "id": path, "properties": {"service": "todo", "ip": "192.0.2.1"}}
        body = ask({"type": "identity", "id": who}, {"name": method}, resource)
        answer = todos.post("/access/v1/evaluation", json=body)
        assert answer.status_code == 200
        assert answer.json()["decision"] is (role in ROUTES[method, route]), (path, answer.json())


@pytest.mark.parametrize(
    "path", ["/admin", "/todos/../admin", "//todos", "/todos/%2e%2e", "todos", "/todos;x=1"]
)
def test_gateway_paths_that_no_route_has(todos, path):
    resource = {"type": "route", "id": path, "properties": {"service": "todo"}}
    body = ask({"type": "identity", "id": "VHlyYW50"}, {"name": "GET"}, resource)
    assert todos.post("/access/v1/evaluation", json=body).json()["decision"] is False


READERS = {
    "ida": ("manager", "press"),
    "jon": ("worker", "press"),
    "kim": ("manager", "vault"),
    "lea": ("worker", "vault"),
    "max": ("worker", "stage"),
}
SCROLLS = {
    "s1": ("press", "ida"),
    "s2": ("press", "jon"),
    "s3": ("press", "lea"),
    "s4": ("vault", "kim"),
    "s5": ("vault", "jon"),
    "s6": ("stage", "max"),
    "s7": ("stage", "kim"),
    "s8": ("attic", "ida"),
}
VERBS = ("delete", "edit", "view")


def search_expected(who, verb, scroll):
    (role, department), (place, owner) = READERS[who], SCROLLS[scroll]
    if owner == who:
        return True
    if verb == "view":
        return role == "manager" or department == place
    return verb == "edit" and role == "manager" and department == place


@pytest.fixture(scope="module")
def library(serve):
    return serve(SEARCH).as_service("gateway")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("who", READERS)
def test_resource_search(library, who, verb):
    body = ask({"type": "user", "id": who}, {"name": verb}, {"type": "scroll"})
    found = library.post("/access/v1/search/resource", json=body).json()["results"]
    assert found == [{"type": "scroll", "id": s} for s in SCROLLS if search_expected(who, verb, s)]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("scroll", SCROLLS)
def test_subject_search(library, scroll, verb):
    body = ask({"type": "user"}, {"name": verb}, {"type": "scroll", "id": scroll})
    found = library.post("/access/v1/search/subject", json=body).json()["results"]
    assert found == [{"type": "user", "id": who} for who in READERS if search_expected(who, verb, scroll)]


@pytest.mark.parametrize("who", READERS)
@pytest.mark.parametrize("scroll", SCROLLS)
def test_action_search(library, who, scroll):
    body = {"subject": {"type": "user", "id": who}, "resource": {"type": "scroll", "id": scroll}}
    found = library.post("/access/v1/search/action", json=body).json()["results"]
    assert found == [{"name": verb} for verb in VERBS if search_expected(who, verb, scroll)]


def test_a_walk_through_pages_ends_with_an_edit_of_the_policy(serve):
    served = serve(SEARCH)
    client = served.as_service("gateway")
    body = ask({"type": "user"}, {"name": "view"}, {"type": "scroll", "id": "s1"}, page={"limit": 2})
    first = client.post("/access/v1/search/subject", json=body).json()
    body["page"] = {"token": first["page"]["next_token"]}
    assert client.post("/access/v1/search/subject", json=body).status_code == 200
    other = served.as_service("library").post("/access/v1/search/subject", json=body)
    assert other.status_code == 400
    served.put(SEARCH.replace("department: stage}}", "department: press}}"))
    answer = client.post("/access/v1/search/subject", json=body)
    assert answer.status_code == 400
    assert "policy has changed" in answer.text
