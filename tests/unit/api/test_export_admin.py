# SPDX-License-Identifier: Apache-2.0
"""The owner's door to exports: no line leaves unrecorded."""

import json

import httpx
import pytest
from tests.support.control_plane import ControlUnderTest, RealEntropy
from tests.support.exported import record

from everyhop.api.export_admin import export_routes
from everyhop.api.http import make_app
from everyhop.auditlog import Kind, RecordFilter
from everyhop.control.exporting import ExportPorts, Exports


@pytest.fixture
def world(tmp_path):
    made = ControlUnderTest(tmp_path)
    storage = made.storage
    ports = ExportPorts(
        lines=storage.log_lines,
        records=storage.records,
        consumers=storage.consumers,
        leases=storage.leases,
        clock=made.clock,
        entropy=RealEntropy(),
        pool=made.pool,
    )
    made.control.exports = Exports([], ports, holder="a", origin="shop.example/log/1")
    storage.records.append([record(n) for n in range(1, 4)])
    made.app = make_app(export_routes(made.control))
    yield made
    made.close()


async def ask(world, method, path, **more):
    transport = httpx.ASGITransport(world.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.request(method, path, **more)


BEGIN = {"to": "file x", "format": "record"}


@pytest.mark.parametrize("query", ["", "?export=", "?export=nothing", "?after=1"])
async def test_no_line_without_a_record_of_it(world, query):
    assert (await ask(world, "GET", f"/v1/log/lines{query}")).status_code == 403
    assert world.storage.records.query(RecordFilter(kind=Kind.LOG)).records == ()


@pytest.mark.parametrize("after", ["-1", "x", "1e3", "9" * 40])
async def test_places_that_are_none(world, after):
    begun = (await ask(world, "POST", "/v1/exports", json=BEGIN)).json()
    answer = await ask(world, "GET", f"/v1/log/lines?export={begun['record']}&after={after}")
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "message", [{}, {"to": "x"}, BEGIN | {"more": 1}, BEGIN | {"after": -1}, BEGIN | {"to": "x" * 2000}]
)
async def test_what_is_no_export(world, message):
    assert (await ask(world, "POST", "/v1/exports", json=message)).status_code == 400


async def test_a_server_that_is_not_ready(world):
    world.control.exports = None
    assert (await ask(world, "GET", "/v1/exports")).status_code == 503


async def test_an_export_by_hand(world):
    begun = (await ask(world, "POST", "/v1/exports", json=BEGIN | {"since": "2026-01-01T00:00:00Z"})).json()
    assert begun["origin"] == "shop.example/log/1"
    (noted,) = world.storage.records.query(RecordFilter(kind=Kind.LOG)).records
    assert (noted.id, noted.operation, noted.reason) == (begun["record"], "export", "by-hand")
    assert noted.detail["to"] == "file x"
    page = (await ask(world, "GET", f"/v1/log/lines?export={begun['record']}&after=1")).json()
    assert [n for n, _ in page["lines"]] == list(range(2, page["head"] + 1))
    assert begun["head"] == page["head"] == world.storage.log_lines.head()
    assert json.loads(page["lines"][-1][1])["id"] == begun["record"]


async def test_resuming_what_is_not_there(world):
    assert (await ask(world, "POST", "/v1/exports/hook/resume")).status_code == 404
