# SPDX-License-Identifier: Apache-2.0
"""Policies and keys change under running sidecars: at once, without cutting anybody who may go on."""

import contextlib
import socket
import threading
import time

import pytest
from tests.integration.dataplane.conftest import POLICY
from tests.support.envoy_pair import Mesh, exchange, foreign_ca, request_bytes, wait_for

from everyhop.dataplane._protobuf import encode_message
from everyhop.dataplane.configuration import FILTER, LISTENER, Configuration, Resource, load_configuration
from everyhop.dataplane.files import write_files
from everyhop.dataplane.render import render_sidecar

RBAC = b"type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
# An RBAC filter with field 15, which no version has.
UNKNOWN_FIELD = (
    b"\x0a\x05authz\x12" + bytes([len(RBAC) + 6]) + b"\x0a" + bytes([len(RBAC)]) + RBAC + b"\x12\x02\x78\x01"
)
FILTER_MESSAGE = "envoy.config.core.v3.TypedExtensionConfig"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
NO_LIST = POLICY.replace("operations: [list, read,", "operations: [read,")
NO_LEDGER = POLICY.replace("  - {from: storefront, to: ledger}\n", "")
UPGRADE = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]


@pytest.fixture
def restored(mesh):
    yield mesh
    mesh.apply(POLICY)
    wait_for(lambda: status_of(mesh, "/orders") == 200)


def status_of(mesh, path):
    with mesh.connect("orders", mesh.client("storefront")) as connection:
        return exchange(connection, request_bytes("GET", path))[0]


@contextlib.contextmanager
def unix(path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(path))
        yield connection


class Load:
    """Keeps asking over one connection; remembers every answer."""

    def __init__(self, mesh, path="/orders/7"):
        self.mesh, self.path = mesh, path
        self.answers, self.errors, self.times = [], [], []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            with unix(self.mesh.sidecars["storefront"].sidecar.egress_socket) as connection:
                while not self._stop.is_set():
                    self.answers.append(exchange(connection, request_bytes("GET", self.path))[0])
                    self.times.append(time.monotonic())
        except OSError as error:
            self.errors.append(error)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._stop.set()
        self._thread.join(10)


def test_a_withdrawn_operation_ends_on_the_open_connection(restored):
    mesh = restored
    with mesh.connect("orders", mesh.client("storefront")) as connection:
        assert exchange(connection, request_bytes("GET", "/orders"))[0] == 200
        started = time.monotonic()
        changed = mesh.apply(NO_LIST)
        wait_for(lambda: exchange(connection, request_bytes("GET", "/orders"))[0] == 403, seconds=1)
        assert time.monotonic() - started < 1
        assert exchange(connection, request_bytes("GET", "/orders/7"))[0] == 200
        status, headers, _ = exchange(connection, request_bytes("GET", "/orders"))
        assert status == 403
    assert set(changed["orders"]) == {
        "ecds/authz.json",
        "ecds/memory.json",
        "rds/ingress.json",
        "rds/egress.json",
    }
    record = mesh.sidecars["orders"].record(headers["x-everyhop-decision"])
    assert (record.reason, record.snapshot) == ("no-rule", mesh.snapshot.hash)


def test_100_changes_fail_no_legitimate_request_and_permit_no_other(restored):
    mesh = restored
    with Load(mesh) as allowed, Load(mesh, "/admin") as forbidden:
        for number in range(100):
            mesh.apply(NO_LIST if number % 2 else POLICY)
        time.sleep(0.1)
    assert set(allowed.answers) == {200}
    assert set(forbidden.answers) == {403}
    assert not allowed.errors + forbidden.errors
    assert len(allowed.answers) > 200


def swapped(mesh, kind, name, content):
    """Publish the configuration of orders with other bytes for one resource; return the one before."""
    configs = mesh.secrets.configs
    good = configs.published("orders")
    resources = {k: dict(v) for k, v in good.resources.items()}
    resources[kind][name] = Resource(f"bad-{len(content)}", content)
    mesh.call(configs.publish, "orders", Configuration(label="b" * 64, resources=resources))
    return good


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\xff" * 20, id="no protobuf"),
        pytest.param(b"", id="empty"),
        pytest.param(encode_message(FILTER_MESSAGE, {"name": "other"}), id="other name"),
        pytest.param(encode_message(FILTER_MESSAGE, {"name": "authz"}), id="no configuration"),
        pytest.param(
            encode_message(FILTER_MESSAGE, {"name": "authz", "typed_config": {"@type": ROUTER}}),
            id="other filter",
        ),
        pytest.param(
            UNKNOWN_FIELD,
            id="unknown field",
        ),
    ],
)
def test_a_damaged_filter_changes_nothing_and_is_not_counted_as_enforced(mesh, content):
    """Envoy would take an RBAC filter whose only field it does not know for one without rules."""
    good = swapped(mesh, FILTER, "authz", content)
    wait_for(lambda: "rejects" in mesh.log.text)
    try:
        assert status_of(mesh, "/orders") == 200
        assert status_of(mesh, "/admin") == 403
        assert mesh.secrets.configs.enforced("orders") == good.label
    finally:
        mesh.call(mesh.secrets.configs.publish, "orders", good)


