# SPDX-License-Identifier: Apache-2.0
"""Findings as records: bounded whatever is in them, and complete enough for whoever reads only the record."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from everyhop.anomaly import Action, Finding, Severity, Subject
from everyhop.anomaly.finding import MAX_EVIDENCE, some_of
from everyhop.auditlog import Kind, Point, Record, decode_record, encode_record
from everyhop.auditlog.model import MAX_DETAILS, MAX_TEXT

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def finding(**fields):
    base = {
        "detector": "rate",
        "severity": Severity.HIGH,
        "subject": Subject.parse("user:alice"),
        "title": "500 requests in 5 minutes",
        "evidence": ("a", "b"),
        "first": NOON,
        "last": NOON + timedelta(minutes=4),
        "observed": 500,
    }
    return Finding(**{**base, **fields})


def test_the_longest_finding_still_is_a_record():
    full = finding(
        title="\x00\u202e" * 5000,
        suggestion="s" * 5000,
        unit="u" * 5000,
        evidence=tuple(f"{n}" * 300 for n in range(1000)),
        subject=Subject.of(Subject.parse("user:a").kind, "ü" * 512),
        threshold=1.5,
        baseline=2.0,
        block_for=timedelta(hours=1),
        action=Action.BLOCK,
    )
    detail = full.to_record_detail()
    assert len(detail) <= MAX_DETAILS
    assert all(len(value) <= MAX_TEXT for value in detail.values() if isinstance(value, str))
    line = encode_record(
        Record(id="f", seq=1, producer="p", time=NOON, kind=Kind.FINDING, point=Point.CONTROL, detail=detail)
    )
    assert decode_record(line).detail == detail


def test_evidence_names_the_first_and_the_last():
    ids = tuple(str(n) for n in range(100))
    kept = some_of(ids)
    assert (len(kept), kept[0], kept[-1]) == (MAX_EVIDENCE, "0", "99")
    assert some_of(ids[:3]) == ids[:3]


def test_the_record_says_by_what_measure():
    detail = finding(threshold=500, count=777).to_record_detail()
    assert detail["evidence"] == "a b"
    assert (detail["observed"], detail["threshold"], detail["count"]) == (500, 500, 777)
    assert (detail["severity"], detail["severity_id"], detail["is_alert"]) == ("high", 4, True)
    assert "baseline" not in detail
    assert detail["subject"] == "user:alice"


@pytest.mark.parametrize(("severity", "number"), list(zip(Severity, range(1, 6), strict=True)))
def test_severities_have_the_numbers_of_ocsf(severity, number):
    assert severity.number == number
    assert finding(severity=severity).to_record_detail()["is_alert"] is (number > 1)


def test_the_record_says_what_is_wished():
    assert finding().action is Action.ALERT
    wanting = finding(action=Action.BLOCK, block_for=timedelta(minutes=1))
    assert (wanting.action, wanting.to_record_detail()["block_seconds"]) == (Action.BLOCK, 60)


def test_texts_do_not_name_whom_a_pseudonym_should_hide():
    told = finding(title="alice made 500 calls", suggestion="everyhop block user:alice").to_record_detail()
    assert (told["title"], told["suggestion"]) == ("SUBJECT made 500 calls", "everyhop block user:SUBJECT")
    assert [name for name, value in told.items() if "alice" in str(value)] == ["subject"]
