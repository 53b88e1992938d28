# SPDX-License-Identifier: Apache-2.0
"""Questions asked in order: single ones, batches, the three semantics."""

import json

import pytest
from tests.support.decision_points import RecordsPoint

from everyhop.authzen import Answer, answer_evaluation, answer_evaluations
from everyhop.core.errors import AccessDenied, InputError

ANN = {"type": "user", "id": "ann"}
BEN = {"type": "user", "id": "ben"}
WRITE = {"name": "write"}


def record(name, **properties):
    return {"type": "record", "id": name, **({"properties": properties} if properties else {})}


def ask(point, answer=answer_evaluations, **members):
    return answer(point, json.dumps(members).encode())


@pytest.mark.parametrize("answer", [answer_evaluation, answer_evaluations])
def test_what_cannot_be_asked_fails_a_single_question(answer):
    point = RecordsPoint()
    with pytest.raises(AccessDenied):
        ask(point, answer, subject=ANN, action=WRITE, resource={"type": "secret", "id": "x"})
    with pytest.raises(InputError):
        ask(point, answer, subject=ANN, action=WRITE, resource=record("broken"))
    assert point.asked == []


def test_what_cannot_be_asked_is_a_denial_in_its_place():
    point = RecordsPoint()
    items = [
        {"resource": record("r1")},
        {},
        {"resource": {"type": "secret", "id": "x"}},
        {"resource": record("broken")},
        7,
        {"resource": record("r3")},
    ]
    answer = ask(point, subject=ANN, action=WRITE, evaluations=items)
    assert [item["decision"] for item in answer["evaluations"]] == [True, False, False, False, False, True]
    assert [item["context"].get("error", {}).get("status") for item in answer["evaluations"]] == [
        *(None, 400, 403, 400, 400, None)
    ]
    assert "decision" not in answer
    assert len(point.asked) == 2


def test_one_answer_for_each_item_in_its_order():
    items = [{"subject": who, "resource": record(name)} for who in (ANN, BEN) for name in ("r1", "r2", "r3")]
    answer = ask(RecordsPoint(), action=WRITE, evaluations=items)
    assert [item["decision"] for item in answer["evaluations"]] == [True, False, True, False, True, False]


@pytest.mark.parametrize(
    ("semantic", "names", "decisions"),
    [
        ("execute_all", ["r1", "r2", "r3"], [True, False, True]),
        ("deny_on_first_deny", ["r1", "r2", "r3"], [True, False]),
        ("deny_on_first_deny", ["r1", "r3"], [True, True]),
        ("deny_on_first_deny", ["secret", "r1"], [False]),
        ("permit_on_first_permit", ["r2", "r1", "r3"], [False, True]),
        ("permit_on_first_permit", ["r2", "secret", "r2"], [False, False, False]),
        ("permit_on_first_permit", ["r1", "r2"], [True]),
    ],
)
def test_semantics_end_with_the_item_that_decides(semantic, names, decisions):
    point = RecordsPoint()
    items = [{"resource": {"type": "secret", "id": "x"} if n == "secret" else record(n)} for n in names]
    answer = ask(
        point, subject=ANN, action=WRITE, evaluations=items, options={"evaluations_semantic": semantic}
    )
    assert [item["decision"] for item in answer["evaluations"]] == decisions
    assert len(point.asked) == sum(1 for name in names[: len(decisions)] if name != "secret")


def test_a_single_question_is_answered_alone():
    for answer in (answer_evaluation, answer_evaluations):
        assert ask(RecordsPoint(), answer, subject=ANN, action=WRITE, resource=record("r1")) == {
            "decision": True,
            "context": {"n": 1},
        }
    assert (
        ask(RecordsPoint(), subject=ANN, action=WRITE, resource=record("r1", status="archived"))["decision"]
        is False
    )


def test_what_is_not_exactly_true_is_no_permit():
    class Odd(RecordsPoint):
        def _decide(self, asked):
            return "ERROR"

    answer = ask(
        Odd(),
        subject=ANN,
        action=WRITE,
        evaluations=[{"resource": record("r1")}, {"resource": record("r2")}],
        options={"evaluations_semantic": "permit_on_first_permit"},
    )
    assert len(answer["evaluations"]) == 2
    assert [item["decision"] for item in answer["evaluations"]] == [False, False]


def test_an_answer_without_a_context_has_none():
    assert Answer(decision=True).to_json() == {"decision": True}
