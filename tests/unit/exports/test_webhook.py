# SPDX-License-Identifier: Apache-2.0
"""Webhooks: only the configured URL, only over verified TLS, signed so that the specification's example holds."""

import base64
import hashlib
import hmac
import json
import threading
from datetime import timedelta

import pytest
from tests.support.exported import item
from tests.support.identity import NOW
from tests.support.receiver import Receiver, Reply, free_port, make_pki

from everyhop.core.errors import SettingsError, Unavailable
from everyhop.core.secret import Secret
from everyhop.exports import Format, RefusedError, TlsSettings, WebhookSettings
from everyhop.exports.formats import renderer
from everyhop.exports.http import check_url
from everyhop.exports.webhook import WebhookSink, key_of, message_id_of, signature_of

KEY = bytes(range(32))
SECRET = b"whsec_" + base64.b64encode(KEY)


class Clock:
    def now(self):
        return NOW


@pytest.fixture
def receiver():
    with Receiver() as opened:
        yield opened


def sink(url, *, secrets=(SECRET,), tls=None, **changes):
    values = {"name": "hook", "format": Format.RECORD, "batch": 1}
    settings = WebhookSettings(
        **(values | changes),
        url=url,
        secrets=tuple((lambda s=secret: Secret(s)) for secret in secrets),
        tls=tls or TlsSettings(),
    )
    return WebhookSink(settings, renderer(settings.format, origin=None), Clock())


def url_of(receiver, scheme="http", host="127.0.0.1"):
    return f"{scheme}://{host}:{receiver.port}/hook?x=1"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hook",
        "ftp://a/",
        "http://siem.example/hook",
        "http://127.0.0.1.evil.example/",
        "http://10.0.0.1/",
        "https://user:pw@a/",
        "https://a/#x",
        "https://a:99999/",
        "https://a/ b",
        "https://a/\nx",
        "https://é.example/",
        "https:///x",
        "https://[::1/",
    ],
)
def test_urls_that_are_refused(url):
    with pytest.raises(SettingsError):
        check_url(url)


@pytest.mark.parametrize("url", ["https://siem.example/h?x=1", "http://127.0.0.1:8/", "http://[::1]:8/"])
def test_urls(url):
    assert check_url(url) == url


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"whsec_",
        b"whsec_!!",
        base64.b64encode(KEY),
        b"whsec_" + base64.b64encode(KEY[:23]),
        b"whsec_" + base64.b64encode(KEY * 3),
        b"WHSEC_" + base64.b64encode(KEY),
    ],
)
def test_secrets_that_are_refused(text):
    with pytest.raises(Unavailable) as caught:
        key_of(Secret(text))
    assert len(text) < 10 or text.decode() not in caught.value.message


