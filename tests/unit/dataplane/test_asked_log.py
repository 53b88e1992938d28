# SPDX-License-Identifier: Apache-2.0
"""Decisions for foreign proxies on disk: written before they are told, and forwarded like a sidecar's."""

import os
from datetime import UTC, datetime

import pytest

from everyhop.auditlog.model import Kind
from everyhop.core.errors import Unavailable
from everyhop.dataplane.asked_log import ASKED, AskedLine, AskedLog
from everyhop.dataplane.log_lines import UNREADABLE, record_of
from everyhop.dataplane.spool import LOG, Delivery, SpoolReader

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def line(number=1, **more):
    values = {"kind": ASKED, "id": f"d{number}", "time": NOW, "form": "nginx", "uid": 33, "allowed": False}
    return AskedLine(**{**values, "reason": "no-rule", "status": 403, "ms": 0.5, **more})


async def forwarded(reader):
    batches = []

    async def send(records, previous):
        batches.extend(records)
        return Delivery(held=records[-1].seq)

    await reader.forward(send)
    return batches


def test_a_disk_that_refuses_is_told(tmp_path):
    log = AskedLog(tmp_path / "spool")
    (tmp_path / "spool" / LOG).mkdir()
    with pytest.raises(Unavailable):
        log.write(line())


def test_a_link_in_place_of_the_log_is_not_followed(tmp_path):
    log = AskedLog(tmp_path / "spool")
    (tmp_path / "spool" / LOG).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unavailable):
        log.write(line())
    assert not (tmp_path / "elsewhere").exists()


def test_a_line_that_was_cut_off_is_told(tmp_path, monkeypatch):
    log = AskedLog(tmp_path / "spool")
    monkeypatch.setattr(os, "write", lambda descriptor, data: 3)
    with pytest.raises(Unavailable):
        log.write(line())


@pytest.mark.parametrize(
    "raw",
    [
        b'{"kind":"asked","time":"2026-01-02T03:04:05Z"}',
        b'{"kind":"asked","time":"2026-01-02T03:04:05Z","id":"","form":"nginx","uid":1,"allowed":1}',
    ],
)
def test_a_line_that_is_none_is_a_record_all_the_same(raw):
    record = record_of(raw, instance="authorizer-0", seq=1)
    assert record.reason == UNREADABLE


async def test_lines_become_records_in_order_and_once(tmp_path):
    log = AskedLog(tmp_path / "spool")
    reader = SpoolReader(tmp_path / "spool", instance="authorizer-0-ab")
    log.write(line(1, caller="spiffe://shop.example/service/storefront", user="alice", why="because"))
    log.write(line(2, allowed=True, status=200, path="/x" * 5000, method="M" * 200))
    first, second = await forwarded(reader)
    assert (first.id, first.seq, first.producer, first.kind) == ("d1", 1, "authorizer-0-ab", Kind.DECISION)
    assert (first.decision, first.reason, first.status) == ("deny", "no-rule", 403)
    assert first.detail == {"form": "nginx", "uid": 33, "user": "alice", "why": "because"}
    assert (second.id, second.seq, second.decision) == ("d2", 2, "allow")
    assert len(second.path) == 8192
    log.write(line(3))
    assert [record.seq for record in await forwarded(reader)] == [3]


async def test_a_long_log_is_put_aside_and_nothing_is_lost(tmp_path):
    log = AskedLog(tmp_path / "spool")
    reader = SpoolReader(
        tmp_path / "spool", instance="authorizer-0", reopen=lambda: None, max_file_bytes=1000
    )
    found = []
    for number in range(1, 41):
        log.write(line(number))
        found += await forwarded(reader)
    assert [record.seq for record in found] == list(range(1, 41))
    assert sum(file.stat().st_size for file in (tmp_path / "spool").glob(f"{LOG}*")) < 4000


def test_only_its_user_reads_the_log(tmp_path):
    log = AskedLog(tmp_path / "spool")
    log.write(line())
    assert (tmp_path / "spool" / LOG).stat().st_mode & 0o077 == 0
    log.close()
