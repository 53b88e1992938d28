# SPDX-License-Identifier: Apache-2.0
"""Detection over a log: at which call it speaks, whom it blocks, and whom it must not."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.support.detecting import NOON, Watched, identity, of_address, of_user, record, snapshot_with, told

from everyhop.anomaly import Action, BlockMode, Finding, Severity, Subject
from everyhop.anomaly.breaker import ALWAYS
from everyhop.anomaly.engine import MAX_FINDINGS
from everyhop.auditlog import Kind, Point

EXACT = [(100, "alert"), (500, "blocked")]


@pytest.mark.parametrize(
    ("make", "arguments"), [(record, ()), (of_user, ("alice",)), (of_address, ("203.0.113.7",))]
)
def test_every_class_alerts_at_100_and_blocks_at_500(make, arguments):
    watched = Watched("{services: {count: [denied]}}")
    assert told(watched.calls(520, make, *arguments)) == EXACT


def test_what_is_found_says_whom_what_and_by_which_records():
    watched = Watched()
    (_, alert), (_, block) = watched.calls(500, of_address, "203.0.113.7")
    finding = block.finding
    assert (str(finding.subject), finding.detector) == ("address:203.0.113.7", "rate-anomaly")
    assert (finding.observed, finding.threshold, finding.count) == (500, 500, 500)
    assert (alert.finding.observed, alert.finding.threshold) == (100, 100)
    assert (block.mode, block.block_for) == (BlockMode.BLOCK, timedelta(hours=1))
    assert (alert.mode, alert.finding.severity, finding.severity) == (None, Severity.MEDIUM, Severity.HIGH)
    ids = [int(name[1:]) for name in finding.evidence]
    assert len(ids) == 8
    assert ids == sorted(ids)
    assert ids[-1] - ids[0] == 499
    assert finding.title == "500 calls within 5m"


def test_services_count_refusals_and_no_volume():
    watched = Watched()
    assert watched.calls(2000, decision="allow", reason="allowed") == []
    found = watched.calls(500)
    assert told(found) == EXACT
    assert found[0][1].finding.title == "100 denied, unauthenticated or undeclared calls within 5m"


def test_a_user_does_not_lock_out_the_service_that_calls_for_it():
    watched = Watched()
    found = watched.calls(600, reason="user-not-permitted", detail={"user": "mallory"})
    assert told(found) == EXACT
    assert {str(judged.finding.subject) for _, judged in found} == {"user:mallory"}


def test_a_stranger_does_not_lock_out_whom_it_claims_to_be():
    watched = Watched()
    detail = {"host": "203.0.113.7", "user": "victim", "api_key": "victims"}
    found = watched.calls(
        500, point=Point.EDGE, caller=identity("store"), reason="TOKEN_INVALID", status=401, detail=detail
    )
    assert {str(judged.finding.subject) for _, judged in found} == {"address:203.0.113.7"}


def test_refusals_for_a_block_count_for_nothing():
    watched = Watched()
    assert watched.calls(2000, reason="blocked", status=429) == []
    assert told(watched.calls(500)) == EXACT


def test_classes_and_services_have_thresholds_of_their_own():
    watched = Watched(
        "{users: {alert: 3, block: 5}, addresses: off, services: {alert: 7, block: never},"
        " per_service: {batch: {alert: 2, block: 2}}}"
    )
    assert told(watched.calls(9, of_user, "u", caller="outside", point=Point.EDGE)) == [
        (3, "alert"),
        (5, "blocked"),
    ]
    assert watched.calls(600, of_address, "203.0.113.7") == []
    assert told(watched.calls(600)) == [(7, "alert")]
    assert told(watched.calls(9, caller=identity("batch"))) == [(2, "blocked")]


def test_a_declared_rate_alerts_and_never_blocks():
    watched = Watched("{per_service: {batch: {expected_rate: 2/m}}}")
    found = watched.calls(600, caller=identity("batch"), decision="allow", reason="allowed")
    assert told(found) == [(11, "alert")]
    finding = found[0][1].finding
    assert (finding.baseline, finding.threshold, finding.title) == (10, 11, "11 calls within 5m")


def test_to_observe_is_to_find_and_not_to_block():
    watched = Watched("{mode: observe}")
    found = watched.calls(2000)
    assert told(found) == [(100, "alert"), (500, "observed")]
    assert found[1][1].mode is None


def test_who_is_exempt_is_told_of_and_not_blocked():
    watched = Watched('{exempt: ["address:203.0.113.0/24", service:orders]}')
    for make, arguments in ((of_address, ("203.0.113.7",)), (record, ())):
        assert told(watched.calls(2000, make, *arguments)) == [(100, "alert"), (500, "exempt")]
    assert told(watched.calls(500, of_address, "198.51.100.7")) == EXACT


def test_after_the_block_it_begins_at_zero():
    watched = Watched("{services: {block_for: 60s}}")
    assert told(watched.calls(500)) == EXACT
    watched.move(61)
    assert told(watched.calls(500)) == EXACT


def test_an_hour_of_backlog_blocks_nobody():
    watched = Watched()
    backlog = [record(at=NOON - timedelta(hours=1, seconds=-n / 10)) for n in range(5000)]
    assert watched.take(backlog) == []
    assert told(watched.calls(100)) == [(100, "alert")]


def test_a_slow_backlog_is_counted_as_it_happened():
    watched = Watched()
    backlog = [record(at=NOON - timedelta(seconds=4 * n)) for n in range(900, 0, -1)]
    assert watched.take(backlog) == []


@pytest.mark.parametrize("step", [-86_400, 86_400])
def test_a_step_of_the_wall_clock_blocks_nobody_and_forgets_nothing(step):
    watched = Watched()
    watched.calls(99)
    watched.wall += timedelta(seconds=step)  # records and server alike
    assert told(watched.calls(1)) == [(1, "alert")]


def test_records_ahead_of_the_clock_are_of_now():
    watched = Watched()
    assert told(
        [(1, j) for j in watched.take([record(at=NOON + timedelta(hours=1)) for _ in range(100)])]
    ) == [(1, "alert")]
    watched.move(310)
    assert watched.engine.look(Subject.parse(f"identity:{identity('orders')}"), now=watched.now).n == 0


def response(operation, subject, *, reason="commanded", **detail):
    return record(
        kind=Kind.RESPONSE,
        point=Point.CONTROL,
        operation=operation,
        reason=reason,
        detail={"block": subject, **detail},
    )


def test_whom_somebody_unblocks_begins_at_zero():
    watched = Watched()
    watched.calls(500)
    watched.take([response("unblock", f"identity:{identity('orders')}", reason="lifted")])
    watched.move(0.01)
    assert told(watched.calls(500)) == EXACT


def test_a_block_by_command_ends_at_zero_too():
    watched = Watched()
    watched.calls(99, of_user, "alice")
    until = (NOON + timedelta(seconds=30)).isoformat()
    watched.take([response("block", "user", user="alice", until=until)])
    assert watched.calls(50, of_user, "alice") == []  # what was under way
    watched.move(31)
    watched.take([response("unblock", "user", user="alice", reason="expired")])
    assert told(watched.calls(500, of_user, "alice")) == EXACT


@pytest.mark.parametrize("detail", [{}, {"block": "nobody"}, {"block": 7}, {"block": "user", "until": "x"}])
def test_a_response_that_says_nothing_is_no_error(detail):
    watched = Watched()
    assert watched.take([record(kind=Kind.RESPONSE, operation="block", detail=detail)]) == []


def test_the_order_of_the_log_counts_within_a_page():
    watched = Watched()
    subject = f"identity:{identity('orders')}"
    page = [record() for _ in range(500)] + [response("unblock", subject, reason="lifted")]
    assert [judged.answer.value for judged in watched.take(page)] == ["alert", "blocked"]
    watched.move(0.01)
    assert told(watched.calls(100)) == [(100, "alert")]


def test_a_flood_of_blocks_is_held_back():
    watched = Watched("{addresses: {alert: never, block: 2}}")
    answers = []
    for n in range(20):
        answers += [answer for _, answer in told(watched.calls(3, of_address, f"203.0.113.{n}"))]
    # of 20 known subjects, 20 % are four; five are always blocked
    assert answers == ["blocked"] * ALWAYS + ["held-back"] * (20 - ALWAYS)
    watched.move(601)
    assert told(watched.calls(3, of_address, "203.0.113.19")) == [(2, "blocked")]


def test_of_many_known_subjects_a_fifth_is_more():
    watched = Watched("{addresses: {alert: never, block: 2}}")
    for n in range(50):
        watched.calls(1, of_address, f"198.51.100.{n}")
    answers = []
    for n in range(20):
        answers += [answer for _, answer in told(watched.calls(3, of_address, f"203.0.113.{n}"))]
    assert answers.count("blocked") == 14  # a fifth of the 70 who are known by then
    assert answers.count("held-back") == 6


def test_without_a_breaker_nothing_is_held_back():
    watched = Watched("{addresses: {alert: never, block: 1}, breaker: off}")
    answers = [told(watched.calls(1, of_address, f"203.0.113.{n}")) for n in range(50)]
    assert answers == [[(1, "blocked")]] * 50


def test_another_policy_counts_on_by_other_thresholds():
    watched = Watched()
    watched.calls(99)
    watched.engine.configure(snapshot_with("{services: {alert: 200}}"))
    assert watched.calls(100) == []
    assert told(watched.calls(1)) == [(1, "alert")]


def test_a_restart_counts_on_from_what_was_recorded():
    watched = Watched()
    before = [record(at=NOON) for _ in range(450)]
    watched.take(before)
    again = Watched()
    again.move(60)
    again.take(before)  # quietly: whatever it finds was told already
    assert told(again.calls(50)) == [(50, "blocked")]


class Canary:
    """Asks for a quarantine of whoever calls."""

    name = "canary"

    def observe(self, observation, now):
        return [
            Finding(
                detector="canary", severity=Severity.CRITICAL, subject=subject, title="used", evidence=(observation.record,),
                first=now, last=now, observed=1, action=Action.QUARANTINE,
            )
            for subject in observation.subjects
        ]  # fmt: skip

    def state(self):
        return {}

    def restore(self, state):
        """Nothing is kept."""


class Broken(Canary):
    name = "broken"

    def observe(self, observation, now):
        raise RuntimeError("broken")


def test_a_workload_is_quarantined_and_everybody_else_blocked():
    watched = Watched(detectors=[Canary()])
    ((_, judged),) = watched.calls(1)
    assert (judged.answer.value, judged.mode) == ("quarantined", BlockMode.QUARANTINE)
    ((_, judged),) = watched.calls(1, of_address, "203.0.113.7")
    assert (judged.answer.value, judged.mode) == ("blocked", BlockMode.BLOCK)
    watched = Watched("{mode: observe}", detectors=[Canary()])
    assert told(watched.calls(1)) == [(1, "observed")]


def test_a_detector_that_fails_blinds_no_other(caplog):
    watched = Watched(detectors=[Broken(), Canary()])
    assert told(watched.calls(1)) == [(1, "quarantined")]
    assert "a detector failed" in caplog.text


def test_one_stretch_tells_a_bounded_number():
    watched = Watched("{users: {alert: 1}, breaker: off}")
    found = watched.take([of_user(f"u{n}", caller="outside", point=Point.EDGE) for n in range(500)])
    assert len(found) == MAX_FINDINGS
    assert watched.engine.unseen == 400
