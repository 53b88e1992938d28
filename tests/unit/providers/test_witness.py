# SPDX-License-Identifier: Apache-2.0
"""The witness and those who ask it: over HTTP on a real socket, at the same time, and with one that lies."""

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256

import httpx
import pytest
from tests.support.identity import NOW, FakeClock
from tests.support.sealed_log import SealedLog

from everyhop.api.http import http_server, serve_until_stopped
from everyhop.api.witness_app import witness_app
from everyhop.auditlog.witnessing import WitnessDialogue
from everyhop.core.errors import Conflict, InputError, NotFound, SettingsError, Unavailable
from everyhop.core.secret import Secret
from everyhop.providers.checkpoint_shippers import (
    CosignatureBook,
    FileShipper,
    WebhookShipper,
    WitnessShipper,
    post,
)
from everyhop.providers.witness_state import FileWitness
from everyhop.tlog import (
    AddCheckpoint,
    Checkpoint,
    RefusedError,
    SignerKey,
    Status,
    open_checkpoint,
    parse_checkpoint,
    parse_note,
    parse_signatures,
    sign_note,
)
from everyhop.wire.sockets import UnixListener

NAME = "witness.example/w1"


@pytest.fixture
def log(tmp_path):
    root = tmp_path / "log"
    root.mkdir(mode=0o700)
    made = SealedLog(root)
    made.append(300)
    made.sign()
    yield made
    made.close()


@pytest.fixture
def place(tmp_path):
    directory = tmp_path / "witness"
    directory.mkdir(mode=0o700)
    FileWitness.create_key(directory, NAME)
    return directory


def open_witness(place, log):
    return FileWitness(place, {log.signer.origin: log.signer.verifiers}, FakeClock(NOW))


def newest(log):
    return log.storage.log_tree.latest_checkpoint(log.signer.origin)


def ask(log, dialogue):
    return dialogue.request(log.storage.log_tree, newest(log))


def status_of(call, body):
    with pytest.raises(RefusedError) as refused:
        call(body)
    return refused.value.status


@contextlib.asynccontextmanager
async def serving(app, path):
    with contextlib.closing(UnixListener.bind(path, mode=0o600)) as listener:
        server = http_server(app)
        task = asyncio.ensure_future(serve_until_stopped(server, listener.sock))
        try:
            yield f"unix:{path}"
        finally:
            server.stop()
            await task


def test_a_witness_does_not_go_back_after_a_restart(log, place):
    dialogue = WitnessDialogue(open_witness(place, log).key)
    early = ask(log, dialogue)
    open_witness(place, log).add_checkpoint(early)
    log.append(10)
    log.sign()
    dialogue.size = 300
    open_witness(place, log).add_checkpoint(ask(log, dialogue))
    again = open_witness(place, log)
    assert status_of(again.add_checkpoint, early) is Status.CONFLICT
    dialogue.size = 0
    assert status_of(again.add_checkpoint, ask(log, dialogue)) is Status.CONFLICT


def test_a_rewritten_log_is_not_cosigned(log, place):
    witness = open_witness(place, log)
    dialogue = WitnessDialogue(witness.key)
    witness.add_checkpoint(ask(log, dialogue))
    root = bytes(32)
    forged = Checkpoint(origin=log.signer.origin, size=300, root=root)
    note = sign_note(forged.text, log.signer._keys)
    body = AddCheckpoint(old=300, proof=(), checkpoint=forged, note=note).encode()
    with pytest.raises(RefusedError) as refused:
        witness.add_checkpoint(body)
    assert (refused.value.status, refused.value.evidence) == (Status.UNPROCESSABLE, True)


def test_a_log_that_is_not_known_and_a_key_that_is_not(log, place):
    body = ask(log, WitnessDialogue(open_witness(place, log).key))
    assert status_of(FileWitness(place, {}, FakeClock(NOW)).add_checkpoint, body) is Status.NOT_FOUND
    other = {log.signer.origin: [SignerKey(log.signer.origin, Secret(b"o" * 32)).verifier]}
    assert status_of(FileWitness(place, other, FakeClock(NOW)).add_checkpoint, body) is Status.FORBIDDEN


