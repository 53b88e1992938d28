# SPDX-License-Identifier: Apache-2.0
"""A webhook and a collector that are down, slow, full and wrong in turn: all arrives in order, at least once."""

import asyncio
import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from tests.support.exported import record
from tests.support.identity import TestEntropy
from tests.support.receiver import Receiver, Reply

from everyhop.control.exporting import Export, Exporter, ExportPorts, state_of
from everyhop.core.secret import Secret
from everyhop.exports import Format, OtlpSettings, WebhookSettings
from everyhop.exports.formats import renderer
from everyhop.exports.otlp import OtlpSink
from everyhop.exports.webhook import WebhookSink
from everyhop.storage import open_storage

TOTAL = 60


class Clock:
    def now(self):
        return datetime.now(UTC)


def trouble(hold):
    """Return everything that a receiver can do wrong, and between it answers that are right."""
    return [
        Reply(500),
        Reply(429, {"retry-after": "1"}),
        Reply(),
        Reply(raw=b""),
        Reply(raw=b"\x00garbage"),
        Reply(),
        Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"),
        Reply(302, {"location": "http://127.0.0.1:1/"}),
        Reply(hold=hold),
        Reply(),
        Reply(400),
        Reply(413),
        Reply(503),
    ]


@pytest.fixture
def storage(tmp_path):
    with contextlib.closing(open_storage(tmp_path / "everyhop.db", entropy=TestEntropy())) as opened:
        yield opened


def webhook(receiver, common):
    settings = WebhookSettings(
        **common, url=f"http://127.0.0.1:{receiver.port}/", secrets=(lambda: Secret(b"whsec_" + b"A" * 40),)
    )
    return Export(
        settings=settings, open=lambda: WebhookSink(settings, renderer(Format.RECORD, origin=None), Clock())
    )


def collector(receiver, common):
    settings = OtlpSettings(**common, url=f"http://127.0.0.1:{receiver.port}/v1/logs")
    return Export(settings=settings, open=lambda: OtlpSink(settings, Clock()))


def indexes_of(body):
    told = json.loads(body)
    if "resourceLogs" in told:
        records = told["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
        return [
            int(a["value"]["intValue"])
            for r in records
            for a in r["attributes"]
            if a["key"] == "everyhop.index"
        ]
    return [one["index"] for one in told["data"]["records"]]


@pytest.mark.parametrize("make", [webhook, collector])
async def test_all_arrives_in_order(storage, make):
    hold, pauses = threading.Event(), []

    async def sleep(seconds):
        pauses.append(seconds)
        await asyncio.sleep(0.01)

    common = {
        "name": "siem",
        "format": Format.RECORD,
        "batch": 8,
        "timeout": timedelta(seconds=1),
        "longest_pause": timedelta(minutes=5),
    }
    with Receiver() as receiver, ThreadPoolExecutor(2) as pool:
        receiver.replies = trouble(hold)
        ports = ExportPorts(
            lines=storage.log_lines,
            records=storage.records,
            consumers=storage.consumers,
            leases=storage.leases,
            clock=Clock(),
            entropy=TestEntropy(),
            pool=pool,
            sleep=sleep,
        )
        storage.records.append([record(n) for n in range(1, TOTAL + 1)])
        positions = []
        task = asyncio.create_task(Exporter(make(receiver, common), ports).run())
        async with asyncio.timeout(60):
            while not positions or positions[-1] < TOTAL:
                positions.append(storage.consumers.position("export:siem"))
                await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        hold.set()
        assert receiver.replies == []
    assert positions == sorted(positions)
    seen = [n for got in receiver.got for n in indexes_of(got.body)]
    assert set(seen) == set(range(1, TOTAL + 1))
    first = list(dict.fromkeys(seen))
    assert first == sorted(first)
    assert state_of(storage.consumers.get("export:siem")).error is None
    assert max(pauses) <= 300
    assert min(p for p in pauses if p != 0.25) >= 0.25
