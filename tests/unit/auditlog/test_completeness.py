# SPDX-License-Identifier: Apache-2.0
"""What somebody who may write the database can do to the log, and how the report names it."""

from datetime import timedelta

import msgspec
import pytest
from tests.support.identity import NOW, TestCa
from tests.support.seals import AGENT, Log, record, seal_key

from everyhop.auditlog import encode_record
from everyhop.auditlog.completeness import MAX_SHOWN, Range, Ranges, check_completeness
from everyhop.auditlog.gaps import Gap, GapReason, gap_of, gap_record
from everyhop.auditlog.sealing import Stored

SERVER = AGENT.replace("agent/a1", "server")


@pytest.fixture
def log():
    """Two producers of an agent with three seals each, one of the server."""
    made = Log()
    key = seal_key(made.ca)
    for producer in ("i1", "i2"):
        for first in (1, 11, 21):
            made.add([record(seq, producer) for seq in range(first, first + 10)], key)
    made.add([record(seq, "server-1") for seq in (1, 2)], seal_key(made.ca, SERVER))
    return made


def check(log, **options):
    lines, seals = log.sorted()
    return check_completeness(lines, seals, log.certificates, log.authorities, **options)


def shown(ranges):
    return [(r.producer, r.first, r.last) for r in ranges.shown]


def drop(log, producer, *seqs):
    log.lines = [s for s in log.lines if (s.producer, s.seq) not in {(producer, seq) for seq in seqs}]


def put(log, made, producer=None, seq=None):
    place = (producer or made.producer, seq or made.seq)
    log.lines = [s for s in log.lines if (s.producer, s.seq) != place]
    log.lines.append(Stored(*place, encode_record(made)))


# -- found


@pytest.mark.parametrize(
    "seqs", [(1,), (5,), (10,), (11,), (30,), (4, 5, 6), (10, 11), tuple(range(11, 21)), tuple(range(21, 31))]
)
def test_a_dropped_record_is_named(log, seqs):
    drop(log, "i1", *seqs)
    found = check(log)
    assert not found.is_complete
    assert [n for r in found.missing.shown for n in range(r.first, r.last + 1)] == list(seqs)
    assert {r.producer for r in found.missing.shown} == {"i1"}


def test_a_producer_of_which_everything_was_dropped_is_named_by_its_seals(log):
    drop(log, "i1", *range(1, 31))
    assert sum(r.count for r in check(log).missing.shown) == 30


def test_records_dropped_with_their_seals_are_named(log):
    drop(log, "i1", *range(11, 21))
    log.seals = [s for s in log.seals if (s.producer, s.first) != ("i1", 11)]
    found = check(log)
    assert shown(found.missing) == [("i1", 11, 20)]
    assert "missing between" in found.refused.shown[0].why


def test_the_first_records_dropped_with_their_seal_are_named(log):
    drop(log, "i1", *range(1, 11))
    log.seals = [s for s in log.seals if (s.producer, s.first) != ("i1", 1)]
    found = check(log)
    assert shown(found.missing) == [("i1", 1, 10)]
    assert shown(found.refused) == [("i1", 11, 20)]


@pytest.mark.parametrize("producer", ["i1", "server-1"])
def test_an_invented_record_is_named(log, producer):
    last = max(s.seq for s in log.lines if s.producer == producer)
    put(log, record(last + 1, producer))
    found = check(log)
    assert shown(found.unsealed) == [(producer, last + 1, last + 1)]
    assert not found.is_complete


def test_an_invented_producer_is_counted_apart(log):
    put(log, record(1, "i9"))
    found = check(log)
    assert shown(found.never_sealed) == [("i9", 1, 1)]
    assert found.is_complete


def test_an_altered_record_is_named(log):
    put(log, record(17, "i1", path="/another"))
    found = check(log)
    assert shown(found.altered) == [("i1", 17, 17)]
    assert "not those that were signed" in found.refused.shown[0].why


def test_an_altered_record_whose_mark_was_altered_too_is_still_found(log):
    put(log, record(17, "i1", path="/another"))
    lines, seals = log.sorted()
    from everyhop.auditlog.sealing import sealed_hash

    index = next(i for i, s in enumerate(seals) if (s.producer, s.first) == ("i1", 11))
    marks = bytearray(seals[index].marks)
    marks[48:56] = sealed_hash(record(17, "i1", path="/another"))[:8]
    seals[index] = msgspec.structs.replace(seals[index], marks=bytes(marks))
    found = check_completeness(lines, seals, log.certificates, log.authorities)
    assert shown(found.refused) == [("i1", 11, 20)]


def test_renumbered_records_are_named(log):
    put(log, record(30, "i1", id="i1-31"), seq=30)
    put(log, record(29, "i1"), seq=28)  # the row says 28, the line 29
    found = check(log)
    assert {n for r in found.altered.shown for n in range(r.first, r.last + 1)} == {28, 30}


def test_a_record_given_to_another_producer_is_named(log):
    put(log, record(5, "i1"), producer="i2", seq=5)
    found = check(log)
    assert shown(found.altered)[0] == ("i2", 5, 5)


def test_a_line_that_cannot_be_read_is_named(log):
    log.lines = [s if s.seq != 3 else Stored(s.producer, 3, b"\xff{") for s in log.lines]
    assert {r.first for r in check(log).altered.shown} >= {3}


def test_a_seal_by_somebody_else_is_refused(log):
    log.add([record(31, "i1")], seal_key(log.ca, AGENT.replace("a1", "a2")))
    assert "those before by" in check(log).refused.shown[0].why


@pytest.mark.parametrize(
    "uri", ["spiffe://shop.example/service/orders", "spiffe://shop.example/everyhop/other"]
)
def test_a_seal_by_an_identity_that_is_no_signers_is_refused(log, uri):
    log.add([record(1, "i9")], seal_key(log.ca, uri))
    assert "may not seal" in check(log).refused.shown[0].why


