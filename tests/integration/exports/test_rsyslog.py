# SPDX-License-Identifier: Apache-2.0
"""A real rsyslogd over TLS, with the configuration of the guide: down, killed, restarted; nothing is lost."""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import ssl
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from tests.support.exported import item, record
from tests.support.identity import TestEntropy
from tests.support.receiver import free_port, make_pki
from tests.support.rsyslog import Rsyslog, require

from everyhop.control.exporting import Export, Exporter, ExportPorts, state_of
from everyhop.core.errors import Unavailable
from everyhop.exports import Format, SyslogSettings, TlsSettings
from everyhop.exports.formats import renderer
from everyhop.exports.syslog import SyslogSink
from everyhop.storage import open_storage

WINDOW = timedelta(milliseconds=700)


class Clock:
    def now(self):
        return datetime.now(UTC)


@pytest.fixture
def pki(tmp_path):
    return make_pki(tmp_path, "localhost", "127.0.0.1")


@pytest.fixture
def rsyslog(tmp_path, pki):
    require()
    made = Rsyslog(tmp_path, pki, free_port())
    made.start()
    yield made
    made.stop(signal.SIGKILL)


@pytest.fixture
def storage(tmp_path):
    with contextlib.closing(open_storage(tmp_path / "everyhop.db", entropy=TestEntropy())) as opened:
        yield opened


def settings(rsyslog, **changes):
    pki = rsyslog.pki
    values = {
        "name": "siem",
        "format": Format.RECORD,
        "host": "localhost",
        "port": rsyslog.port,
        "tls": TlsSettings(ca=pki.ca, certificate=pki.certificate, key=pki.key),
        "window": WINDOW,
        "batch": 50,
        "timeout": timedelta(seconds=5),
        "longest_pause": timedelta(seconds=1),
    }
    return SyslogSettings(**(values | changes))


def sink(wanted):
    return SyslogSink(wanted, renderer(wanted.format, origin=None), asyncio.get_running_loop().time)


def exporter(storage, wanted, pool):
    ports = ExportPorts(
        lines=storage.log_lines,
        records=storage.records,
        consumers=storage.consumers,
        leases=storage.leases,
        clock=Clock(),
        entropy=TestEntropy(),
        pool=pool,
    )
    return Exporter(Export(settings=wanted, open=lambda: sink(wanted)), ports)


@contextlib.asynccontextmanager
async def running(one):
    task = asyncio.create_task(one.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(holds, seconds=30):
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110  # another process writes the file
            await asyncio.sleep(0.02)


def is_in_trouble(storage):
    progress = storage.consumers.get("export:siem")
    return progress is not None and state_of(progress).error is not None


async def refused(wanted):
    one = sink(wanted)
    try:
        with pytest.raises((Unavailable, ssl.SSLError)) as caught:
            async with asyncio.timeout(10):
                for n in range(1, 100):  # TLS 1.3 tells a client late that its certificate is refused
                    await one.send([item(n)])
                    await asyncio.sleep(0.05)
        assert await one.close() == 0
    finally:
        await one.close()
    return str(caught.value)


async def test_receivers_and_clients_that_are_not_verified(rsyslog, tmp_path):
    pki, other = rsyslog.pki, make_pki(tmp_path, "localhost", label="other")
    ours = {"certificate": pki.certificate, "key": pki.key}
    assert "certificate" in await refused(settings(rsyslog, tls=TlsSettings(ca=other.ca, **ours)))
    assert "certificate" in await refused(
        settings(rsyslog, tls=TlsSettings(ca=pki.ca, server_name="siem.example", **ours))
    )
    assert await refused(settings(rsyslog, tls=TlsSettings(ca=pki.ca)))  # without a certificate of ours
    strange = TlsSettings(ca=pki.ca, certificate=other.certificate, key=other.key)
    assert await refused(settings(rsyslog, tls=strange))
    assert rsyslog.indexes() == []


async def test_whole_messages_and_cut_ones_arrive(rsyslog):
    one = sink(settings(rsyslog, max_bytes=1024))
    long = item(2, path="/" + "é" * 2000)
    await one.send([item(1), long])
    await until(lambda: len(rsyslog.indexes()) == 2)
    assert await one.settle() == 0  # not yet: the window
    await asyncio.sleep(WINDOW.total_seconds())
    assert await one.settle() == 2
    assert await one.close() == 2
    first, second = rsyslog.output.read_bytes().splitlines()
    assert json.loads(first.partition(b"] ")[2]) == json.loads(item(1).line)
    assert f'sha256="{hashlib.sha256(long.line).hexdigest()}" length="{len(long.line)}"'.encode() in second
    assert long.line.startswith(second.partition(b"] ")[2].lstrip())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_down_for_a_while_and_nothing_is_lost(rsyslog, storage, number):
    with ThreadPoolExecutor(2) as pool:
        async with running(exporter(storage, settings(rsyslog), pool)):
            storage.records.append([record(n) for n in range(1, 301)])
            await until(lambda: len(rsyslog.indexes()) >= 100)
            rsyslog.stop(number)
            storage.records.append([record(n) for n in range(301, 601)])
            await until(lambda: is_in_trouble(storage))
            assert storage.consumers.position("export:siem") < 600
            rsyslog.start()
            storage.records.append([record(n) for n in range(601, 701)])
            await until(lambda: storage.consumers.position("export:siem") == 700)
    seen = rsyslog.indexes()
    assert set(seen) == set(range(1, 701))
    assert len(seen) <= 700 + 350  # what is sent again is at most what was not confirmed


async def test_a_socket_on_the_same_machine_that_is_restarted(short_path, storage):
    require()
    rsyslog = Rsyslog.on_socket(short_path)
    rsyslog.start()
    wanted = SyslogSettings(
        name="siem",
        format=Format.RECORD,
        socket=rsyslog.socket,
        window=WINDOW,
        longest_pause=timedelta(seconds=1),
    )
    try:
        with ThreadPoolExecutor(2) as pool:
            async with running(exporter(storage, wanted, pool)):
                storage.records.append([record(n) for n in range(1, 101)])
                await until(lambda: storage.consumers.position("export:siem") == 100)
                rsyslog.stop()
                storage.records.append([record(n) for n in range(101, 151)])
                await until(lambda: is_in_trouble(storage))
                rsyslog.start()
                await until(lambda: storage.consumers.position("export:siem") == 150)
    finally:
        rsyslog.stop(signal.SIGKILL)
    assert set(rsyslog.indexes()) == set(range(1, 151))


async def test_a_receiver_that_reads_nothing_confirms_nothing(rsyslog, storage):
    with ThreadPoolExecutor(2) as pool:
        async with running(exporter(storage, settings(rsyslog, timeout=timedelta(seconds=2)), pool)):
            storage.records.append([record(1)])
            await until(lambda: storage.consumers.position("export:siem") == 1)
            os.kill(rsyslog.process.pid, signal.SIGSTOP)
            try:
                last = 1
                # More than the buffers of two kernels hold.
                for _ in range(12):
                    batch = [record(n, path="/" + "x" * 8000) for n in range(last + 1, last + 151)]
                    storage.records.append(batch)
                    last += 150
                await until(lambda: is_in_trouble(storage))
                assert storage.consumers.position("export:siem") < last
            finally:
                os.kill(rsyslog.process.pid, signal.SIGCONT)
            await until(lambda: storage.consumers.position("export:siem") == last, 60)
    assert set(rsyslog.indexes()) == set(range(1, last + 1))
