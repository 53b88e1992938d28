# SPDX-License-Identifier: Apache-2.0
"""Canaries: every use, nothing else, and whom it is held against."""

from __future__ import annotations

import pytest
from tests.unit.anomaly.detectors.acts import DOMAIN, act, feed, feed_with_restarts, later

from everyhop.anomaly import Severity
from everyhop.anomaly.detectors import Canaries, ServiceCanary
from everyhop.anomaly.detectors.canaries import host_name
from everyhop.anomaly.detectors.settings import Canary as Settings
from everyhop.anomaly.finding import Action


class Services:
    def find(self, service):
        return ServiceCanary("c-vault", Action.QUARANTINE) if service == "vault-backup" else None


def make():
    return Canaries(Settings(), Services())


def used(time=None, *, caller=None, **detail):
    detail = {"canary": "c1", "canary_kind": "api-key", "response": "block"} | detail
    return act(
        time or later(),
        kind="token",
        point="control",
        caller=caller,
        operation="canary-used",
        reason="canary",
        detail=detail,
    )


def called(target, *, point="egress", reason="undeclared-destination", **values):
    return act(target=target, operation=None, point=point, reason=reason, **values)


def test_a_credential_that_is_used_from_outside_is_held_against_the_address():
    seen = used(source="203.0.113.9")
    (found,) = feed(make(), [seen])
    assert (found.detector, found.severity, found.action) == ("canary", Severity.CRITICAL, Action.BLOCK)
    assert str(found.subject) == "address:203.0.113.9"
    assert (found.evidence, found.block_for) == ((seen.record,), Settings().block_for)
    assert "c1 (api-key)" in found.title


def test_a_proven_caller_comes_before_the_address():
    (found,) = feed(make(), [used(caller="orders", source="203.0.113.9", response="quarantine")])
    assert (str(found.subject), found.action) == (f"identity:{DOMAIN}orders", Action.QUARANTINE)


def test_an_address_cannot_be_quarantined_and_nobody_cannot_be_blocked():
    (of_address,) = feed(make(), [used(source="203.0.113.9", response="quarantine")])
    (of_nobody,) = feed(make(), [used(response="quarantine")])
    assert (of_address.action, of_nobody.action) == (Action.BLOCK, Action.ALERT)
    assert of_nobody.severity is Severity.CRITICAL


@pytest.mark.parametrize("response", ["alert", "nonsense", None, 7])
def test_an_alert_only_asks_for_nothing(response):
    (found,) = feed(make(), [used(source="203.0.113.9", response=response)])
    assert (found.action, found.block_for) == (Action.ALERT, None)


@pytest.mark.parametrize("target", ["vault-backup", "vault-backup:8200", "VAULT-BACKUP", "vault-backup."])
def test_a_call_to_a_service_that_is_a_canary_names_the_workload(target):
    (found,) = feed(make(), [called(target)])
    assert (found.action, str(found.subject)) == (Action.QUARANTINE, f"identity:{DOMAIN}orders")
    assert "vault-backup" in found.title


def test_an_application_cannot_accuse_a_caller():
    assert feed(make(), [called("vault-backup", point="sdk")]) == []


@pytest.mark.parametrize(
    "seen",
    [
        called("vault"),
        called("vault-backup.evil.example"),
        called("vault-backup:x"),
        called(None),
        act(),
        act(kind="token", operation="exchange", reason="canary"),
    ],
    ids=range(6),
)
def test_nothing_else_is_a_canary(seen):
    assert feed(make(), [seen]) == []


def test_without_canary_services_nothing_is_one():
    assert feed(Canaries(Settings()), [called("vault-backup")]) == []


def test_a_caller_that_goes_on_is_told_every_five_minutes():
    seen = [used(later(seconds=10 * n), source="203.0.113.9") for n in range(60)]
    assert len(feed(make(), seen)) == 2
    assert len(feed_with_restarts(make, seen)) == 2


def test_another_canary_and_another_caller_are_told_at_once():
    seen = [used(source="203.0.113.9"), used(source="203.0.113.9", canary="c2"), used(source="203.0.113.10")]
    assert len(feed(make(), seen)) == 3


def test_names_of_destinations():
    assert host_name("Vault:80") == "vault"
    assert host_name("[::1]:80") == host_name("") == host_name(None) == ""
