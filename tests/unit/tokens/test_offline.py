# SPDX-License-Identifier: Apache-2.0
"""A token on a desk: what needs no connection is judged as everywhere else."""

import pytest
from tests.support.identity import NOW
from tests.support.tokens import AT, ISSUER, KEY_SET, ORDERS, STOREFRONT, mint_access, mint_txn

from everyhop.tokens import Revocations, verify_line


def judge(line, **changes):
    return verify_line(line, KEY_SET, **{"issuer": ISSUER, "service": "payments", "now": NOW, **changes})


def test_a_good_one_shows_its_claims():
    judged = judge(mint_access() + "\r\n", operation="charge")
    assert (judged["ok"], judged["code"]) == (True, None)
    assert judged["claims"]["sub"] == ORDERS


@pytest.mark.parametrize(
    ("line", "changes", "code"),
    [
        ("", {}, "MISSING_TOKEN"),
        ("\n", {}, "MISSING_TOKEN"),
        (mint_access() + " ", {}, "TOKEN_MALFORMED"),
        (mint_access(), {"service": "ledger"}, "AUDIENCE_MISMATCH"),
        (mint_access(audience="payments#charge"), {}, "AUDIENCE_MISMATCH"),
        (mint_access(), {"operation": "charge", "per_operation": True}, "AUDIENCE_MISMATCH"),
        (mint_access(), {"operation": "refund"}, "INSUFFICIENT_SCOPE"),
        (mint_access(), {"certificate": b"of a thief"}, "BINDING_MISMATCH"),
        (mint_access(), {"peer": STOREFRONT}, "BINDING_MISMATCH"),
        (mint_access(), {"issuer": "https://other"}, "UNAUTHORIZED_ISSUER"),
        (mint_access(), {"revocations": Revocations(jtis={"j1": AT + 300})}, "TOKEN_REVOKED"),
        (mint_txn(), {}, "TOKEN_MALFORMED"),
    ],
)
def test_refused(line, changes, code):
    assert judge(line, **changes) == {"ok": False, "code": code}


def test_either_audience_will_do_and_the_certificate_is_compared_when_given():
    for audience in ("payments", "payments#charge"):
        token = mint_access(audience=audience)
        assert judge(token, operation="charge", certificate=b"the certificate of orders", peer=ORDERS)["ok"]
