# SPDX-License-Identifier: Apache-2.0
"""The chapter ``detect``: what it says, what is nonsense, and that silence means the defaults."""

from __future__ import annotations

from datetime import timedelta

import jsonschema
import pytest

from everyhop.core.errors import PolicyError
from everyhop.policy import decode_snapshot, encode_snapshot, parse_policy
from everyhop.policy.detect import (
    ALL,
    BAD_CALLS,
    DEFAULTS,
    Counted,
    Exemption,
    OnError,
    Rate,
    Response,
    SubjectClass,
)
from everyhop.policy.schema import json_schema

BASE = "version: 1\ntrust_domain: shop.example\nservices: {orders: {}, batch: {}}\n"
SERVICES = SubjectClass.SERVICES


def parsed(detect=""):
    return parse_policy({"p.yaml": (BASE + detect).encode()})


def chapter(text):
    return parsed(f"detect: {text}\n").detection


def refusals(text):
    with pytest.raises(PolicyError) as caught:
        parsed(f"detect: {text}\n")
    problems = caught.value.problems
    assert all(problem.span.line == 4 for problem in problems)
    return [(problem.code, f"{problem.message} ({problem.suggestion})") for problem in problems]


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("{users: {alert: 100, block: 50}}", "conflict", "write block: never"),
        ("{users: {alert: 501}}", "conflict", "block (500) is less than alert (501)"),
        ("{users: {alert: 0}}", "value", "0 is not between 1"),
        ("{users: {block: -1}}", "value", "is not a number"),
        ("{users: {block: 10000001}}", "value", "not between"),
        ("{window: 0s}", "value", "0s is not between 1m and 1h"),
        ("{window: 5}", "value", "a duration"),
        ("{window: 2h}", "value", "not between 1m and 1h"),
        ("{users: {block_for: 0s}}", "value", "0s is not between 1s and 30d"),
        ("{users: {block_for: 31d}}", "value", "not between"),
        ("{mode: shadow}", "value", "one of enforce, observe"),
        ("{on_error: deny}", "value", "one of local, allow"),
        ("{user: {alert: 1}}", "unknown-key", "did you mean 'users'?"),
        ("{users: {alerts: 1}}", "unknown-key", "did you mean 'alert'?"),
        ("{users: {expected_rate: 5/s}}", "unknown-key", "unknown key"),
        ("{users: {count: al}}", "value", "did you mean 'all'?"),
        ("{users: {count: [allowed]}}", "value", "one of denied"),
        ("{users: {count: [denied, denied]}}", "duplicate", "denied is here twice"),
        ("{users: {count: []}}", "empty", "the list is empty"),
        ("{services: {count: all}}", "missing-key", "expected_rate instead"),
        ("{per_service: {batch: {count: all, alert: 5}}}", "missing-key", "thresholds of its own"),
        ("{per_service: {bach: {alert: 5}}}", "unknown-service", "did you mean 'batch'?"),
        ("{per_service: {}}", "type", "expected a mapping of services"),
        ("{per_service: {batch: {expected_rate: 50}}}", "value", "a rate: 50/s"),
        ("{per_service: {batch: {expected_rate: 0/s}}}", "value", "a rate"),
        ("{exempt: [host:a]}", "value", "address:NETWORK"),
        ("{exempt: ['address:10.0.0.1/8']}", "value", "host bits set"),
        ("{exempt: ['address:orders']}", "value", "is no network"),
        ("{exempt: [identity:orders]}", "value", "service:NAME"),
        ("{exempt: [service:order]}", "unknown-service", "did you mean 'orders'?"),
        ("{breaker: {share: 0%}}", "value", "a share"),
        ("{breaker: {share: 0.2}}", "value", "a share"),
        ("{breaker: {within: 1s}}", "value", "not between"),
        ("off", "type", "expected a mapping"),
        ("{detectors: {new-edge: maybe}}", "value", "on, off or a mapping"),
        ("{detectors: {New: off}}", "value", "the name of a detector"),
        ("{detectors: {volume: {spreads: ''}}}", "type", "expected text"),
        ("{detectors: off}", "type", "a mapping of detectors"),
    ],
)
def test_nonsense_is_refused_with_its_place_and_what_helps(text, code, words):
    (found, message), *_ = refusals(text)
    assert found == code
    assert words in message


def test_it_stands_in_one_file():
    files = {
        "a.yaml": (BASE + "detect: {mode: observe}\n").encode(),
        "b.yaml": b"version: 1\ndetect: {mode: enforce}\n",
    }
    with pytest.raises(PolicyError, match="detect stands in two files"):
        parse_policy(files)


def test_it_is_no_key_of_a_rule():
    with pytest.raises(PolicyError, match="unknown key 'detect'"):
        parsed("allow: [{from: orders, to: batch, detect: x}]\n")


