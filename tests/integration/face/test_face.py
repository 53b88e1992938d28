# SPDX-License-Identifier: Apache-2.0
"""The face: who is let in, what a stranger may send, what is believed of it."""

import contextlib
import http.client
import os
import signal
import socket
import ssl
import stat
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.support import identity
from tests.support.face_under_test import FaceUnderTest, Held, wait_for
from tests.support.http2_client import Http2Client

from everyhop.authority import AuthorityKind
from everyhop.core.errors import AttestationError, Conflict
from everyhop.dataplane.face import Face
from everyhop.dataplane.face_secrets import FaceProcess
from everyhop.runtime import face as runtime_face
from everyhop.runtime.face import face_address, plan_face, require_free
from everyhop.runtime.settings import Settings
from everyhop.wire.peers import PeerInfo
from everyhop.wire.processes import ProcessHandle
from everyhop.x509.keys import encode_private_key

ENDED = r"(?i)alert|reset|closed|eof|broken"
JWKS = b"GET /jwks HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def forged(ca, spiffe_id, **changed):
    """An SVID of some other CA."""
    key = identity.new_key()
    leaf = ca.leaf(key=key, uri=spiffe_id, **changed)
    return Held(spiffe_id, (leaf,), encode_private_key(key).reveal())


# --- refused


def test_nothing_below_tls_1_3(face):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError, match=ENDED):
        face.connect(context).close()


def test_plain_http_gets_no_answer(face):
    with socket.create_connection(("127.0.0.1", face.port), timeout=5) as raw:
        raw.sendall(JWKS)
        with contextlib.suppress(ConnectionResetError):
            assert not raw.recv(100).startswith(b"HTTP/")


def test_a_foreign_certificate_ends_the_handshake(face):
    now = datetime.now(UTC)
    foreign = identity.TestCa(not_before=now - timedelta(hours=1), not_after=now + timedelta(hours=1))
    held = forged(
        foreign,
        face.spiffe_id("storefront"),
        not_before=now - timedelta(minutes=1),
        not_after=now + timedelta(minutes=5),
    )
    with pytest.raises(OSError, match=ENDED):
        face.call("GET", "/jwks", held=held)


def test_an_expired_certificate_ends_the_handshake(face):
    held = face.svid("storefront", ttl=timedelta(seconds=3))
    assert face.call("GET", "/jwks", held=held).status == 200
    time.sleep(3.6)
    with pytest.raises(OSError, match=ENDED):
        face.call("GET", "/jwks", held=held)


@pytest.mark.parametrize(
    "path",
    [
        "/oauth%2ftoken",
        "/oauth/../jwks",
        "//jwks",
        "/jwks;x=1",
        "/jwks/",
        "/./jwks",
        "/%6awks",
        "/jwks%00",
        "/a\\b",
        "/..",
        "/.",
    ],
)
def test_a_path_with_a_second_reading_is_refused(face, path):
    answer = face.call("GET", path)
    assert answer.status in {400, 404}
    assert answer.header("content-type") == "application/problem+json"
    assert set(answer.json) <= {"type", "title", "status", "code", "decision"}


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Host: a", "Host: b"], 400),
        (["Host: localhost", "Content-Length: 5", "Transfer-Encoding: chunked"], 400),
        (["Host: localhost", "Content-Length: 5", "Content-Length: 6"], 400),
        (["Host: localhost", "Transfer-Encoding: xchunked"], 400),
        (["Host: localhost", "under_score: 1"], 400),
        (["Host: localhost", "X-Large: " + "a" * 17000], 431),
        (["Host: localhost", *(f"X-{n}: 1" for n in range(70))], 431),
    ],
)
def test_smuggling_and_excess_are_refused(face, lines, status):
    answer = face.raw("\r\n".join(["POST /oauth/token HTTP/1.1", *lines, "", ""]).encode())
    assert answer.status in ({status, 501} if "xchunked" in lines[-1] else {status})


def test_a_body_of_more_than_64_kib_never_reaches_the_server(face):
    answer = face.form("/oauth/token", b"a=" + b"x" * 70_000)
    assert answer.status == 413
    assert answer.json["code"] == "CONTENT_TOO_LARGE"


@pytest.mark.parametrize(
    "name",
    ["X-Forwarded-Client-Cert", "x-everyhop-source", "X-Everyhop-Caller", "Forwarded", "X-Forwarded-For"],
)
def test_identity_from_outside_is_not_believed(face, name):
    claimed = f"By=spiffe://shop.example/everyhop/server;Hash={'0' * 64};URI={face.spiffe_id('storefront')}"
    answer = face.form(
        "/oauth/token",
        {"grant_type": "client_credentials", "audience": "orders"},
        headers=[(name, claimed)],
    )
    assert (answer.status, answer.json["error"]) == (401, "invalid_client")


