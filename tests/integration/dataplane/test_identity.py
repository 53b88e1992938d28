# SPDX-License-Identifier: Apache-2.0
"""Who gets in at all: certificates that are wrong in one respect are refused in the handshake, or by the policy."""

import socket
import ssl
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from tests.support import identity
from tests.support.envoy_pair import exchange, foreign_ca, request_bytes

GOOD = "spiffe://shop.example/service/storefront"
NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def own_ca(mesh):
    """A signer with this trust domain's own key, that signs whatever it is asked to."""
    issuer = mesh.authority.issuer
    ca = identity.TestCa(key=issuer._key, not_before=NOW - HOUR, not_after=NOW + HOUR)
    certificate = x509.load_der_x509_certificate(mesh.authority.certificates[0])

    class Own:
        def leaf(self, key, *, not_before=NOW - HOUR, not_after=NOW + HOUR, **extensions):
            builder = (
                x509.CertificateBuilder()
                .subject_name(x509.Name([]))
                .issuer_name(certificate.subject)
                .public_key(key.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(not_before)
                .not_valid_after(not_after)
            )
            for entry in {**identity.leaf_extensions(GOOD), **extensions}.values():
                if entry is not None:
                    builder = builder.add_extension(entry[0], critical=entry[1])
            signed = builder.sign(ca.key, identity.hashes.SHA256())
            return signed.public_bytes(identity.serialization.Encoding.DER)

    return Own()


def outcome(mesh, context, raw=None):
    """Return the status that a client gets, 0 when the handshake or the connection fails."""
    before = list(mesh.apps["orders"].seen)
    try:
        with mesh.connect("orders", context) as connection:
            status, _, _ = exchange(connection, raw or request_bytes("GET", "/orders"))
    except (OSError, ssl.SSLError):
        status = 0
    if status != 200:
        assert mesh.apps["orders"].seen == before
    return status


def shown(mesh, own_ca, **changed):
    key = identity.new_key()
    return outcome(mesh, mesh.context(own_ca.leaf(key, **changed), key))


def test_the_right_certificate_gets_in(mesh, own_ca):
    assert shown(mesh, own_ca) == 200


def test_no_certificate(mesh):
    assert outcome(mesh, mesh.context(None, None)) == 0


def test_another_ca_with_the_right_name(mesh):
    key = identity.new_key()
    ca = foreign_ca()
    leaf = ca.leaf(key=key, uri=GOOD, not_before=NOW - HOUR, not_after=NOW + HOUR)
    assert outcome(mesh, mesh.context(leaf, key)) == 0


def test_another_ca_under_the_name_of_ours(mesh):
    ours = x509.load_der_x509_certificate(mesh.authority.certificates[0])
    ca = foreign_ca(common="everyhop")
    key = identity.new_key()
    leaf = identity.certificate(
        subject=identity.NO_NAME,
        issuer=ours.subject,
        public_key=key.public_key(),
        signer=ca.key,
        extensions=identity.leaf_extensions(GOOD),
        not_before=NOW - HOUR,
        not_after=NOW + HOUR,
    )
    assert outcome(mesh, mesh.context(leaf, key)) == 0


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"not_before": NOW - 2 * HOUR, "not_after": NOW - HOUR / 2}, id="expired"),
        pytest.param({"not_before": NOW + HOUR / 2}, id="not yet valid"),
        pytest.param({"names": None}, id="no name"),
        pytest.param(
            {"names": (identity.uris("spiffe://other.example/service/storefront"), True)}, id="other domain"
        ),
        pytest.param(
            {"names": (identity.uris("spiffe://shop.example.evil/service/storefront"), True)},
            id="longer domain",
        ),
        pytest.param(
            {"names": (identity.uris("https://shop.example/service/storefront"), True)}, id="other scheme"
        ),
        pytest.param(
            {"names": (x509.SubjectAlternativeName([x509.DNSName("storefront")]), True)}, id="DNS name"
        ),
        pytest.param(
            {"constraints": (x509.BasicConstraints(ca=True, path_length=None), True)}, id="CA as leaf"
        ),
        pytest.param(
            {"usage": (identity.key_usage("digital_signature", "key_cert_sign"), True)}, id="signing leaf"
        ),
    ],
)
def test_certificates_of_our_own_ca_that_are_no_svids(mesh, own_ca, changed):
    assert shown(mesh, own_ca, **changed) == 0