def test_a_damaged_listener_keeps_the_old_one(mesh):
    good = swapped(
        mesh, LISTENER, "ingress", encode_message("envoy.config.listener.v3.Listener", {"name": "ingress"})
    )
    wait_for(lambda: "rejects" in mesh.log.text)
    try:
        assert status_of(mesh, "/orders") == 200
    finally:
        mesh.call(mesh.secrets.configs.publish, "orders", good)


def test_sidecars_go_on_without_the_agent_and_catch_up(restored):
    """The stream ends, calls do not; what changed meanwhile arrives when it is back."""
    mesh = restored
    with Load(mesh) as load:
        mesh.call(mesh.stop_serving)
        assert status_of(mesh, "/orders") == 200
        mesh.apply(NO_LIST)
        time.sleep(0.3)
        assert status_of(mesh, "/orders") == 200
        mesh.call(mesh.serve)
        wait_for(lambda: status_of(mesh, "/orders") == 403, seconds=5)
    assert set(load.answers) == {200}
    assert not load.errors


def test_a_withdrawn_tcp_connection_is_cut_and_others_are_not(restored):
    mesh = restored
    socket_path = mesh.sidecars["storefront"].sidecar.tcp_socket("ledger")
    with unix(socket_path) as connection:
        connection.sendall(b"ping")
        assert connection.recv(10)
        mesh.apply(NO_LIST)  # says nothing about the ledger
        time.sleep(mesh.limits.drain + 0.7)
        connection.sendall(b"pong")
        assert connection.recv(10)
        mesh.sidecars["ledger"].apply(mesh.snapshot)
        started = time.monotonic()
        mesh.apply(NO_LEDGER)
        with contextlib.suppress(ConnectionError, BrokenPipeError):
            while connection.recv(100):
                pass
        assert time.monotonic() - started < mesh.limits.drain + 1.5
    wait_for(lambda: not socket_path.exists() or _refused(socket_path))


def _refused(path):
    try:
        with unix(path) as connection:
            connection.sendall(b"x")
            return connection.recv(10) == b""
    except OSError:
        return True


def test_a_withdrawn_websocket_is_cut(restored):
    mesh = restored
    with mesh.connect("orders", mesh.client("storefront")) as connection:
        connection.sendall(request_bytes("GET", "/live/room", headers=UPGRADE))
        assert connection.recv(4096).startswith(b"HTTP/1.1 101")
        connection.sendall(b"a")
        assert connection.recv(10) == b"ws:a"
        mesh.apply(POLICY.replace("watch, live, info", "watch, info"))
        started = time.monotonic()
        with contextlib.suppress(OSError):
            while connection.recv(100):
                pass
        assert time.monotonic() - started < mesh.limits.drain + 1.5


def test_a_long_websocket_template_is_taken(restored):
    """Its expression is larger than Envoy takes by default, and with it the whole route table would be refused."""
    mesh = restored
    long = "/".join(f"segment-number-{n}/{{p{n}}}" for n in range(8))
    mesh.apply(POLICY.replace('"/live/{room}"', f'"/live/{long}"'))
    wait_for(lambda: mesh.secrets.configs.enforced("orders") == mesh.snapshot.hash, what="the policy")
    with mesh.connect("orders", mesh.client("storefront")) as connection:
        path = "/live/" + "/".join(f"segment-number-{n}/x" for n in range(8))
        connection.sendall(request_bytes("GET", path, headers=UPGRADE))
        assert connection.recv(4096).startswith(b"HTTP/1.1 101")


def test_a_new_destination_opens_without_a_restart(restored):
    mesh = restored
    path = mesh.sidecars["storefront"].sidecar.egress_socket
    with unix(path) as connection:
        assert exchange(connection, request_bytes("GET", "/", host="stranger"))[0] == 403
        mesh.sidecar("stranger")
        mesh.apply(
            POLICY.replace("stranger: {}", "stranger: {operations: {home: GET /}}").replace(
                "allow:\n", "allow:\n  - {from: storefront, to: stranger, operations: [home]}\n"
            )
        )
        try:
            wait_for(
                lambda: exchange(connection, request_bytes("GET", "/", host="stranger"))[0] == 200, seconds=2
            )
        finally:
            mesh.apply(POLICY)
            wait_for(
                lambda: exchange(connection, request_bytes("GET", "/", host="stranger"))[0] == 403, seconds=2
            )
            mesh.sidecars.pop("stranger").stop()
            mesh.endpoints.pop("stranger")


# --- keys


