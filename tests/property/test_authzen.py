# SPDX-License-Identifier: Apache-2.0
"""Whatever a PEP sends: an answer or a refusal, never a fault, and never a permit that the engine did not give."""

import json

import pytest
from hypothesis import given, strategies as st
from tests.support.authzen_world import INTRUDER, KEY, ORDERS, STOREFRONT, World

from everyhop.authzen import Kind, PageTokens, answer_evaluation, answer_evaluations, answer_search
from everyhop.core.errors import AccessDenied, InputError
from everyhop.core.secret import Secret

WORLD = World()
TOKENS = PageTokens(Secret(b"k" * 32))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        *(
            "user",
            "identity",
            "service",
            "route",
            "order",
            "planet",
            "ann",
            "gus",
            "o1",
            "o2",
            "storefront",
            "orders",
        ),
        *(
            "outside",
            "spiffe",
            "//shop.example/service/storefront",
            "spiffe://shop.example/service/storefront",
            "tcp",
            "any",
            "read",
            "edit",
            "list",
            "find",
            "file",
            "GET",
            "/orders",
            "/orders/{id}",
            "/orders/a b",
            "",
        ),
    ]
)
PROPERTIES = st.dictionaries(
    st.sampled_from(
        [
            "roles",
            "status",
            "clearance",
            "path",
            "method",
            "service",
            "id",
            "amr",
            "auth_time",
            "Status",
            "x",
            "size",
        ]
    ),
    JSON | NAMES,
    max_size=4,
)
ENTITY = st.fixed_dictionaries(
    {"type": NAMES, "id": NAMES | st.text(max_size=6)}, optional={"properties": PROPERTIES}
)
ACTION = st.fixed_dictionaries({"name": NAMES}, optional={"properties": PROPERTIES})
CONTEXT = st.dictionaries(
    st.sampled_from(["caller", "ip", "source_ip", "headers", "device"]), JSON | NAMES, max_size=3
)
QUESTION = st.fixed_dictionaries(
    {},
    optional={
        "subject": ENTITY | JSON,
        "action": ACTION | JSON,
        "resource": ENTITY | JSON,
        "context": CONTEXT | JSON,
    },
)
PEPS = st.sampled_from([STOREFRONT, ORDERS, KEY])


def encoded(value):
    return json.dumps(value).encode()


@given(PEPS, QUESTION)
def test_a_question_is_answered_or_refused(pep, question):
    point = WORLD.points.open(pep)
    try:
        answer = answer_evaluation(point, encoded(question))
    except (InputError, AccessDenied):
        return
    assert type(answer["decision"]) is bool
    assert answer["decision"] is (answer["context"]["reason"] == "allowed")
    point.close()
    assert WORLD.store.records[-1].id == answer["context"]["decision_id"]


@given(PEPS, QUESTION, st.lists(QUESTION | JSON, min_size=1, max_size=4))
def test_a_batch_gives_what_its_items_give_alone(pep, defaults, items):
    body = {**defaults, "evaluations": items}
    try:
        answer = answer_evaluations(WORLD.points.open(pep), encoded(body))
    except InputError:
        return
    assert len(answer["evaluations"]) == len(items)
    for item, given_answer in zip(items, answer["evaluations"], strict=True):
        try:
            alone = answer_evaluation(WORLD.points.open(pep), encoded({**defaults, **item}))["decision"]
        except (InputError, AccessDenied, TypeError):
            alone = False
        assert given_answer["decision"] is alone


@given(PEPS, st.sampled_from(Kind), QUESTION)
def test_what_a_search_finds_an_evaluation_permits(pep, kind, question):
    point = WORLD.points.open(pep)
    try:
        answer = answer_search(point, kind, encoded(question), tokens=TOKENS, now=WORLD.clock.now())
    except InputError:
        return
    for entity in answer["results"]:
        asked = {
            name: question[name] for name in ("subject", "action", "resource", "context") if name in question
        }
        asked[kind.value] = entity
        assert answer_evaluation(point, encoded(asked))["decision"] is True


@pytest.mark.parametrize("answer", [answer_evaluation, answer_evaluations])
@given(body=st.binary(max_size=200))
def test_bytes_are_refused(answer, body):
    with pytest.raises(InputError):
        answer(WORLD.points.open(STOREFRONT), body)


@given(QUESTION)
def test_a_service_that_may_nothing_is_never_told_yes(question):
    """No rule is about intruder, so whatever it says about itself, others and users, nothing is open."""
    try:
        answer = answer_evaluation(WORLD.points.open(INTRUDER), encoded(question))
    except (InputError, AccessDenied):
        return
    assert answer["decision"] is False


@given(QUESTION)
def test_a_key_is_told_yes_about_its_scopes_alone(question):
    point = WORLD.points.open(KEY)
    try:
        answer = answer_evaluation(point, encoded(question))
    except (InputError, AccessDenied):
        return
    point.close()
    record = WORLD.store.records[-1]
    assert (record.caller, record.target, record.operation) in {
        ("outside", "orders", "list"),
        ("(nobody)", "orders", "list"),
    }
    assert answer["decision"] is (record.decision == "allow")
