# SPDX-License-Identifier: Apache-2.0
"""A syslog receiver over TLS that closes in the middle of a message, by reset or in order: every record arrives whole."""

import asyncio
import contextlib
import re
import ssl
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from tests.support.exported import record
from tests.support.identity import TestEntropy
from tests.support.receiver import make_pki

from everyhop.control.exporting import Export, Exporter, ExportPorts
from everyhop.exports import Format, SyslogSettings, TlsSettings
from everyhop.exports.formats import renderer
from everyhop.exports.syslog import SyslogSink
from everyhop.storage import open_storage

TOTAL = 300


class Clock:
    def now(self):
        return datetime.now(UTC)


class Receiver:
    """Takes whole frames, and breaks its first connections after so many bytes."""

    def __init__(self, budgets, how):
        self.messages = []
        self.cut = 0
        self._budgets = list(budgets)
        self._how = how

    async def serve(self, reader, writer):
        budget = self._budgets.pop(0) if self._budgets else None
        buffer = b""
        try:
            while chunk := await reader.read(777):
                if budget is not None:
                    budget -= len(chunk)
                    if budget < 0:
                        self.cut += 1
                        break
                buffer = self._take(buffer + chunk)
        except (ConnectionError, ssl.SSLError):
            pass
        if self._how == "reset":
            writer.transport.abort()
        else:
            writer.close()

    def _take(self, buffer):
        while match := re.match(rb"(\d+) ", buffer):
            end = match.end() + int(match[1])
            if len(buffer) < end:
                break
            self.messages.append(buffer[match.end() : end])
            buffer = buffer[end:]
        return buffer


@pytest.mark.parametrize("how", ["reset", "in order"])
async def test_a_receiver_that_closes_in_the_middle(tmp_path, how):
    pki = make_pki(tmp_path, "localhost")
    receiver = Receiver([0, 1, 5_000, 20_001, 40_000], how)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=pki.context())
    settings = SyslogSettings(
        name="siem",
        format=Format.RECORD,
        host="localhost",
        port=server.sockets[0].getsockname()[1],
        tls=TlsSettings(ca=pki.ca),
        window=timedelta(milliseconds=400),
        batch=40,
    )

    async def sleep(seconds):
        await asyncio.sleep(min(seconds, 0.1))

    def open_sink():
        render = renderer(Format.RECORD, origin=None)
        return SyslogSink(settings, render, asyncio.get_running_loop().time)

    with (
        ThreadPoolExecutor(2) as pool,
        contextlib.closing(open_storage(tmp_path / "everyhop.db", entropy=TestEntropy())) as storage,
    ):
        storage.records.append([record(n) for n in range(1, TOTAL + 1)])
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
        task = asyncio.create_task(Exporter(Export(settings=settings, open=open_sink), ports).run())
        async with asyncio.timeout(60):
            while storage.consumers.position("export:siem") < TOTAL:  # noqa: ASYNC110  # no event tells it
                await asyncio.sleep(0.02)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        stored = dict(storage.log_lines.read(0, limit=TOTAL, max_bytes=10**9))
    server.close()
    await server.wait_closed()
    assert receiver.cut >= 3
    seen = {}
    for message in receiver.messages:
        match = re.search(rb' index="(\d+)"\] (.*)', message, re.DOTALL)
        assert match[2] == stored[int(match[1])]  # whole, to the byte
        seen[int(match[1])] = True
    assert set(seen) == set(range(1, TOTAL + 1))
