# SPDX-License-Identifier: Apache-2.0
"""Revocations: what they hit, what they outlive, and what they look like on the wire."""

import pytest
from tests.support.identity import NOW
from tests.support.tokens import AT, ISSUER, KEYS, ORDERS, mint_access

from everyhop.core.errors import InputError
from everyhop.tokens import NOTHING_REVOKED, Revocations, verify_access_token

TOKEN = verify_access_token(mint_access(txn="t1"), KEYS, issuer=ISSUER, now=NOW)


@pytest.mark.parametrize(
    "revocations",
    [
        Revocations(kids=frozenset({"k1"})),
        Revocations(jtis={"j1": AT + 300}),
        Revocations(txns={"t1": AT + 300}),
        Revocations(subs={ORDERS: AT}),
    ],
)
def test_each_kind_hits(revocations):
    assert revocations.is_revoked(TOKEN)
    assert revocations
    assert revocations.any


@pytest.mark.parametrize(
    "revocations",
    [
        NOTHING_REVOKED,
        Revocations(kids=frozenset({"r1"}), jtis={"t1": 1}, txns={"j1": 1}),
        Revocations(subs={ORDERS: AT - 1, "alice": AT}),
    ],
)
def test_others_are_left_alone(revocations):
    assert not revocations.is_revoked(TOKEN)
    without = verify_access_token(mint_access(), KEYS, issuer=ISSUER, now=NOW)
    assert not Revocations(txns={"None": 1}).is_revoked(without)


def test_it_cannot_be_changed_from_outside():
    names = {"j1": AT}
    revocations = Revocations(jtis=names)
    names.clear()
    assert revocations.is_revoked(TOKEN)
    with pytest.raises(TypeError):
        revocations.jtis["x"] = 1


def test_what_no_token_can_carry_any_more_is_dropped():
    revocations = Revocations(
        frozenset({"k"}), {"old": AT - 5, "new": AT - 4}, {"t": AT + 1}, {"s": AT - 3605}
    )
    kept = revocations.since(AT)
    assert (set(kept.jtis), set(kept.txns), kept.kids) == ({"new"}, {"t"}, {"k"})


def test_the_wire_form_comes_back():
    revocations = Revocations(frozenset({"b", "a"}), {"j": 1}, {"t": 2}, {"s": 3})
    assert Revocations.from_members(revocations.to_members()) == revocations
    assert Revocations.from_members({}) == NOTHING_REVOKED
    assert not NOTHING_REVOKED


@pytest.mark.parametrize(
    "members",
    [
        {"kids": "a"},
        {"kids": [1]},
        {"jtis": ["a"]},
        {"jtis": {"a": "1"}},
        {"jtis": {"a": True}},
        {"jtis": {"a": -1}},
        {"jtis": {"a": 10**15}},
        {"txns": {"a": 1.5}},
        {"txns": {1: 1}},
        {"txns": {str(n): 1 for n in range(100_001)}},
    ],
)
def test_another_form_is_refused(members):
    with pytest.raises(InputError):
        Revocations.from_members(members)
