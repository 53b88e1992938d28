# SPDX-License-Identifier: Apache-2.0
"""Which proxy may ask about what, and what a refusal says."""

import pytest

from everyhop.control.asking import Answer, AskingProxy
from everyhop.core.errors import InputError
from everyhop.tokens.codes import TokenCode

ONE = AskingProxy(uid=33, services=("orders",))
TWO = AskingProxy(uid=33, services=("orders", "payments"))


@pytest.mark.parametrize("named", ["payments", "ORDERS", "orders ", "orders\0", "*", "order"])
def test_a_service_of_another_proxy(named):
    with pytest.raises(InputError):
        ONE.target(named)


def test_several_services_and_none_named():
    for nothing in (None, ""):
        with pytest.raises(InputError):
            TWO.target(nothing)


def test_the_service_that_is_named_and_the_only_one():
    assert TWO.target("payments") == "payments"
    assert ONE.target(None) == ONE.target("") == ONE.target("orders") == "orders"


def test_a_refusal_tells_code_and_decision_and_nothing_else():
    problem = Answer(status=403, code="ACCESS_DENIED", decision="d1").problem()
    assert problem == {
        "type": "about:blank",
        "title": "Access denied",
        "status": 403,
        "code": "ACCESS_DENIED",
        "decision": "d1",
    }
    assert "decision" not in Answer(status=503, code="CHECK_UNAVAILABLE", decision="").problem()


def test_only_a_token_code_challenges():
    assert Answer(status=403, code="ACCESS_DENIED", decision="d").authenticate is None
    code = TokenCode.TOKEN_EXPIRED
    challenge = Answer(status=401, code=code, decision="d", token_code=code).authenticate
    assert 'error="invalid_token"' in challenge
