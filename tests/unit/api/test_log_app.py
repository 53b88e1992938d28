# SPDX-License-Identifier: Apache-2.0
"""The log behind the face: proofs for everybody, records for readers, and who reads is on record first."""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest
from tests.support.sealed_log import SealedLog

from everyhop.api.http import http_server, make_app, serve_until_stopped
from everyhop.api.log_app import MAX_WAITING, LogDoor
from everyhop.auditlog import Kind, RecordFilter
from everyhop.auditlog.verifying import verify_log
from everyhop.core.errors import Unavailable
from everyhop.policy import parse_policy
from everyhop.providers.log_sources import TileSource, UrlFiles
from everyhop.tlog import Tile, open_checkpoint, read_bundle
from everyhop.wire.sockets import UnixListener

POLICY = parse_policy(
    {
        "p": b"version: 1\ntrust_domain: shop.example\nservices: {siem: {}, orders: {}}\naudit: {readers: [siem]}\n"
    }
)
SIEM = "spiffe://shop.example/service/siem"


def certificate(spiffe_id):
    value = f"By=spiffe://shop.example/everyhop/server;Hash={'ab' * 32};URI={spiffe_id}"
    return {"x-forwarded-client-cert": value}


@pytest.fixture
def log(tmp_path):
    tmp_path.chmod(0o700)
    made = SealedLog(tmp_path)
    made.append(600)
    made.sign()
    made.append(3)
    yield made
    made.close()


def door_of(log, pool, **more):
    ports = {"records": log.storage.records, "snapshot": lambda: POLICY, "clock": log.clock} | more
    return LogDoor(log.storage.log_tree, log.signer, pool=pool, **ports)


def get(log, *asked, **more):
    """Ask for (path, headers) one after the other, over one door."""

    async def talk():
        with ThreadPoolExecutor(2) as pool:
            app = make_app(door_of(log, pool, **more).routes())
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://face") as client:
                return [await client.get(path, headers=headers) for path, headers in asked]

    return asyncio.run(talk())


def reads(log):
    page = log.storage.records.query(RecordFilter(kind=Kind.LOG))
    return [(r.operation, r.caller, r.decision) for r in page.records[::-1]]


def test_records_are_shown_to_readers_alone(log):
    path = "/log/tile/entries/000"
    nobody, stranger, other, forged, two = get(
        log,
        (path, {}),
        (path, certificate("spiffe://shop.example/service/unknown")),
        (path, certificate("spiffe://shop.example/service/orders")),
        (path, {"x-forwarded-client-cert": f"URI={SIEM}"}),
        (path, {"x-forwarded-client-cert": f"{certificate(SIEM)['x-forwarded-client-cert']},URI=x"}),
    )
    assert nobody.status_code == 401
    assert [stranger.status_code, other.status_code] == [403, 403]
    assert [forged.status_code, two.status_code] == [401, 401]
    assert b"agent-" not in b"".join(a.content for a in (nobody, stranger, other, forged, two))
    assert reads(log) == [("read", "spiffe://shop.example/service/orders", "deny")]


def test_nothing_is_shown_that_cannot_be_recorded(log):
    class Broken:
        def note(self, event):
            raise Unavailable("the disk is full")

    (answer,) = get(log, ("/log/tile/entries/000", certificate(SIEM)), records=Broken())
    assert answer.status_code == 503
    assert b"agent-" not in answer.content


@pytest.mark.parametrize(
    "path",
    [
        "/log/tile/0/002.p/89",  # wider than what was signed for
        "/log/tile/0/002",
        "/log/tile/0/003.p/1",
        "/log/tile/1/000.p/3",
        "/log/tile/2/000.p/1",
        "/log/tile/0/0",
        "/log/tile/0/x000/000",
        "/log/tile/9/000",
        "/log/tile/entries/002.p/89",
        "/log/tile/",
        "/log/tile/8/0/000",
        "/log/",
        "/log/tile/0/" + "x999/" * 6 + "999",
    ],
)
def test_what_was_not_signed_for_is_not_there(log, path):
    (answer,) = get(log, (path, certificate(SIEM)))
    assert answer.status_code == 404