def test_silence_means_the_defaults():
    found = parsed().detection
    assert found == DEFAULTS
    assert (found.response, found.window) == (Response.ENFORCE, timedelta(minutes=5))
    for kind in SubjectClass:
        limits = found.limits_of(kind, "orders")
        assert (limits.alert, limits.block, limits.block_for) == (100, 500, timedelta(hours=1))
        assert limits.count == (BAD_CALLS if kind is SERVICES else ALL)


@pytest.mark.parametrize(
    "same",
    [
        "{window: 5m}",
        "{window: 300s, mode: enforce, on_error: local}",
        "{users: {alert: 100, block: 500, block_for: 60m, count: all}}",
        "{services: {count: [undeclared, failed, denied]}, breaker: {share: 20%, within: 10m}}",
        "{per_service: {batch: {alert: 100}}}",
    ],
)
def test_to_write_the_defaults_is_to_be_silent(same):
    assert parsed(f"detect: {same}\n").hash == parsed().hash


FULL = """
detect:
  mode: observe
  window: 2m
  users: {alert: 10, block: 20, block_for: 90s, count: [failed]}
  api_keys: off
  addresses: {block: never}
  services: {alert: 7}
  per_service:
    batch: {count: all, alert: 1000, block: 5000, expected_rate: 50/s}
    orders: off
  exempt: [service:orders, "address:10.0.0.0/8", "address:2001:db8::1", "user:ops@example", "api-key:k1", "address:192.0.2.1/32"]
  on_error: allow
  breaker: off
  detectors: {volume: {spreads: 8, learn: 14d}, new-edge: off}
"""


def test_everything_that_can_be_said():
    found = parsed(FULL).detection
    users = found.limits_of(SubjectClass.USERS)
    assert (users.alert, users.block, users.block_for) == (10, 20, timedelta(seconds=90))
    assert users.count == {Counted.FAILED}
    assert found.limits_of(SubjectClass.API_KEYS).is_off
    assert found.limits_of(SubjectClass.ADDRESSES).block is None
    assert (found.limits_of(SERVICES).alert, found.limits_of(SERVICES).block) == (7, 500)
    batch = found.limits_of(SERVICES, "batch")
    assert (batch.alert, batch.block, batch.count, batch.expected_rate) == (1000, 5000, ALL, Rate(50, "s"))
    assert found.limits_of(SERVICES, "orders").is_off
    assert (found.response, found.window, found.breaker) == (Response.OBSERVE, timedelta(minutes=2), None)
    assert found.on_error is OnError.ALLOW
    assert found.detectors == {"volume": {"spreads": "8", "learn": "14d"}, "new-edge": "off"}


def test_it_is_part_of_the_snapshot_and_comes_back_as_it_was():
    snapshot = parsed(FULL)
    assert snapshot.hash != parsed().hash
    again = decode_snapshot(encode_snapshot(snapshot))
    assert (again.detection, again.hash) == (snapshot.detection, snapshot.hash)
    assert again.detection.span == snapshot.detection.span
    reordered = FULL.replace("[service:orders, ", "[").replace(
        '192.0.2.1/32"]', '192.0.2.1", service:orders]'
    )
    assert parsed(reordered).hash == snapshot.hash


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (("address", "10.1.2.3"), True),
        (("address", "11.1.2.3"), False),
        (("address", "2001:db8::/64"), True),
        (("address", "2001:db8:0:1::/64"), False),
        (("address", "192.0.2.1"), True),
        (("identity", "spiffe://shop.example/service/orders"), True),
        (("identity", "spiffe://shop.example/service/batch"), False),
        (("user", "ops@example"), True),
        (("api-key", "ops@example"), False),
    ],
)
def test_who_is_exempt(subject, expected):
    assert parsed(FULL).detection.is_exempt(*subject) is expected


def test_a_network_of_one_family_covers_none_of_the_other():
    assert not Exemption("address", "::/0").covers("address", "10.0.0.1")


@pytest.mark.parametrize("unit", [("5/s", 5), ("60/m", 1), ("3600/h", 1)])
def test_rates_are_per_second(unit):
    text, expected = unit
    limits = chapter(f"{{per_service: {{batch: {{expected_rate: {text}}}}}}}").limits_of(SERVICES, "batch")
    assert limits.expected_rate.per_second == expected
    assert limits.count == BAD_CALLS


def test_the_schema_of_editors_takes_what_the_parser_takes():
    validator = jsonschema.Draft202012Validator(json_schema())
    said = {"mode": "observe", "window": "2m", "users": {"alert": 10, "block": "never", "count": ["failed"]},
            "api_keys": "off", "per_service": {"batch": {"expected_rate": "50/s", "count": "all"}},
            "exempt": ["service:orders"], "on_error": "allow", "breaker": {"share": "5%"},
            "detectors": {"volume": {"spreads": 8}, "new-edge": "off"}}  # fmt: skip
    assert list(validator.iter_errors({"version": 1, "detect": said})) == []
    for wrong in (
        {"users": {"alert": 0}},
        {"mode": "x"},
        {"breaker": "on"},
        {"user": {}},
        {"on_error": "deny"},
    ):
        assert list(validator.iter_errors({"version": 1, "detect": wrong}))