def test_the_signature_is_that_of_the_specification():
    # The example of the specification's reference libraries.
    key = key_of(Secret(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
    body = b'{"test": 2432232314}'
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signature_of(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == expected


async def test_a_message(receiver):
    hook = sink(url_of(receiver))
    assert await hook.send([item(5)]) == 5
    assert await hook.close() == 5
    (got,) = receiver.got
    assert got.path == "/hook?x=1"
    assert got.headers["webhook-id"] == f"{5:024x}"
    assert got.headers["webhook-timestamp"] == str(int(NOW.timestamp()))
    signed = f"{5:024x}.{int(NOW.timestamp())}.".encode() + got.body
    mac = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert got.headers["webhook-signature"] == f"v1,{mac}"
    body = json.loads(got.body)
    assert body["type"] == "everyhop.decision"
    assert body["data"] == {"id": f"{5:024x}", "index": 5, "event": json.loads(item(5).line)}


async def test_two_secrets_sign_twice_while_they_change(receiver):
    other = bytes(range(64))
    hook = sink(url_of(receiver), secrets=(SECRET, b"whsec_" + base64.b64encode(other) + b"\n"))
    await hook.send([item(1)])
    await hook.close()
    (got,) = receiver.got
    moment = int(NOW.timestamp())
    assert got.headers["webhook-signature"].split(" ") == [
        signature_of(key, f"{1:024x}", moment, got.body) for key in (KEY, other)
    ]


async def test_a_batch_has_one_id_for_the_same_records(receiver):
    hook = sink(url_of(receiver), batch=10, format=Format.CEF)
    await hook.send([item(1), item(2)])
    await hook.send([item(1), item(2)])
    await hook.send([item(1), item(3)])
    await hook.close()
    ids = [got.headers["webhook-id"] for got in receiver.got]
    assert ids[0] == ids[1] != ids[2]
    records = json.loads(receiver.got[0].body)["data"]["records"]
    assert [record["index"] for record in records] == [1, 2]
    assert records[0]["event"].startswith("CEF:0|")


@pytest.mark.parametrize("record_id", ["a.b", "x\r\nevil: 1", "é", "x" * 128, "a b"])
def test_an_id_that_is_not_plain_is_hashed(record_id):
    made = message_id_of([item(1, id=record_id)])
    assert made.startswith("batch_")
    assert made.isascii()
    assert "." not in made


@pytest.mark.parametrize(
    ("status", "patient", "final", "large"),
    [
        (301, True, False, False),
        (302, True, False, False),
        (307, True, False, False),
        (400, True, False, False),
        (401, True, False, False),
        (404, True, False, False),
        (410, True, True, False),
        (413, False, False, True),
        (429, False, False, False),
        (500, False, False, False),
        (503, False, False, False),
    ],
)
async def test_refusals(receiver, status, patient, final, large):
    receiver.replies = [Reply(status, {"location": f"http://127.0.0.1:{receiver.port}/other"})]
    hook = sink(url_of(receiver))
    with pytest.raises(RefusedError) as caught:
        await hook.send([item(1)])
    assert await hook.close() == 0
    assert len(receiver.got) == 1  # no redirect was followed
    error = caught.value
    assert (error.is_patient, error.is_final, error.too_large) == (patient, final, large)
    assert str(status) in error.message


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        ("99999999999999", 3600),
        ("-1", None),
        ("soon", None),
        ("1e3", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
    ],
)
async def test_retry_after(receiver, text, seconds):
    receiver.replies = [Reply(503, {"retry-after": text})]
    hook = sink(url_of(receiver))
    with pytest.raises(RefusedError) as caught:
        await hook.send([item(1)])
    await hook.close()
    assert caught.value.after == (None if seconds is None else timedelta(seconds=seconds))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 99999 X\r\n\r\n",
        b"\x00\xff" * 400,
        b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n" + b"x" * 200_000,
    ],
)
async def test_garbage_is_no_answer(receiver, raw):
    receiver.replies = [Reply(raw=raw)]
    hook = sink(url_of(receiver))
    with pytest.raises(Unavailable):
        await hook.send([item(1)])
    assert await hook.settle() == 0
    assert await hook.send([item(1)]) == 1
    await hook.close()


async def test_nobody_is_there():
    hook = sink(f"http://127.0.0.1:{free_port()}/")
    with pytest.raises(Unavailable, match="does not answer"):
        await hook.send([item(1)])
    await hook.close()


async def test_a_receiver_without_our_authority_or_name_is_refused(tmp_path):
    pki, other = make_pki(tmp_path, "localhost"), make_pki(tmp_path, "localhost", label="other")
    with Receiver(pki.context()) as receiver:
        for tls, host in (
            (TlsSettings(), "localhost"),
            (TlsSettings(ca=other.ca), "localhost"),
            (TlsSettings(ca=pki.ca), "127.0.0.1"),  # not a name of the certificate
        ):
            hook = sink(url_of(receiver, "https", host), tls=tls)
            with pytest.raises(Unavailable, match="certificate"):
                await hook.send([item(1)])
            await hook.close()
        assert receiver.got == []


async def test_verified_tls_with_a_certificate_of_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")  # nothing of the environment counts
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{free_port()}")
    pki = make_pki(tmp_path, "localhost")
    with Receiver(pki.context(demand=True)) as receiver:
        refused = sink(url_of(receiver, "https", "localhost"), tls=TlsSettings(ca=pki.ca))
        with pytest.raises(Unavailable):
            await refused.send([item(1)])
        await refused.close()
        tls = TlsSettings(ca=pki.ca, certificate=pki.certificate, key=pki.key)
        hook = sink(url_of(receiver, "https", "localhost"), tls=tls)
        assert await hook.send([item(1)]) == 1
        await hook.close()
        assert len(receiver.got) == 1


async def test_files_that_are_not_there_are_told(tmp_path, receiver):
    hook = sink("https://localhost:1/", tls=TlsSettings(ca=tmp_path / "none.pem"))
    with pytest.raises(Unavailable, match="TLS files"):
        await hook.send([item(1)])


async def test_a_slow_receiver_is_given_up_by_the_exporter(receiver):
    import asyncio

    hold = threading.Event()
    receiver.replies = [Reply(hold=hold)]
    hook = sink(url_of(receiver))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(hook.send([item(1)]), 0.2)
    await hook.close()
    hold.set()
    assert await hook.send([item(1)]) == 1
    await hook.close()


def test_no_secret_shows_itself():
    hook = sink("https://siem.example/")
    assert "whsec" not in repr(hook._settings)
    assert "secrets" not in repr(hook._settings)