def test_records_that_are_gone_by_age_or_otherwise(log):
    log.storage.records.prune(now=log.clock.now(), keep_rows=300)
    log.execute("DELETE FROM records WHERE n = 300")
    aged, missing = get(
        log, ("/log/tile/entries/000", certificate(SIEM)), ("/log/tile/entries/001", certificate(SIEM))
    )
    assert (aged.status_code, missing.status_code) == (404, 503)


def test_too_many_at_once_are_told_to_come_back(log):
    async def flood():
        with ThreadPoolExecutor(1) as pool:
            app = make_app(door_of(log, pool).routes())
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://face") as client:
                asked = [client.get("/log/tile/0/000") for _ in range(MAX_WAITING + 40)]
                return [answer.status_code for answer in await asyncio.gather(*asked)]

    statuses = asyncio.run(flood())
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= MAX_WAITING


def test_before_the_first_signature_there_is_nothing(tmp_path):
    tmp_path.chmod(0o700)
    empty = SealedLog(tmp_path)
    checkpoint, tile, vkey = get(
        empty, ("/log/checkpoint", {}), ("/log/tile/0/000.p/1", {}), ("/log/vkey", {})
    )
    assert (checkpoint.status_code, tile.status_code, vkey.status_code) == (404, 404, 200)
    empty.close()


def test_proofs_are_for_everybody_with_their_types_and_caching(log):
    checkpoint, vkey, full, part, upper = get(
        log,
        ("/log/checkpoint", {}),
        ("/log/vkey", {}),
        ("/log/tile/0/000", {}),
        ("/log/tile/0/002.p/80", {}),
        ("/log/tile/1/000.p/2", {}),
    )
    assert open_checkpoint(checkpoint.content, log.signer.verifiers).checkpoint.size == 600
    assert checkpoint.headers["content-type"] == "text/plain; charset=utf-8"
    assert checkpoint.headers["cache-control"] == "public, max-age=1"
    assert vkey.text == f"{log.signer.verifiers[0]}\n"
    assert [len(a.content) for a in (full, part, upper)] == [8192, 80 * 32, 64]
    for answer in (full, part, upper):
        assert answer.headers["content-type"] == "application/octet-stream"
        assert "immutable" in answer.headers["cache-control"]


def test_reading_is_recorded_once_a_minute_for_each_reader(log):
    path = "/log/tile/entries/002.p/88"
    first, second = get(log, (path, certificate(SIEM)), ("/log/tile/entries/000", certificate(SIEM)))
    assert (first.status_code, second.status_code) == (200, 200)
    assert len(read_bundle(Tile(None, 2, 88), first.content)) == 88
    assert first.headers["cache-control"].startswith("private")
    assert reads(log) == [("read", SIEM, "allow")]

    class Later:
        times = 0

        def now(self):
            self.times += 1
            return log.clock.now() + timedelta(seconds=61) * self.times

    get(log, (path, certificate(SIEM)), (path, certificate(SIEM)), clock=Later())
    assert len(reads(log)) == 3


def test_a_whole_log_is_verified_at_its_url(log, tmp_path):
    @contextlib.asynccontextmanager
    async def serving(app):
        with contextlib.closing(UnixListener.bind(tmp_path / "s", mode=0o600)) as listener:
            server = http_server(app)
            task = asyncio.ensure_future(serve_until_stopped(server, listener.sock))
            try:
                yield
            finally:
                server.stop()
                await task

    def look():
        # The prefix of the routes, as a proxy in front of the socket would have it.
        files = UrlFiles(f"unix:{tmp_path / 's'}")
        read = files.read
        files.read = lambda path, *, max_bytes: read(f"log/{path}", max_bytes=max_bytes)
        with contextlib.closing(files):
            return verify_log(TileSource(files), trusted=log.signer.verifiers)

    async def run(headers):
        with ThreadPoolExecutor(2) as pool:
            inner = make_app(door_of(log, pool).routes())

            async def face(scope, receive, send):
                if scope["type"] == "http":
                    scope["headers"] += [(k.encode(), v.encode()) for k, v in headers.items()]
                await inner(scope, receive, send)

            async with serving(face):
                return await asyncio.get_running_loop().run_in_executor(pool, look)

    good = asyncio.run(run(certificate(SIEM)))
    assert (good.outcome, good.size) == ("intact", 600)
    (tmp_path / "s").unlink(missing_ok=True)
    with pytest.raises(Unavailable, match="not shown"):
        asyncio.run(run({}))
