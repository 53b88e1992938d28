# SPDX-License-Identifier: Apache-2.0
"""What a call demands: audience, caller, binding, scope, each alone and in their order."""

import pytest
from tests.support.identity import NOW
from tests.support.tokens import AT, ISSUER, KEYS, ORDERS, OTHER_X5T, STOREFRONT, X5T, mint_access

from everyhop.core.errors import TokenError
from everyhop.tokens import Expectation, Revocations, check, verify_access_token

RIGHT = {"audience": "payments", "operation": "charge", "peer": ORDERS, "x5t": X5T}
JKT = "K" * 42 + "A"


def token(**changes):
    return verify_access_token(mint_access(**changes), KEYS, issuer=ISSUER, now=NOW)


def code(found, revocations=None, **changes):
    expected = Expectation(**{**RIGHT, **changes})
    try:
        check(found, expected, *([revocations] if revocations else []))
    except TokenError as error:
        return str(error.token_code)
    return None


def test_the_right_one_passes():
    assert code(token()) is None
    assert code(token(scope=["charge"])) is None
    assert code(token(scope=["ledger.read", "payments.charge"])) is None
    assert code(token(), operation=None) is None


def test_audience():
    service, operation = token(), token(audience="payments#charge")
    assert code(service, audience="ledger") == "AUDIENCE_MISMATCH"
    assert code(operation) is None  # for this operation alone: narrower than asked for
    assert code(operation, operation="refund") == "AUDIENCE_MISMATCH"
    assert code(operation, operation=None) == "AUDIENCE_MISMATCH"
    assert code(service, per_operation=True) == "AUDIENCE_MISMATCH"
    assert code(operation, per_operation=True) is None
    assert code(operation, per_operation=True, operation="refund") == "AUDIENCE_MISMATCH"
    assert code(operation, per_operation=True, operation=None) == "AUDIENCE_MISMATCH"


def test_an_operation_cannot_be_smuggled_through_the_name_of_a_service():
    assert code(token(audience="payments#charge"), audience="payments#charge", operation=None) is None
    assert code(token(audience="payments"), audience="payments#charge", operation=None) == "AUDIENCE_MISMATCH"


def test_caller():
    assert code(token(), peer=STOREFRONT) == "BINDING_MISMATCH"
    assert code(token(), peer=ORDERS.upper()) == "BINDING_MISMATCH"
    # On behalf of somebody the caller is the present actor, not the subject.
    for_alice = token(subject="alice", actors=[ORDERS, STOREFRONT])
    assert code(for_alice) is None
    assert code(for_alice, peer=STOREFRONT) == "BINDING_MISMATCH"


@pytest.mark.parametrize(
    ("minted", "presented", "answer"),
    [
        ({"x5t": X5T}, {"x5t": X5T}, None),
        ({"x5t": X5T}, {"x5t": OTHER_X5T}, "BINDING_MISMATCH"),
        ({"x5t": X5T}, {"x5t": None}, "BINDING_MISMATCH"),
        ({"x5t": X5T}, {"x5t": None, "jkt": X5T}, "BINDING_MISMATCH"),
        ({"x5t": None, "jkt": JKT}, {"x5t": None, "jkt": JKT, "peer": None}, None),
        ({"x5t": None, "jkt": JKT}, {"x5t": X5T, "jkt": JKT}, None),
        ({"x5t": None, "jkt": JKT}, {"x5t": JKT}, "BINDING_MISMATCH"),
        ({"x5t": None, "jkt": JKT}, {"x5t": None, "jkt": None}, "BINDING_MISMATCH"),
        ({"x5t": None}, {"x5t": X5T}, "BINDING_MISMATCH"),
        ({"x5t": None}, {"x5t": None}, "BINDING_MISMATCH"),
        ({"x5t": None}, {"x5t": None, "bound": False}, None),
        ({"x5t": None}, {"x5t": X5T, "bound": False}, "BINDING_MISMATCH"),
        ({"x5t": X5T}, {"x5t": None, "bound": False}, None),
        ({"x5t": X5T}, {"x5t": OTHER_X5T, "bound": False}, "BINDING_MISMATCH"),
        ({"x5t": None, "jkt": JKT}, {"x5t": None, "jkt": X5T, "bound": False}, "BINDING_MISMATCH"),
    ],
)
def test_binding(minted, presented, answer):
    assert code(token(**minted), **presented) == answer


@pytest.mark.parametrize(
    "scope", [[], ["payments.refund"], ["ledger.charge"], ["payments"], ["payments.*"], ["PAYMENTS.CHARGE"]]
)
def test_scope(scope):
    assert code(token(scope=scope)) == "INSUFFICIENT_SCOPE"


def test_the_order_is_audience_revoked_binding_scope():
    found = token(scope=[])
    revoked = Revocations(jtis={"j1": AT + 300})
    wrong = {"audience": "ledger", "peer": STOREFRONT}
    assert code(found, revoked, **wrong) == "AUDIENCE_MISMATCH"
    assert code(found, revoked, peer=STOREFRONT) == "TOKEN_REVOKED"
    assert code(found, peer=STOREFRONT) == "BINDING_MISMATCH"
    assert code(found) == "INSUFFICIENT_SCOPE"