def test_a_rotated_authority_is_published_before_it_signs_and_fails_no_request(mesh):
    sequence = mesh.authority.sequence
    with Load(mesh) as load:
        for _ in range(3):
            mesh.rotate(publish_only=True)
            wait_for(
                lambda: (
                    {mesh.call(mesh.secrets.acknowledged_bundle, n) for n in mesh.sidecars}
                    == {mesh.authority.sequence}
                ),
                what="every sidecar to confirm the new bundle",
            )
            # Now, and only now, the new CA may sign.
            mesh.authority.issuer = mesh.authority.newest
            mesh.authority.name = f"x509-{mesh.authority.sequence}"
            mesh.call(mesh.identities.apply_bundle, mesh.authority.bundle(), mesh.authority.name)
            wait_for(lambda: _served_by_newest(mesh))
    assert mesh.authority.sequence == sequence + 3
    assert set(load.answers) == {200}
    assert not load.errors


def _served_by_newest(mesh):
    """Tell whether the ingress shows a certificate of the newest CA."""
    from cryptography import x509

    with mesh.connect("orders", mesh.client("storefront")) as connection:
        shown = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True))
    newest = x509.load_der_x509_certificate(mesh.authority.certificates[-1])
    try:
        shown.verify_directly_issued_by(newest)
    except Exception:
        return False
    return True


def test_a_withdrawn_authority_is_believed_no_more(mesh):
    """After the old CA leaves the bundle, its certificates no longer open anything."""
    old = mesh.client("storefront")
    assert _asked(mesh, old) == 200
    mesh.rotate()
    wait_for(lambda: _served_by_newest(mesh))
    mesh.authority.certificates = mesh.authority.certificates[-1:]
    mesh.authority.sequence += 1
    mesh.call(mesh.identities.apply_bundle, mesh.authority.bundle(), mesh.authority.name)
    fresh = mesh.client("storefront")
    wait_for(lambda: _asked(mesh, fresh) == 200 and _asked(mesh, old) == 0)


def _asked(mesh, context):
    try:
        with mesh.connect("orders", context) as connection:
            return exchange(connection, request_bytes("GET", "/orders"))[0]
    except OSError:
        return 0


def test_secrets_are_for_the_sidecar_of_the_launch_alone(mesh):
    """An Envoy that names another instance than its own gets nothing and never opens its port."""
    running = mesh.sidecar("web", name="thief", ready=False)
    try:
        files = render_sidecar(mesh.snapshot, running.sidecar, mesh.endpoints)
        running.stop()
        files["bootstrap.json"] = files["bootstrap.json"].replace(b'"id": "thief"', b'"id": "orders"')
        write_files(running.sidecar.directory, files)
        mesh.call(mesh.secrets.configs.publish, "thief", load_configuration(running.sidecar.directory))
        running.__init__(mesh, running.sidecar)
        running.start()
        time.sleep(1.0)
        with pytest.raises(OSError):
            socket.create_connection(running.sidecar.ingress, timeout=1).close()
        assert running.admin("/ready")[0] == 503
    finally:
        running.stop()
        del mesh.sidecars["thief"]
        mesh.endpoints.pop("web")


def test_an_endpoint_of_a_foreign_ca_is_not_talked_to(mesh):
    """A server with the right name from another CA: the egress refuses it."""
    import ssl
    import tempfile
    from datetime import UTC, datetime, timedelta

    from cryptography.hazmat.primitives import serialization
    from tests.support import identity

    from everyhop.x509.certificates import certificates_to_pem

    key, now = identity.new_key(), datetime.now(UTC)
    leaf = foreign_ca().leaf(
        key=key,
        uri=mesh.spiffe_id("orders"),
        not_before=now - timedelta(hours=1),
        not_after=now + timedelta(hours=1),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificates_to_pem([leaf]))
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        file.flush()
        context.load_cert_chain(file.name)
    context.set_alpn_protocols(["h2"])
    places, sidecar = dict(mesh.endpoints), mesh.sidecars["storefront"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        received = []

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    raw, _ = server.accept()
                    with (
                        contextlib.suppress(OSError),
                        context.wrap_socket(raw, server_side=True) as connection,
                    ):
                        received.append(connection.recv(1000))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        mesh.endpoints["orders"] = (server.getsockname(),)
        try:
            sidecar.apply(mesh.snapshot)

            def ask():
                with unix(sidecar.sidecar.egress_socket) as connection:
                    answer = exchange(connection, request_bytes("GET", "/orders"))
                return answer if answer[0] == 503 else None

            _, headers, _ = wait_for(ask)
            assert sidecar.record(headers["x-everyhop-decision"]).reason == "untrusted-server"
        finally:
            mesh.endpoints = places
            sidecar.apply(mesh.snapshot)
            server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    assert not any(received)  # no request left this side


def test_a_second_envoy_does_not_share_the_port():
    with Mesh(POLICY) as mesh:
        first = mesh.sidecar("orders")
        second = mesh.sidecar("web", ingress=first.sidecar.ingress, ready=False)
        wait_for(lambda: "Address already in use" in second.output(), seconds=5)