def test_a_certificate_beats_what_the_header_claims(face):
    claimed = f"By=x;Hash={'0' * 64};URI={face.spiffe_id('storefront')}"
    answer = face.form(
        "/oauth/token",
        {"grant_type": "client_credentials", "audience": "orders"},
        headers=[("X-Forwarded-Client-Cert", claimed)],
        held=face.svid("stranger"),
    )
    assert (answer.status, answer.json["error"]) == (400, "invalid_target")


def test_the_sockets_admit_nobody_but_the_face(face):
    for path in (face.layout.oauth_socket, face.layout.face_socket):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # This very process is the parent of the face, not the face.
    settings = bytes.fromhex("000000040000000000")
    for path, said in (
        (face.layout.oauth_socket, JWKS),
        (face.layout.face_socket, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings),
    ):
        heard = b""
        with socket.socket(socket.AF_UNIX) as raw, contextlib.suppress(ConnectionResetError, BrokenPipeError):
            raw.settimeout(5)
            raw.connect(str(path))
            raw.sendall(said)
            heard = raw.recv(4096)
        assert b"HTTP/1.1" not in heard
        assert b"PRIVATE" not in heard


async def test_the_secrets_are_for_nobody_but_the_face(face):
    peer = PeerInfo(
        pid=os.getpid(), uid=os.getuid(), gid=os.getgid(), process=ProcessHandle.open(os.getpid())
    )
    own = FaceProcess(parent=os.getpid(), uid=os.getuid())
    with pytest.raises(AttestationError, match="not the server's face"):
        own.check(peer)
    with pytest.raises(AttestationError, match="another user"):
        FaceProcess(parent=os.getppid(), uid=os.getuid() + 1).check(peer)
    with pytest.raises(AttestationError, match="not the server's face"):
        FaceProcess.sibling().check(replace(peer, pid=face.process.pid))  # a child, not a sibling
    own.check(replace(peer, pid=face.process.pid))
    peer.process.close()


def test_no_key_lies_on_a_disk(face):
    for path in face.layout.root.rglob("*"):
        if path.is_file() and path != face.layout.database:
            assert b"PRIVATE KEY" not in path.read_bytes(), path
    assert stat.S_IMODE((face.layout.face / "bootstrap.json").stat().st_mode) == 0o600


def test_an_address_in_use_is_a_clear_error(face):
    settings = Settings(api_listen=f"127.0.0.1:{face.port}")
    with pytest.raises(Conflict, match=str(face.port)) as caught:
        require_free(face_address(face.layout, settings))
    assert "api_listen" in str(caught.value.hint)


# --- taken


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "auth.shop.example"])
def test_ordinary_clients_find_the_name_in_the_certificate(face, host):
    with face.connect(face.context(), host=host) as secure:
        assert secure.version() == "TLSv1.3"
        leaf = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://shop.example/everyhop/server"
    ]


def test_another_name_is_refused_by_the_client(face):
    with pytest.raises(ssl.SSLCertVerificationError):
        face.connect(face.context(), host="other.example").close()


@pytest.mark.parametrize("held", [False, True])
def test_http_1_1_and_2(face, held):
    context = face.context(face.svid("storefront") if held else None, alpn=("h2",))
    with face.connect(context) as secure:
        assert secure.selected_alpn_protocol() == "h2"
        status, headers, body, _ = Http2Client(secure).request("GET", "/jwks", authority="localhost")
    assert int(status) == 200, headers
    assert b'"keys"' in body
    assert face.call("GET", "/jwks", held=face.svid("storefront") if held else None).status == 200


def test_methods(face):
    for method, path, allowed in (
        ("GET", "/oauth/token", {"POST"}),
        ("PUT", "/oauth/revoke", {"POST"}),
        ("POST", "/jwks", {"GET", "HEAD"}),
        ("DELETE", "/.well-known/openid-configuration", {"GET", "HEAD"}),
    ):
        answer = face.call(method, path, body=b"" if method != "GET" else None)
        assert answer.status == 405
        assert set(answer.header("allow").replace(" ", "").split(",")) == allowed
    assert face.call("TRACE", "/jwks").status in {404, 405}
    assert face.call("GET", "/unknown").status == 404


def test_a_flood_is_refused_by_the_face(monkeypatch):
    monkeypatch.setattr(runtime_face, "Face", partial(Face, requests_a_second=20))
    with FaceUnderTest() as own, own.connect(own.context()) as secure:
        connection = http.client.HTTPConnection("127.0.0.1")
        connection.sock = secure
        seen = []
        for _ in range(100):
            connection.request("GET", "/jwks")
            answer = connection.getresponse()
            seen.append((answer.status, answer.getheader("content-type")))
            answer.read()
    assert seen.count((200, "application/jwk-set+json")) >= 40
    assert seen.count((429, "application/problem+json")) >= 20


# --- life