def test_a_memory_that_was_changed_is_not_trusted(log, place):
    witness = open_witness(place, log)
    witness.add_checkpoint(ask(log, WitnessDialogue(witness.key)))
    (file,) = place.glob("*.checkpoint")
    for content in ("x", newest(log).note):
        file.write_text(content)
        with pytest.raises(SettingsError, match="is not what this witness cosigned last"):
            witness.add_checkpoint(ask(log, WitnessDialogue(witness.key)))


def test_a_key_file_that_is_none(log, place):
    (place / "key").write_bytes(b"x\n")
    with pytest.raises(SettingsError, match="no key of a witness"):
        open_witness(place, log)
    (place / "key").unlink()
    with pytest.raises(SettingsError):
        open_witness(place, log)
    with pytest.raises(InputError):
        FileWitness.create_key(place, "a name")


def test_of_requests_at_the_same_time_one_is_cosigned(log, place):
    witnesses = [open_witness(place, log) for _ in range(8)]
    body = ask(log, WitnessDialogue(witnesses[0].key))
    start, outcomes = threading.Barrier(8), []

    def run(witness):
        start.wait()
        try:
            outcomes.append(witness.add_checkpoint(body))
        except RefusedError as refused:
            outcomes.append(refused.status)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, witnesses))
    assert sorted(type(outcome) is str for outcome in outcomes) == [False] * 7 + [True]
    assert outcomes.count(Status.CONFLICT) == 7


def test_what_was_cosigned_last_is_shown(log, place):
    witness = open_witness(place, log)
    digest = sha256(log.signer.origin.encode()).hexdigest()
    for name in (digest, "0" * 64, "../key", "key"):
        with pytest.raises(NotFound):
            witness.checkpoint(name)
    line = witness.add_checkpoint(ask(log, WitnessDialogue(witness.key)))
    shown = witness.checkpoint(digest)
    assert shown.decode().endswith(line)
    open_checkpoint(shown, log.signer.verifiers)
    parse_note(shown).signed_by([witness.key])


def test_over_http_every_status_is_that_of_the_protocol(log, place, tmp_path):
    witness = open_witness(place, log)
    body = ask(log, WitnessDialogue(witness.key))
    digest = sha256(log.signer.origin.encode()).hexdigest()

    async def talk():
        with ThreadPoolExecutor(2) as pool:
            transport = httpx.ASGITransport(witness_app(witness, pool))
            async with httpx.AsyncClient(transport=transport, base_url="http://w") as client:
                nothing = await client.get(f"/{digest}/checkpoint")
                bad = await client.post("/add-checkpoint", content=b"old x\n\n")
                large = await client.post("/add-checkpoint", content=b"x" * 600_000)
                method = await client.get("/add-checkpoint")
                good = await client.post("/add-checkpoint", content=body)
                stale = await client.post("/add-checkpoint", content=body)
                shown = await client.get(f"/{digest}/checkpoint")
        return nothing, bad, large, method, good, stale, shown

    nothing, bad, large, method, good, stale, shown = asyncio.run(talk())
    assert [a.status_code for a in (nothing, bad, large, method)] == [404, 400, 400, 405]
    assert good.status_code == 200
    assert parse_signatures(good.text)[0].name == NAME
    assert (stale.status_code, stale.text) == (409, "300\n")
    assert stale.headers["content-type"].startswith("text/x.tlog.size")
    assert shown.text.endswith(good.text)


def test_a_witness_whose_disk_is_full_cosigns_nothing(log, place):
    class Full:
        def add_checkpoint(self, body):
            raise SettingsError("cannot write")

    async def talk():
        with ThreadPoolExecutor(1) as pool:
            transport = httpx.ASGITransport(witness_app(Full(), pool))
            async with httpx.AsyncClient(transport=transport, base_url="http://w") as client:
                return await client.post("/add-checkpoint", content=b"x")

    assert asyncio.run(talk()).status_code == 503