def test_a_seal_under_an_authority_that_was_never_ours_is_refused(log):
    log.add([record(1, "i9")], seal_key(TestCa()))
    assert "no valid path" in check(log).refused.shown[0].why


def test_a_seal_from_another_time_than_its_certificates_is_refused(log):
    log.add([record(1, "i9")], seal_key(log.ca, not_after=NOW - timedelta(minutes=1)))
    assert "did not hold at the time" in check(log).refused.shown[0].why


def test_a_seal_whose_certificate_is_gone_is_refused(log):
    log.certificates.clear()
    found = check(log)
    assert found.refused.records == 62
    assert "is not there" in found.refused.shown[0].why


def test_two_seals_over_one_record_are_refused(log):
    key = seal_key(log.ca)
    log.add([record(30, "i1")], key)
    log.lines.pop()
    assert "another seal is over" in check(log).refused.shown[0].why


# -- explained


def test_a_gap_explains_what_it_names_and_no_more(log):
    told = Gap(41, 60, 20, GapReason.OVERFLOW.value)
    log.add([gap_record(told, producer="i1", record_id="g", now=NOW), record(61, "i1")], seal_key(log.ca))
    found = check(log)
    assert shown(found.missing) == [("i1", 31, 40)]
    assert shown(found.explained) == [("i1", 41, 59)]
    assert found.lost == {"spool-overflow": 20}
    assert found.to_dict()["lost"] == {"spool-overflow": {"records": 20, "times_unknown": 0}}


def test_a_gap_that_was_told_although_some_arrived_counts_what_is_lost(log):
    told = Gap(21, 60, 40, GapReason.OVERFLOW.value)  # 21 to 30 were stored, and the answer was lost
    log.add([gap_record(told, producer="i1", record_id="g", now=NOW)], seal_key(log.ca))
    found = check(log)
    assert found.is_complete
    assert found.lost == {"spool-overflow": 30}


def test_gaps_of_unknown_size_are_counted_apart(log):
    gap = Gap(31, 31, None, GapReason.PROXY_KILLED.value)
    log.add([gap_record(gap, producer="i1", record_id="g", now=NOW)], seal_key(log.ca))
    found = check(log)
    assert found.is_complete
    assert (dict(found.lost), dict(found.lost_unknown)) == ({}, {"proxy-killed": 1})
    assert "1 times an unknown number" in found.sentences()[-1]


@pytest.mark.parametrize(
    "detail",
    [
        {},
        {"from": 5},
        {"from": 5, "to": 6},
        {"from": 0, "to": 9},
        {"from": "1", "to": 9},
        {"from": True, "to": 9},
        {"from": 5, "to": 9, "count": -1},
        {"from": 5, "to": 9, "count": "4"},
    ],
)
def test_what_is_no_gap_explains_nothing(detail):
    right = gap_record(Gap(5, 9, 5, "rate"), producer="i1", record_id="g", now=NOW)
    assert gap_of(right) == Gap(5, 9, 5, "rate")
    assert gap_of(msgspec.structs.replace(right, detail=detail)) is None
    assert gap_of(msgspec.structs.replace(right, operation="read")) is None


# -- right


def test_a_whole_log_is_complete(log):
    found = check(log)
    assert found.is_complete
    assert (found.records, found.seals, found.producers_total) == (62, 7, 3)
    told = found.to_dict()
    assert told["complete"]
    assert told["producers"][0] == {
        "producer": "i1",
        "first": 1,
        "last": 30,
        "records": 30,
        "sealed": 30,
        "signer": AGENT,
        "last_time": "2026-03-01T12:00:00.000000Z",
    }
    assert found.sentences() == ["62 records of 3 producers, 7 seals: complete"]


def test_an_empty_log_is_complete():
    assert check(Log()).is_complete


def test_records_before_the_first_seal_are_counted_apart():
    log = Log()
    log.add([record(seq) for seq in range(1, 6)])
    log.add([record(seq) for seq in range(6, 9)], seal_key(log.ca))
    found = check(log)
    assert found.is_complete
    assert shown(found.never_sealed) == [("i1", 1, 5)]


def test_old_records_that_were_removed_are_not_missing(log):
    drop(log, "i1", *range(1, 15))
    log.seals = [s for s in log.seals if (s.producer, s.first) != ("i1", 1)]
    gone = {"i1": [(1, 9), (10, 14)]}
    found = check(log, pruned=gone)
    assert found.is_complete
    assert shown(found.before) == [("i1", 1, 14)]
    put(log, record(16, "i1", path="/another"))
    assert shown(check(log, pruned=gone).altered) == [("i1", 16, 16)]


def test_what_is_missing_beside_old_records_is_named(log):
    drop(log, "i1", *range(1, 21))
    drop(log, "i2", *range(1, 31))
    found = check(log, pruned={"i1": [(3, 5), (8, 12)], "i2": [(1, 28)]})
    assert shown(found.missing) == [("i1", 1, 2), ("i1", 6, 7), ("i1", 13, 20), ("i2", 29, 30)]
    assert shown(found.before) == [("i1", 3, 5), ("i1", 8, 12), ("i2", 1, 28)]


def test_only_so_much_is_kept_and_all_is_counted():
    ranges = Ranges()
    for number in range(1, 2 * MAX_SHOWN, 1):
        ranges.add(Range("p", 2 * number, 2 * number))
    assert (len(ranges.shown), ranges.total, ranges.records) == (MAX_SHOWN, 1999, 1999)
    ranges = Ranges()
    for number in range(1, 6):
        ranges.add(Range("p", number, number))
    assert shown(ranges) == [("p", 1, 5)]
