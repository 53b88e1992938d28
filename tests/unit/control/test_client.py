# SPDX-License-Identifier: Apache-2.0
"""The agent's client of the server against servers that close idle connections."""

import asyncio

import pytest

from everyhop.api.http import KEEP_ALIVE_SECONDS
from everyhop.control import client as client_module
from everyhop.control.client import IDLE_SECONDS, ControlClient
from everyhop.control.messages import AgentReport

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


def test_a_connection_is_given_up_long_before_the_server_closes_it():
    assert 5 * IDLE_SECONDS <= KEEP_ALIVE_SECONDS


@pytest.mark.parametrize(("idle", "connections"), [(0.05, 2), (30.0, 1)])
async def test_an_idle_connection_is_not_used_again_after_its_time(tmp_path, monkeypatch, idle, connections):
    monkeypatch.setattr(client_module, "IDLE_SECONDS", idle)
    seen = []

    async def serve(reader, writer):
        seen.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                )
                await reader.readexactly(length)
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    socket = tmp_path / "s"
    async with await asyncio.start_unix_server(serve, str(socket)), ControlClient(socket, "a") as client:
        await client.report(AgentReport(agent="a", snapshot=None, bundle_sequence=1))
        await asyncio.sleep(0.2)
        await client.report(AgentReport(agent="a", snapshot=None, bundle_sequence=2))
    assert len(seen) == connections