def test_answers_of_a_witness_that_help_nobody(log, place):
    witness = open_witness(place, log)
    checkpoint = newest(log)
    cosignature = witness.add_checkpoint(ask(log, WitnessDialogue(witness.key))).encode()
    stranger = WitnessDialogue(type(witness.key)(NAME, bytes(31) + b"\1"))
    for dialogue, status, body in [
        (stranger, 200, cosignature),
        (WitnessDialogue(witness.key), 200, b""),
        (WitnessDialogue(witness.key), 200, b"\xff\n"),
        (WitnessDialogue(witness.key), 200, cosignature[:-1]),
        (WitnessDialogue(witness.key), 409, b"many\n"),
        (WitnessDialogue(witness.key), 409, b"0\n"),
        (WitnessDialogue(witness.key), 403, b""),
        (WitnessDialogue(witness.key), 500, b""),
    ]:
        with pytest.raises(Unavailable):
            dialogue.answer(checkpoint, status, body)
    with pytest.raises(Conflict, match="not the beginning of this log"):
        WitnessDialogue(witness.key).answer(checkpoint, 422, b"")
    ahead = WitnessDialogue(witness.key)
    assert ahead.answer(checkpoint, 409, b"900\n") is None
    with pytest.raises(Conflict, match="it was taken back"):
        ahead.request(log.storage.log_tree, checkpoint)


def test_the_client_goes_on_from_what_the_witness_has_and_keeps_cosignatures(log, place, tmp_path):
    witness = open_witness(place, log)
    witness.add_checkpoint(ask(log, WitnessDialogue(witness.key)))
    log.append(50)
    log.sign()

    async def run():
        with ThreadPoolExecutor(2) as pool:
            book = CosignatureBook(log.storage.log_tree, pool)
            async with serving(witness_app(witness, pool), tmp_path / "w.sock") as url:
                shipper = WitnessShipper(url, witness.key, book)
                assert shipper.name == f"witness:{NAME}"
                await shipper.ship(newest(log))
                log.append(50)
                log.sign()
                await shipper.ship(newest(log))
            with pytest.raises(Unavailable, match="does not answer"):
                await shipper.ship(newest(log))
            with pytest.raises(NotFound):
                await book.add(replace(newest(log), size=7), ())

    asyncio.run(run())
    for checkpoint in log.storage.log_tree.checkpoints(log.signer.origin, behind=300):
        parse_note(checkpoint.note.encode()).signed_by([witness.key])
    assert log.verify(witnesses=[witness.key]).witnesses == (NAME,)


def test_checkpoints_in_a_file_are_lines_and_a_full_disk_is_an_error(log, tmp_path):
    async def run():
        with ThreadPoolExecutor(1) as pool:
            file = FileShipper(tmp_path / "shipped", pool)
            await file.ship(newest(log))
            await file.ship(newest(log))
            with pytest.raises(Unavailable, match="cannot append"):
                await FileShipper(tmp_path / "nowhere" / "x", pool).ship(newest(log))

    asyncio.run(run())
    lines = (tmp_path / "shipped").read_bytes().splitlines()
    assert len(lines) == 2
    assert parse_checkpoint(newest(log).note.encode())[0].size == 300


def test_a_webhook_gets_the_checkpoint_and_has_to_take_it(log, tmp_path):
    seen, answers = [], [204, 500]

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        seen.append((scope["path"], body))
        await send({"type": "http.response.start", "status": answers[len(seen) - 1], "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def run():
        async with serving(app, tmp_path / "hook.sock") as url:
            hook = WebhookShipper(url)
            await hook.ship(newest(log))
            with pytest.raises(Unavailable, match="answers 500"):
                await hook.ship(newest(log))
        with pytest.raises(Unavailable):
            await post("http://127.0.0.1:1", "/x", b"", "text/plain", name="nobody")

    asyncio.run(run())
    assert newest(log).note.splitlines()[0].encode() in seen[0][1]
    assert WebhookShipper("https://hooks.example/secret/token").name == "https://hooks.example"
