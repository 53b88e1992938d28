# SPDX-License-Identifier: Apache-2.0
"""An Envoy that was killed may have taken lines with it: its log says so, once."""

import pytest
from tests.support.identity import NOW

from everyhop.auditlog.gaps import gap_of
from everyhop.control.spool_ends import close_spool, mark_ended, note_killed
from everyhop.dataplane.log_lines import record_of


@pytest.fixture
def spool(tmp_path):
    directory = tmp_path / "i1"
    directory.mkdir()
    (directory / "access.log").write_bytes(b"{}\n")
    return directory


def gaps(spool):
    lines = (spool / "access.log").read_bytes().splitlines()
    found = [gap_of(record_of(line, instance="i1", seq=n)) for n, line in enumerate(lines, 1)]
    return [(gap.reason, gap.count) for gap in found if gap is not None]


def test_an_envoy_that_was_killed_leaves_a_gap_of_unknown_size(spool):
    note_killed(spool, now=NOW)
    assert gaps(spool) == [("proxy-killed", None)]


def test_a_launch_that_is_gone_without_a_word_leaves_one_gap(spool):
    assert [close_spool(spool, now=NOW) for _ in range(3)] == [False, True, True]
    assert gaps(spool) == [("proxy-killed", None)]


def test_the_gap_stands_in_the_file_that_is_written_now(spool):
    (spool / "access.log").rename(spool / "access.log.1")
    close_spool(spool, now=NOW)
    assert gaps(spool) == [("proxy-killed", None)]


def test_an_envoy_that_ended_in_order_leaves_none(spool):
    mark_ended(spool)
    assert close_spool(spool, now=NOW)
    assert gaps(spool) == []


def test_one_that_never_wrote_has_lost_nothing(tmp_path):
    empty = tmp_path / "i2"
    empty.mkdir()
    close_spool(empty, now=NOW)
    assert not (empty / "access.log").exists()
    assert close_spool(tmp_path / "gone", now=NOW)
    mark_ended(tmp_path / "gone")


def test_those_who_write_before_they_answer_lose_nothing(tmp_path):
    spool = tmp_path / "authorizer-0-ab"
    spool.mkdir()
    (spool / "access.log").write_bytes(b"{}\n")
    assert close_spool(spool, now=NOW)
    assert gaps(spool) == []


def test_a_disk_that_refuses_is_logged_and_stops_nobody(spool, caplog):
    (spool / "access.log").unlink()
    (spool / "access.log").mkdir()
    note_killed(spool, now=NOW)
    assert "cannot be noted" in caplog.text