def test_a_killed_face_comes_back_at_its_port():
    with FaceUnderTest() as own:
        before = own.call("GET", "/jwks").json
        own.process.send_signal(signal.SIGKILL)
        own.process.wait()
        started = time.monotonic()
        own.start_envoy()
        assert own.call("GET", "/jwks").json == before
        assert time.monotonic() - started < 3


def test_the_server_restarts_behind_its_face():
    with FaceUnderTest() as own:
        kid = own.call("GET", "/jwks").json["keys"][0]["kid"]
        own.stop_server()
        own.start_server()
        answer = own.call("GET", "/jwks")
        assert answer.status == 200, answer
        assert [key["kid"] for key in answer.json["keys"]] == [kid]


def test_rotation_of_certificate_and_authority_fails_no_request():
    with FaceUnderTest(x509_ttl=timedelta(seconds=10)) as own:
        failures, serials = [], set()
        held = own.svid("storefront")
        deadline = time.monotonic() + 8
        rotated = False
        while time.monotonic() < deadline:
            try:
                with own.connect(own.context(held)) as secure:
                    leaf = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True))
                    serials.add(leaf.serial_number)
                    secure.sendall(JWKS)
                    if not secure.recv(15).startswith(b"HTTP/1.1 200"):
                        failures.append("status")
            except OSError as error:
                failures.append(repr(error))
            if not rotated and time.monotonic() > deadline - 6:
                rotated = True
                own.authority.prepare(AuthorityKind.X509)
                own.publish()
                wait_for(
                    lambda: own.secrets.acknowledged_bundle == own.authority.bundle().sequence,
                    what="the face holds the new authority",
                )
                own.authority.activate(AuthorityKind.X509, own.authority.bundle().sequence)
                own.publish()
                held = own.svid("storefront")
        assert failures == []
        assert len(serials) >= 2


def test_the_port_is_chosen_once_and_kept(short_path):
    from everyhop.runtime.layout import StateLayout

    layout = StateLayout(short_path / "s")
    layout.create()
    settings = Settings()
    first = face_address(layout, settings)
    assert first.port
    assert face_address(layout, settings) == first
    assert face_address(layout, Settings(api_listen="127.0.0.1:8443")).port == 8443
    assert face_address(layout, settings) == first
    plan = plan_face(layout, settings)
    assert plan.listen == first
    assert os.fspath(layout.face / "bootstrap.json") in plan.argv
    assert {stat.S_IMODE(path.stat().st_mode) for path in layout.face.iterdir()} == {0o600}
    (layout.face / "port").write_text("none")
    with pytest.raises(Exception, match="holds no port"):
        face_address(layout, settings)


# --- certificates that the real authority would never sign, signed by it


def signed_by_the_real_authority(face, **changed):
    issuer = face.authority._signers.x509(face.clock.now()).issuer
    ca, key, now = (
        x509.load_der_x509_certificate(issuer.certificate_der),
        identity.new_key(),
        face.clock.now(),
    )
    leaf = identity.certificate(
        subject=identity.NO_NAME,
        issuer=ca.subject,
        public_key=key.public_key(),
        signer=issuer._key,
        extensions={**identity.leaf_extensions(face.spiffe_id("storefront")), **changed},
        not_before=now - timedelta(seconds=30),
        not_after=now + timedelta(minutes=5),
    )
    return Held("", (leaf,), encode_private_key(key).reveal())


OURS = "spiffe://shop.example/service/storefront"
HOSTILE = {
    "two names, both ours": {"names": (identity.uris(OURS, "spiffe://shop.example/service/orders"), True)},
    "the same name twice": {"names": (identity.uris(OURS, OURS), True)},
    "two names, one of another trust domain": {
        "names": (identity.uris(OURS, "spiffe://other.example/x"), True)
    },
    "another trust domain": {"names": (identity.uris("spiffe://other.example/service/storefront"), True)},
    "a longer name": {"names": (identity.uris(OURS + "/x"), True)},
    "upper-case scheme": {"names": (identity.uris("SPIFFE://shop.example/service/storefront"), True)},
    "a name with a separator": {"names": (identity.uris(OURS + ";URI=" + OURS), True)},
    "a name with a comma": {"names": (identity.uris(OURS + ",Hash=" + "0" * 64), True)},
    "a name with a quote": {"names": (identity.uris(OURS + '"'), True)},
    "no name": {"names": None},
    "a DNS name alone": {"names": (x509.SubjectAlternativeName([x509.DNSName("storefront")]), True)},
    "not for clients": {"purposes": (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_certificate_that_is_no_svid_is_no_client(face, what):
    try:
        answer = face.token(signed_by_the_real_authority(face, **HOSTILE[what]), audience="orders")
    except OSError:
        return  # refused in the handshake
    assert (answer.status, answer.json["error"]) == (401, "invalid_client"), answer


def test_the_same_certificate_made_right_is_one(face):
    assert face.token(signed_by_the_real_authority(face), audience="orders").status == 200
