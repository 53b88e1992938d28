# SPDX-License-Identifier: Apache-2.0
"""Syslog on a Unix socket: nobody listens, somebody stops, somebody reads nothing."""

import asyncio
import socket
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.exported import item

from everyhop.core.errors import Unavailable
from everyhop.exports import Format, SyslogSettings
from everyhop.exports.formats import renderer
from everyhop.exports.syslog import SyslogSink


class Time:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def path():
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="eh-") as directory:
        yield Path(directory) / "log"


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def sink(path, time):
    settings = SyslogSettings(name="local", format=Format.CEF, socket=path, window=timedelta(seconds=5))
    return SyslogSink(settings, renderer(Format.CEF, origin=None), time)


def listen(path):
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    opened.bind(str(path))
    opened.settimeout(5)
    return opened


async def test_nobody_listens(sink):
    with pytest.raises(Unavailable, match="nobody listens"):
        await sink.send([item(1)])
    assert await sink.settle() == 0
    assert await sink.close() == 0


async def test_a_message_is_a_datagram_and_counts_after_the_window(sink, path, time):
    with listen(path) as listener:
        assert await sink.send([item(1), item(2)]) == 0
        first, second = listener.recv(65536), listener.recv(65536)
        assert first.startswith(b"<86>1 ")
        assert b' index="2"] CEF:0|everyhop|' in second
        time.now = 4.9
        assert await sink.settle() == 0
        time.now = 5.0
        assert await sink.settle() == 2
        assert await sink.close() == 2


async def test_one_that_stops_listening_confirms_nothing(sink, path, time):
    listener = listen(path)
    await sink.send([item(1)])
    listener.close()
    path.unlink()
    with pytest.raises(Unavailable):
        await sink.send([item(2)])
    assert await sink.close() == 0
    with listen(path) as again:
        await sink.send([item(1)])
        assert b' index="1"]' in again.recv(65536)
        await sink.close()


async def test_one_that_reads_nothing_does_not_block_the_loop(sink, path):
    with listen(path):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                for n in range(1, 5000):
                    await sink.send([item(n)])
        assert await sink.close() == 0
