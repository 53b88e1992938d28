# SPDX-License-Identifier: Apache-2.0
"""The tour's own judgement: only exactly what was expected counts, and whatever else makes the exit code 1."""

import json
from types import SimpleNamespace

import pytest

from everyhop.demo import report
from everyhop.demo.judge import judge, observe
from everyhop.demo.model import Attempt, Seen


def attempt(expected, text, *, decision=None, reaches=False):
    def run(field):
        return Seen(text=text, decision=decision)

    return Attempt(theme="t", name="n", expected=expected, run=run, reaches=reaches)


def results_of(attempts, *, records=None, marks=None):
    observed = observe(attempts, SimpleNamespace(mark=""), prefix="a")
    return judge(observed, record_of=(records or {}).get, marks=marks or {})


def test_what_is_exactly_expected_is_ok():
    results = results_of([attempt("403", "403")])
    assert results[0].is_ok
    assert report.exit_code(results) == 0


@pytest.mark.parametrize("seen", ["200", "403 ", "4033", ""])
def test_anything_else_is_a_mismatch_and_exit_code_1(seen):
    results = results_of([attempt("403", "403"), attempt("403", seen)])
    assert [r.is_ok for r in results] == [True, False]
    assert report.exit_code(results) == 1
    assert "MISMATCH" in report.render(results, verbose=False)
    assert report.document([], results, 0, 1.0)["ok"] is False


def test_no_results_are_no_success():
    assert report.exit_code([]) == 1


def test_the_reason_of_the_decision_log_is_part_of_what_is_seen():
    wanted = attempt("403 no-rule", "403", decision="id-1")
    assert results_of([wanted], records={"id-1": {"reason": "no-rule", "rule": None}})[0].is_ok
    assert (
        results_of([wanted], records={"id-1": {"reason": "unknown-caller"}})[0].seen == "403 unknown-caller"
    )


def test_a_decision_that_the_log_does_not_know_is_a_mismatch():
    assert results_of([attempt("403 no-rule", "403", decision="id-1")])[0].seen == "403 (no record)"


def test_a_refused_request_that_reached_an_application_is_a_mismatch():
    results = results_of([attempt("403", "403")], marks={"a1": "orders"})
    assert results[0].seen == "403, reached orders"
    assert not results[0].is_ok


def test_a_legitimate_request_may_reach_the_application_but_not_what_it_smuggles():
    carrier = attempt("400", "400", reaches=True)
    assert results_of([carrier], marks={"a1": "orders"})[0].is_ok
    assert (
        results_of([carrier], marks={"a1-inner": "orders"})[0].seen
        == "400, the smuggled request reached orders"
    )


def test_an_attempt_that_fails_to_run_is_a_mismatch_and_the_others_still_run():
    def fail(field):
        raise RuntimeError("boom")

    broken = Attempt(theme="t", name="n", expected="403", run=fail)
    results = results_of([broken, attempt("403", "403")])
    assert [r.is_ok for r in results] == [False, True]
    assert "boom" in results[0].seen


def test_the_report_is_plain_and_safe_to_print():
    results = results_of([attempt("403", "403 \x1b[2J")])
    text = report.render(results, verbose=True)
    assert "\x1b" not in text
    json.dumps(report.document(results, results, 3, 1.5))
