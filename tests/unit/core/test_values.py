# SPDX-License-Identifier: Apache-2.0
"""Secrets stay secret; errors keep their promises; time has a zone."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta, timezone

import pytest

from everyhop.core.clock import parse_rfc3339, rfc3339
from everyhop.core.decision import Decision, Effect, Reason
from everyhop.core.errors import EveryhopError, PolicyError, Unavailable
from everyhop.core.problems import Problem, Span
from everyhop.core.secret import Secret


def test_a_secret_shows_itself_only_when_asked() -> None:
    secret = Secret(b"hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {[secret]}"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)
    assert secret.reveal() == b"hunter2"
    assert secret.matches(b"hunter2")
    assert not secret.matches(b"hunter")


def test_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        parse_rfc3339("2026-01-31T09:00:00")
    with pytest.raises(ValueError, match="Invalid"):
        parse_rfc3339("yesterday")


def test_time_round_trip() -> None:
    moment = datetime(2026, 1, 31, 9, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    assert rfc3339(moment) == "2026-01-31T07:00:00.123456Z"
    assert parse_rfc3339(rfc3339(moment)) == moment.astimezone(UTC)


def test_every_error_has_its_own_code() -> None:
    def tree(kind: type[EveryhopError]) -> list[type[EveryhopError]]:
        return [kind, *(below for child in kind.__subclasses__() for below in tree(child))]

    kinds = [kind for kind in tree(EveryhopError) if kind.__module__ == "everyhop.core.errors"]
    assert len({kind.code for kind in kinds}) == len(kinds)


def test_a_policy_error_shows_every_problem() -> None:
    span = Span(file="a.yaml", line=3, column=7)
    error = PolicyError(
        [
            Problem(code="x", span=span, message="first", suggestion="do this"),
            Problem(code="y", span=span, message="second"),
        ]
    )
    assert error.message == "a.yaml:3:7: error: first (do this) [x]\na.yaml:3:7: error: second [y]"
    assert Unavailable("gone", retry=False).retry is False


@pytest.mark.parametrize(
    ("effect", "reason", "status"),
    [
        (Effect.ALLOW, Reason.ALLOWED, 200),
        (Effect.DENY, Reason.NO_RULE, 403),
        (Effect.DENY, Reason.AMBIGUOUS_PATH, 400),
    ],
)
def test_a_decision_knows_its_status(effect: Effect, reason: Reason, status: int) -> None:
    decision = Decision(
        effect=effect, reason=reason, caller="c", target="t", operation=None, rule=None, snapshot="0" * 64
    )
    assert decision.status == status
    assert decision.is_allowed is (status == 200)