@pytest.mark.parametrize(
    "names",
    [
        pytest.param([GOOD, "spiffe://shop.example/service/web"], id="two names"),
        pytest.param([GOOD, "https://shop.example/"], id="a second URI"),
        pytest.param([f"{GOOD},x"], id="comma in a name"),
        pytest.param(["spiffe://shop.example/service/storefront-evil"], id="longer name"),
        pytest.param(["spiffe://shop.example/service/storefrontx"], id="prefix"),
        pytest.param(["spiffe://shop.example/service/Storefront"], id="case"),
        pytest.param(["spiffe://shop.example/service/storefront/"], id="trailing slash"),
        pytest.param(["spiffe://shop.example/service/x/../storefront"], id="dot segments"),
        pytest.param(["spiffe://shop.example/service/st.refront"], id="dot as regex"),
        pytest.param(["spiffe://shop.example/service/storefront\r\nx: y"], id="CRLF in a name"),
        pytest.param(["spiffe://shop.example"], id="the domain itself"),
        pytest.param(["spiffe://shop.example/service/nobody"], id="not declared"),
    ],
)
def test_names_that_look_like_another(mesh, own_ca, names):
    """Field notes, section 6, numbers 29 and 30: refused by the handshake or by the policy, and never as 5xx."""
    assert shown(mesh, own_ca, names=(identity.uris(*names), True)) in {0, 403}


def test_an_undeclared_caller_is_named_as_such(mesh):
    with mesh.connect("orders", mesh.client("nobody")) as connection:
        status, headers, _ = exchange(connection, request_bytes("GET", "/orders"))
    assert status == 403
    record = mesh.sidecars["orders"].record(headers["x-everyhop-decision"])
    assert (record.reason, record.operation, record.caller) == (
        "unknown-caller",
        "list",
        mesh.spiffe_id("nobody"),
    )


def test_a_stolen_certificate_of_another_service_opens_only_its_own_doors(mesh):
    with mesh.connect("orders", mesh.client("stranger")) as connection:
        status, headers, _ = exchange(connection, request_bytes("GET", "/orders"))
    assert status == 403
    assert mesh.sidecars["orders"].record(headers["x-everyhop-decision"]).reason == "no-rule"


def test_old_tls_versions(mesh):
    context = mesh.client("storefront")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert outcome(mesh, context) == 0


def test_plain_http_on_the_tls_port(mesh):
    for raw in (request_bytes("GET", "/orders"), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        with socket.create_connection(mesh.sidecars["orders"].sidecar.ingress, timeout=5) as plain:
            plain.sendall(raw)
            answer = plain.recv(100)
            assert not answer.startswith(b"HTTP")


def test_sessions_are_not_resumed(mesh):
    context = mesh.client("storefront")
    with mesh.connect("orders", context) as first:
        assert exchange(first, request_bytes("GET", "/orders"))[0] == 200
        session = first.session
    assert session is None or not session.has_ticket
    raw = socket.create_connection(mesh.sidecars["orders"].sidecar.ingress, timeout=5)
    with context.wrap_socket(raw, session=session) as second:
        assert not second.session_reused


def test_400_stalled_connections_do_not_keep_a_good_one_out(mesh):
    address = mesh.sidecars["orders"].sidecar.ingress
    stalled = [socket.create_connection(address, timeout=5) for _ in range(200)]
    half = [mesh.connect("orders", mesh.client("storefront")) for _ in range(3)]
    for connection in half:
        connection.sendall(b"GET /orders HTTP/1.1\r\nHost: o")
    stalled += [socket.create_connection(address, timeout=5) for _ in range(200)]
    try:
        started = time.monotonic()
        assert outcome(mesh, mesh.client("storefront")) == 200
        assert time.monotonic() - started < 2
        half[0].settimeout(10)
        assert b" 408 " in half[0].recv(1000)  # after headers_timeout
    finally:
        for connection in (*stalled, *half):
            connection.close()
