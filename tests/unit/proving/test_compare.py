# SPDX-License-Identifier: Apache-2.0
"""The proof finds what is wider, and says of what is narrower whether somebody announced it."""

import pytest
from tests.support.mini_mesh import World

from everyhop.proving.model import CallerKind, Verdict
from everyhop.proving.rendering import words_of
from everyhop.targets.model import Diagnostic, Feature

POLICY = """
version: 1
trust_domain: shop.example
services:
  checkout: {operations: {list: GET /}}
  intruder: {operations: {x: GET /}}
  payment-processor:
    operations:
      charge: POST /v1/payments
      read: GET /v1/payments/{id}
      files: GET /files/{path...}
    probes: [GET /healthz]
  db: {tcp: 5432}
allow:
  - {from: checkout, to: payment-processor, operations: [charge, read, files]}
  - {from: payment-processor, to: db}
"""


@pytest.fixture(scope="module")
def world():
    return World(POLICY)


def entry(world, name):
    return next(index for index, one in enumerate(world.entries) if one.name.endswith(name))


def test_an_exact_mesh_is_equal(world):
    report = world.prove()
    assert [words_of(one) for one in (*report.wider, *report.narrower, *report.accepted)] == []
    assert report.verdict is Verdict.EQUAL
    assert report.requests > 400


WIDENED = {
    "a caller too many": ("-charge", "callers", "spiffe://shop.example/ns/default/sa/intruder"),
    "an account that starts alike": ("-charge", "callers", "spiffe://shop.example/ns/default/sa/checkout-x"),
    "an account that ends alike": ("-charge", "callers", "spiffe://shop.example/ns/default/sa/x-checkout"),
    "another namespace": ("-charge", "callers", "spiffe://shop.example/ns/default-x/sa/checkout"),
    "a foreign domain": ("-charge", "callers", "spiffe://evil-shop.example/ns/default/sa/checkout"),
    "any method": ("-charge", "method", "*"),
    "any path": ("-charge", "pattern", ".*"),
    "a prefix": ("-charge", "pattern", "/v1/payments.*"),
    "a suffix": ("-charge", "pattern", ".*/v1/payments"),
    "a parameter of two segments": ("-read", "pattern", "/v1/payments/.+"),
    "an empty parameter": ("-read", "pattern", "/v1/payments/[^/]*"),
    "an encoded slash": ("-read", "pattern", "/v1/payments/[^/]+"),
    "segments taken back": ("-files", "pattern", "/files/.*"),
    "a probe by prefix": ("-probes[0]", "pattern", "/healthz.*"),
    "another port": ("-charge", "port", 9),
}


@pytest.mark.parametrize("name", WIDENED)
def test_whatever_is_widened_is_found(world, name):
    where, field, value = WIDENED[name]
    index = entry(world, where)
    before = getattr(world.entries[index], field)
    wider = before | {value} if field == "callers" else value
    report = world.prove(world.broken(index, **{field: wider}))
    assert report.verdict is Verdict.WIDER, name
    assert report.wider[0].outcome.by == world.entries[index].name


def test_plaintext_is_found(world):
    report = world.prove(is_strict=False)
    assert {one.ask.caller.kind for one in report.wider} == {CallerKind.UNCERTIFIED}


def test_the_counterexample_is_said_in_words(world):
    index = entry(world, "-charge")
    intruder = world.intents.mesh_identity("intruder")
    report = world.prove(world.broken(index, callers=world.entries[index].callers | {intruder}))
    assert words_of(report.wider[0]) == (
        "payment-processor: POST /v1/payments from `intruder` gets through: Mini default/payment-processor-charge,"
        " it matches"
    )


@pytest.mark.parametrize("index", range(5))
def test_a_lost_entry_is_narrower_and_nobody_said_so(world, index):
    entries = [one for one in world.entries if one.callers]
    report = world.prove([one for number, one in enumerate(entries) if number != index])
    assert report.verdict is Verdict.NARROWER
    assert report.unannounced == report.narrower != ()


def test_what_compiling_said_is_announced(world):
    index = entry(world, "-charge")
    span = world.intents.of("payment-processor").doors[0].operation.span
    said = Diagnostic(target="linkerd", code="linkerd.route", message="no", is_error=True, span=span)
    report = world.prove(world.broken(index, callers=frozenset()), diagnostics=[said])
    assert report.narrower[0].announced == ("linkerd.route",)
    assert report.unannounced == ()


TOKENS = POLICY.replace("POST /v1/payments", "{route: POST /v1/payments, token: operation, once: true}")


def test_a_door_that_nobody_holds_stays_shut_and_opened_by_hand_it_is_wider():
    world = World(TOKENS)
    index = entry(world, "-charge")
    assert world.entries[index].callers == frozenset()
    said = Diagnostic(target="linkerd", code="linkerd.token", message="no", is_error=True)
    report = world.prove(diagnostics=[said])
    assert report.verdict is Verdict.NARROWER
    assert report.unannounced == ()
    opened = world.prove(world.broken(index, callers=frozenset({world.intents.mesh_identity("checkout")})))
    assert opened.verdict is Verdict.WIDER
    assert {one.ask.aspect for one in opened.wider} == {
        Feature.TOKEN,
        Feature.TOKEN_OPERATION,
        Feature.TOKEN_BINDING,
        Feature.ONCE,
    }


def test_what_another_holds_beside_is_no_difference():
    world = World(TOKENS, beside=("sdk",))
    assert world.entries[entry(world, "-charge")].callers
    assert world.prove().verdict is Verdict.EQUAL


def test_what_a_target_holds_itself_is_wider_even_where_another_refuses_it():
    world = World(TOKENS, beside=("sdk",))
    report = world.prove(world.broken(entry(world, "-charge"), pattern=".*"))
    assert report.verdict is Verdict.WIDER
    assert {one.covered_by for one in report.wider} == {"sdk"}


def test_an_authorizer_that_is_asked_decides():
    world = World(TOKENS, beside=("authorizer",), asks="everyhop")
    assert world.prove(world.broken(entry(world, "-charge"), pattern=".*")).verdict is Verdict.EQUAL


CONDITION = """
version: 1
trust_domain: shop.example
attributes: {user: {level: int}}
roles:
  clerk: {grants: [pay.refund]}
services:
  a: {operations: {x: GET /}}
  pay: {operations: {refund: POST /v1/refunds, read: "GET /v1/refunds/{id}"}}
allow:
  - {from: a, to: pay, operations: [refund], user: required, when: user.level > 2}
  - {from: a, to: pay, operations: [read]}
deny:
  - {from: a, to: pay, operations: [read], when: "request.path_params.id == '7'", reason: no}
"""


def test_conditions_are_asked_on_both_sides():
    held = World(CONDITION, beside=("sdk",))
    assert held.prove().verdict is Verdict.EQUAL
    effects = {held.oracle.answer(ask).says for ask in held.asks() if ask.door == "refund" and ask.rank == 6}
    assert len(effects) == 2
    alone = World(CONDITION)
    opened = alone.prove(held.entries)
    found = {(one.ask.door, one.ask.aspect) for one in opened.wider}
    assert ("read", Feature.CONDITION) in found or ("read", Feature.CONDITIONAL_DENY) in found
    assert any(door == "refund" for door, _ in found)


def test_egress_that_nobody_sees_is_wider():
    world = World(POLICY + "targets:\n  egress:\n    stripe: {host: api.stripe.com, from: [checkout]}\n")
    report = world.prove()
    assert {one.ask.door for one in report.narrower} == {"egress"}
