# SPDX-License-Identifier: Apache-2.0
"""The functions that everyhop adds."""

from __future__ import annotations

import pytest

from everyhop.conditions import ConditionError, Truth, ValueType, Vocabulary, compile_condition

WORDS = Vocabulary({"ip": ValueType.STRING, "held": ValueType.STRINGS, "wanted": ValueType.STRINGS})


def evaluate(text: str, **values: object):
    return compile_condition(text, WORDS).evaluate(values)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("10.0.0.1/8", "the network has host bits set; it would be 10.0.0.0/8"),
        ("2001:db8::1/32", "the network has host bits set; it would be 2001:db8::/32"),
        ("10.0.0/8", "the network cannot be read"),
        ("10.0.0.0/33", "the network cannot be read"),
        ("10.0.0.0/255.0.0.0", "the network cannot be read"),
        ("010.0.0.0/8", "the network cannot be read"),
        ("fe80::%eth0/64", "the network cannot be read"),
        (" 10.0.0.0/8", "the network cannot be read"),
        ("", "the network cannot be read"),
        ("::ffff:10.0.0.0/104", "write the network of IPv4-mapped addresses as an IPv4 network"),
    ],
)
def test_networks_that_are_refused_when_read(network, message):
    with pytest.raises(ConditionError) as refused:
        compile_condition(f"in_cidr(ip, '{network}')", WORDS)
    assert refused.value.problems[0].message.startswith(message)
    assert refused.value.problems[0].column == 13


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("in_cidr(ip, ip)", "in_cidr() needs its network written out"),
        (
            "in_cidr('10.0.0.1', '10.0.0.0/8')",
            "in_cidr() needs an address of the request, not one written out",
        ),
        ("has_role(held, '')", "has_role() needs a string that is not empty"),
        ("has_any(held, ['a', ''])", "has_any() needs a string that is not empty"),
        ("has_all(held, [])", "a list that is written out needs at least one element"),
        ("starts_with_any(ip, [''])", "starts_with_any() needs a string that is not empty"),
        ("has_role(ip, 'a')", "has_role cannot be applied to (string, string)"),
    ],
)
def test_calls_that_are_refused_when_read(text, message):
    with pytest.raises(ConditionError) as refused:
        compile_condition(text, WORDS)
    assert message in [problem.message for problem in refused.value.problems]


@pytest.mark.parametrize(
    "address",
    [
        "",
        "10.1",
        "10.0.0.1:80",
        "[::1]",
        "fe80::1%eth0",
        "010.0.0.1",
        "10.0.0.1 ",
        "10.0.0.1/8",
        "a" * 60_000,
        "\uff110.0.0.1",
    ],
)
def test_an_address_that_cannot_be_read_is_an_error(address):
    outcome = evaluate("in_cidr(ip, '0.0.0.0/0')", ip=address)
    assert (outcome.truth, outcome.error) == (Truth.ERROR, "the address cannot be read")


@pytest.mark.parametrize(
    ("address", "network", "truth"),
    [
        ("10.255.255.255", "10.0.0.0/8", Truth.TRUE),
        ("11.0.0.0", "10.0.0.0/8", Truth.FALSE),
        ("10.0.0.7", "10.0.0.7", Truth.TRUE),
        ("::ffff:10.0.0.7", "10.0.0.0/8", Truth.TRUE),
        ("::ffff:11.0.0.7", "10.0.0.0/8", Truth.FALSE),
        ("::ffff:10.0.0.7", "::/0", Truth.FALSE),
        ("2001:DB8::1", "2001:db8::/32", Truth.TRUE),
        ("2001:db9::1", "2001:db8::/32", Truth.FALSE),
        ("::a00:7", "10.0.0.0/8", Truth.FALSE),
        ("10.0.0.7", "::/0", Truth.FALSE),
    ],
)
def test_in_cidr(address, network, truth):
    assert evaluate(f"in_cidr(ip, '{network}')", ip=address).truth is truth


@pytest.mark.parametrize(
    ("text", "held", "wanted", "truth"),
    [
        ("has_role(held, 'a')", ["b"], [], Truth.FALSE),
        ("has_role(held, 'a')", ["A", "aa"], [], Truth.FALSE),
        ("has_role(held, 'a')", ["b", "a"], [], Truth.TRUE),
        ("has_any(held, ['a', 'b'])", ["c"], [], Truth.FALSE),
        ("has_any(held, ['a', 'b'])", {"b"}, [], Truth.TRUE),
        ("has_any(held, wanted)", ["a"], [], Truth.FALSE),
        ("has_all(held, ['a', 'b'])", ["a"], [], Truth.FALSE),
        ("has_all(held, ['a', 'b'])", ("b", "c", "a"), [], Truth.TRUE),
        ("has_all(held, wanted)", ["a"], [], Truth.ERROR),
        ("starts_with_any('abc', held)", ["b", "ac"], [], Truth.FALSE),
        ("starts_with_any('abc', held)", ["b", "ab"], [], Truth.TRUE),
        ("starts_with_any('abc', held)", [], [], Truth.FALSE),
        ("starts_with_any('abc', held)", ["b", ""], [], Truth.ERROR),
    ],
)
def test_lists(text, held, wanted, truth):
    assert evaluate(text, held=held, wanted=wanted).truth is truth
