# SPDX-License-Identifier: Apache-2.0
"""Real sidecars without an agent process: a CA, the product's SDS server, an echo application, and raw clients."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

from cryptography.hazmat.primitives import serialization
from tests.support import identity
from tests.support.echo_app import serve_echo
from tests.support.workloads import AuthorityForTests, FakeControlPlane, FixedEntropy, RealClock

from everyhop.agent import Changes, IdentityCache
from everyhop.authz.requirements import Grants
from everyhop.core.errors import AttestationError
from everyhop.core.secret import Secret
from everyhop.dataplane.configuration import load_configuration
from everyhop.dataplane.envoy import envoy_argv, locate_envoy
from everyhop.dataplane.files import write_files
from everyhop.dataplane.lanes import carried_by
from everyhop.dataplane.log_lines import record_of
from everyhop.dataplane.model import AppSocket, Limits, Sidecar
from everyhop.dataplane.render import render_sidecar
from everyhop.dataplane.sds import SecretDiscovery, secrets_server
from everyhop.policy import parse_policy
from everyhop.policy.access import AccessIndex
from everyhop.spiffe.ids import SpiffeId
from everyhop.wire.sockets import UnixListener
from everyhop.x509.certificates import certificates_to_pem
from everyhop.x509.csr import build_csr
from everyhop.x509.keys import generate_private_key

SECRET = b"s3cret-of-the-launch"
DOMAIN = "shop.example"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition, *, seconds=10.0, what=""):
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if value := condition():
                return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
        time.sleep(0.01)


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Running:
    """One Envoy with its sidecar."""

    def __init__(self, mesh, sidecar, *, envoy=None):
        self.mesh = mesh
        self.sidecar = sidecar
        self._argv = envoy_argv(mesh.envoy, sidecar, flush_ms=20, log_level="warning")
        self._output = (mesh.root / f"{sidecar.instance}.envoy.log").open("wb")
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            self._argv,
            stdout=self._output,
            stderr=self._output,
            preexec_fn=_die_with_parent,  # noqa: PLW1509  # one system call, no locks
        )
        return self

    def admin(self, path, method="GET"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(str(self.sidecar.admin_socket))
            connection = http.client.HTTPConnection("envoy")
            connection.sock = sock
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def ready(self):
        wait_for(
            lambda: self._alive() and self.admin("/ready")[0] == 200, what=f"{self.sidecar.instance} ready"
        )
        return self

    def _alive(self):
        assert self.process.poll() is None, self.output()
        return True

    def output(self):
        return (self.mesh.root / f"{self.sidecar.instance}.envoy.log").read_text(errors="replace")

    def apply(self, snapshot, **changed):
        """Put a policy in force in this sidecar; return the names of the files written."""
        self.sidecar = replace(self.sidecar, **changed)
        files = render_sidecar(
            snapshot,
            self.sidecar,
            self.mesh.endpoints,
            index=AccessIndex(snapshot),
            epoch=self.mesh.epoch,
            carried=self.mesh.carried(snapshot, self.sidecar.service),
        )
        written = write_files(self.sidecar.directory, files)
        configs = self.mesh.secrets.configs
        self.mesh.call(configs.publish, self.sidecar.instance, load_configuration(self.sidecar.directory))
        return written

    def lines(self, count=0, *, since=0, seconds=3.0):
        """Return the records of its access log (from byte ``since`` on) once there are at least ``count``."""

        def read():
            raw = self.sidecar.access_log.read_bytes() if self.sidecar.access_log.exists() else b""
            found = raw[since:].split(b"\n")[:-1]
            return [(line,) for line in found] if len(found) >= count else None

        found = wait_for(read, seconds=seconds, what=f"{count} lines") if count else (read() or [])
        return [record_of(line, instance=self.sidecar.instance, seq=n) for n, (line,) in enumerate(found, 1)]

    def log_size(self):
        return self.sidecar.access_log.stat().st_size

    def record(self, decision_id, *, seconds=3.0):
        """Return the record with an id."""
        return wait_for(
            lambda: next((r for r in self.lines() if r.id == decision_id), None),
            seconds=seconds,
            what=f"a record {decision_id}",
        )

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._output.close()


class Mesh:
    """A trust domain of sidecars under one policy; use ``with``."""

    def __init__(self, policy, *, limits=None, tokens=None):
        self.root = Path(tempfile.mkdtemp(prefix="ehm-", dir="/tmp"))
        self.envoy = locate_envoy()
        self.snapshot = parse_policy({"policy.yaml": policy.encode() if isinstance(policy, str) else policy})
        self.limits = limits or Limits()
        self.authority = AuthorityForTests(RealClock())
        self.tokens = tokens
        self.epoch = "0"
        self.endpoints = {}
        self.sidecars = {}
        self.apps = {}
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc_info):
        for running in self.sidecars.values():
            running.stop()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        shutil.rmtree(self.root, ignore_errors=True)

    # -- inside the loop: SDS and applications

    def _serve(self):
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main())
        finally:
            self._loop.close()

    async def _main(self):
        self._stop = asyncio.Event()
        self.changes = Changes()
        self.identities = IdentityCache(
            control=FakeControlPlane(self.authority),
            clock=RealClock(),
            entropy=FixedEntropy(),
            changes=self.changes,
        )
        self.identities.apply_bundle(self.authority.bundle(), self.authority.name)
        self.secrets = SecretDiscovery(
            identities=self.identities,
            launches=self,
            workloads=self,
            changes=self.changes,
            tokens=self.tokens,
        )
        await self.serve()
        renewing = asyncio.create_task(self.identities.run())
        self._ready.set()
        await self._stop.wait()
        await self.stop_serving()
        renewing.cancel()
        for app in self.apps.values():
            app.close()
        await asyncio.gather(renewing, return_exceptions=True)

    async def serve(self):
        """Serve configuration and secrets to sidecars."""
        self._server = secrets_server(self.secrets)
        self._listener = UnixListener.bind(self.root / "sds.sock", mode=0o600)
        await self._server.start(self._listener)

    async def stop_serving(self):
        """Be away, as an agent that was killed."""
        await self._server.close()
        self._listener.close()

    def check_sidecar(self, peer, instance):
        """Stand in for the launch registry: the process must be the Envoy that was started under this name."""
        running = next((r for r in self.sidecars.values() if r.sidecar.instance == instance), None)
        if running is None or running.process is None or running.process.pid != peer.pid:
            raise AttestationError(f"no sidecar {instance}")
        return SimpleNamespace(service=running.sidecar.service, instance=instance)

    def carried(self, snapshot, service):
        """Return what the sidecars of a service can carry now."""
        if self.tokens is None or service not in snapshot.services:
            return None
        audiences = Grants(snapshot).audiences(service)
        return self.call(carried_by, self.tokens, snapshot.services[service].spiffe_id, audiences)

    def call(self, function, *arguments):
        async def run():
            result = function(*arguments)
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(20)

    # -- what a test does

    def app(self, service):
        """Start an echo application for a service; return its socket."""
        path = self.root / f"{service}.app"
        self.apps[service] = self.call(serve_echo, path)
        return path

    def sidecar(self, service, *, app=True, ready=True, name=None, **changed):
        """Start a sidecar of a service with its application."""
        instance = name or service
        directory = self.root / instance
        (directory / "spool").mkdir(parents=True)
        socket_path = self.root / f"{service}.app"
        if app and service not in self.apps:
            self.app(service)
        sidecar = Sidecar(
            instance=instance,
            service=service,
            node="test",
            directory=directory / "envoy",
            ingress=("127.0.0.1", free_port()),
            egress_port=free_port(),
            egress_socket=directory / "egress.sock",
            egress_secret=Secret(SECRET),
            app=AppSocket(socket_path) if app else None,
            sds_socket=self.root / "sds.sock",
            access_log=directory / "spool" / "access.log",
            admin_socket=directory / "admin.sock",
            uid=os.getuid(),
            limits=self.limits,
        )
        running = self.sidecars[instance] = Running(self, replace(sidecar, **changed))
        places = (*self.endpoints.get(service, ()), running.sidecar.ingress)
        self.endpoints[service] = places
        for other in self.sidecars.values():
            other.apply(self.snapshot)
        running.start()
        return running.ready() if ready else running

    def apply(self, policy=None):
        """Put another policy in force everywhere, or whatever else has changed."""
        if policy is not None:
            self.snapshot = parse_policy({"policy.yaml": policy.encode()})
        self.call(self.changes.bump)
        return {name: running.apply(self.snapshot) for name, running in self.sidecars.items()}

    def rotate(self, *, publish_only=False):
        """Make a new CA; it signs at once unless it is only published."""
        before = self.authority.name, self.authority.issuer
        self.call(self.authority.rotate)
        self.authority.newest = self.authority.issuer
        if publish_only:
            self.authority.name, self.authority.issuer = before
        self.call(self.identities.apply_bundle, self.authority.bundle(), self.authority.name)

    def renew(self, service):
        """Give a service another certificate of the same authority; return it once it is there."""
        spiffe_id = self.snapshot.services[service].spiffe_id
        before = self.call(self.identities.current, spiffe_id)

        async def renew():
            self.identities._entries[spiffe_id].renew_now = True
            await self.identities.renew_due()

        self.call(renew)
        after = self.call(self.identities.current, spiffe_id)
        assert after.x5t != before.x5t
        return after

    def spiffe_id(self, service):
        return f"spiffe://{DOMAIN}/service/{service}"

    def client(self, service="", *, uri=None, alpn=("http/1.1",)):
        """Return a TLS context that shows an SVID signed by this CA."""
        key = generate_private_key()
        signed = self.authority.sign(uri or self.spiffe_id(service), build_csr(key))
        return self.context(signed.chain[0], key, alpn=alpn)

    def context(self, certificate_der, key, *, alpn=("http/1.1",)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=certificates_to_pem(self.authority.certificates).decode())
        if certificate_der is not None:
            with tempfile.NamedTemporaryFile(dir=self.root) as file:
                file.write(certificates_to_pem([certificate_der]))
                file.write(
                    key.private_bytes(
                        serialization.Encoding.PEM,
                        serialization.PrivateFormat.PKCS8,
                        serialization.NoEncryption(),
                    )
                )
                file.flush()
                context.load_cert_chain(file.name)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def connect(self, target, context):
        """Return a TLS connection to the ingress of a sidecar."""
        raw = socket.create_connection(self.sidecars[target].sidecar.ingress, timeout=5)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return context.wrap_socket(raw)
        except BaseException:
            raw.close()
            raise


def foreign_ca(**changed):
    """A CA that nobody trusts (with another key), valid now."""
    now = datetime.now(UTC)
    validity = {"not_before": now - timedelta(hours=1), "not_after": now + timedelta(hours=1)}
    return identity.TestCa(**{**validity, **changed})


def exchange(connection, raw, *, until_close=False):
    """Send bytes and return one HTTP/1.1 answer: (status, headers, body)."""
    connection.sendall(raw)
    return read_response(connection, until_close=until_close)


def read_response(connection, *, until_close=False):
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    body = answer.read()
    return answer.status, {k.lower(): v for k, v in answer.getheaders()}, body


def request_bytes(method, path, *, host="orders", headers=(), body=b""):
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{k}: {v}" for k, v in headers)]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def problem(body):
    return json.loads(body)


__all__ = [
    "DOMAIN",
    "SECRET",
    "Mesh",
    "Running",
    "SpiffeId",
    "exchange",
    "foreign_ca",
    "free_port",
    "problem",
    "read_response",
    "request_bytes",
    "wait_for",
]
