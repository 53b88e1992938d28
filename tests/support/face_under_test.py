# SPDX-License-Identifier: Apache-2.0
"""A real face: its Envoy, the server's side of it with a real token service, and clients with and without SVIDs."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import dataclasses
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
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode

from everyhop.api.admission_app import AdmissionDoor
from everyhop.apikeys import ApiKeys
from everyhop.authority import Authority, AuthorityKind, AuthoritySettings
from everyhop.authz import Grants
from everyhop.control.feed import Feed, Truth
from everyhop.control.responding import BlocksInForce
from everyhop.dataplane.face_secrets import FaceProcess
from everyhop.issuing import IssuingSettings, PolicyView, SigningKeys, TokenPorts, TokenService
from everyhop.policy import encode_snapshot, parse_policy
from everyhop.providers.keystores import FileKeyStore
from everyhop.runtime.face import face_url, issuer_of, plan_face
from everyhop.runtime.face_door import oauth_door
from everyhop.runtime.face_server import face_service
from everyhop.runtime.layout import StateLayout
from everyhop.runtime.mtls import client_context
from everyhop.runtime.run import envoy_is_ready
from everyhop.runtime.settings import Settings
from everyhop.runtime.system import SystemClock, SystemEntropy
from everyhop.spiffe import SpiffeId
from everyhop.spiffe.bundle import encode_bundle
from everyhop.storage import open_storage
from everyhop.tokens.replay import MemoryReplayGuard
from everyhop.x509.csr import build_csr
from everyhop.x509.keys import encode_private_key, generate_private_key

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {workload: [{run: true}]}
  stranger: {workload: [{run: true}]}
  edge:
    workload: [{run: true}]
    operations:
      enter: GET /enter
  orders:
    workload: [{run: true}]
    operations:
      list: {route: GET /orders, token: required}
      create: {route: POST /orders, token: required}
  payments:
    workload: [{run: true}]
    operations:
      charge: {route: POST /v1/charges, token: operation}
      refund: {route: POST /v1/refunds, token: operation}
allow:
  - {from: storefront, to: orders, operations: [list]}
  - {from: orders, to: payments, operations: [charge]}
  - {from: outside, to: edge, operations: [enter], user: required}
  - {from: edge, to: orders, operations: [list], user: required}
"""


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


@dataclasses.dataclass(frozen=True)
class Held:
    """An X509-SVID with its key, DER."""

    spiffe_id: str
    chain: tuple[bytes, ...]
    key: bytes


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    def header(self, name):
        return next((v for k, v in self.headers if k.lower() == name), None)


class FaceUnderTest:
    """The server's side runs in a thread of this process; Envoy is a child of it."""

    def __init__(self, policy=POLICY, *, x509_ttl=timedelta(hours=1), **settings):
        self.root = Path(tempfile.mkdtemp(prefix="eh-", dir="/tmp"))
        self.layout = StateLayout(self.root / "s")
        self.layout.create()
        self.settings = Settings(**settings)
        self.clock, self.entropy = SystemClock(), SystemEntropy()
        self.snapshot = parse_policy({"everyhop.yaml": policy.encode()})
        self.domain = self.snapshot.trust_domain
        self.storage = open_storage(self.layout.database, entropy=self.entropy)
        keystore = FileKeyStore(self.layout.keys / "kek")
        self.authority = Authority(
            trust_domain=self.domain,
            store=self.storage.authorities,
            keystore=keystore,
            clock=self.clock,
            entropy=self.entropy,
            settings=AuthoritySettings(x509_ttl=x509_ttl),
        )
        self.authority.start()
        self.issuer = issuer_of(self.layout, self.settings)
        self.url = face_url(self.layout, self.settings)
        self.port = int(self.url.rpartition(":")[2])
        issuing = IssuingSettings(issuer=self.issuer, trust_domain=self.domain.name)
        self.keys = SigningKeys(
            store=self.storage.issuing, keystore=keystore, clock=self.clock, settings=issuing
        )
        self.keys.start()
        view = PolicyView(self.snapshot, Grants(self.snapshot))
        self.api_keys = ApiKeys(
            store=self.storage.api_keys,
            keystore=keystore,
            edge_scopes=view.edge_scopes,
            clock=self.clock,
            entropy=self.entropy,
        )
        self.tokens = TokenService(
            TokenPorts(
                keys=self.keys,
                store=self.storage.issuing,
                policy=lambda: view,
                journal=self.storage.token_journal,
                clock=self.clock,
                entropy=self.entropy,
                api_keys=self.api_keys,
            ),
            issuing,
        )
        self.pool = ThreadPoolExecutor(4)
        self.process = None
        self._loop = None
        self._stop = None
        self._thread = None
        self.feed = None
        self.secrets = None

    # -- the server's side

    def start_server(self):
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), daemon=True)
        self._thread.start()
        assert started.wait(10)

    def stop_server(self):
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)
            self._thread = None

    async def _serve(self, started):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.feed = Feed(self.clock)
        self.publish()
        self.blocks = BlocksInForce()
        app = oauth_door(
            self.layout,
            self.settings,
            trust_domain=self.domain,
            tokens=self.tokens,
            journal=self.storage.token_journal,
            replay=MemoryReplayGuard(self.clock),
            snapshot=lambda: self.snapshot,
            feed=self.feed,
            records=self.storage.records,
            api_keys=self.api_keys,
            blocks=self.blocks,
            pool=self.pool,
            exchange_pool=self.pool,
            authzen_pool=self.pool,
            further=AdmissionDoor(records=self.storage.records, clock=self.clock, pool=self.pool).routes()
            if self.settings.admission
            else (),
        )
        async with face_service(
            app,
            authority=self.authority,
            feed=self.feed,
            layout=self.layout,
            settings=self.settings,
            pool=self.pool,
            process=FaceProcess(parent=os.getpid(), uid=os.getuid()),
        ) as self.secrets:
            started.set()
            await self._stop.wait()

    def publish(self):
        bundle = self.authority.bundle()
        active = next(
            e.id
            for e in self.authority.list_authorities()
            if e.kind is AuthorityKind.X509 and e.status == "active"
        )
        values = {
            "snapshot": encode_snapshot(self.snapshot),
            "snapshot_hash": self.snapshot.hash,
            "bundle": encode_bundle(bundle),
            "bundle_sequence": bundle.sequence or 0,
            "authority": active,
            "tokens": b"{}",
            "token_sequence": 0,
        }
        known = {field.name for field in dataclasses.fields(Truth)}
        truth = Truth(**{name: value for name, value in values.items() if name in known})
        if threading.current_thread() is self._thread:
            self.feed.publish(truth)
        else:
            self._loop.call_soon_threadsafe(self.feed.publish, truth)

    # -- Envoy

    def start_envoy(self):
        plan = plan_face(self.layout, self.settings)
        with plan.log.open("ab") as log:
            self.process = subprocess.Popen(
                plan.argv,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  # one system call, no locks
            )
        wait_for(
            lambda: self.process.poll() is not None or envoy_is_ready(str(plan.admin_socket)), what="ready"
        )
        assert self.process.poll() is None, plan.log.read_text()

    def stop_envoy(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        try:
            self.start_server()
            self.start_envoy()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info):
        self.close()

    def close(self):
        self.stop_envoy()
        self.stop_server()
        self.pool.shutdown()
        self.storage.close()
        shutil.rmtree(self.root, ignore_errors=True)

    # -- clients

    def spiffe_id(self, service):
        return f"spiffe://{self.domain}/service/{service}"

    def svid(self, service, *, ttl=None):
        """Return a fresh X509-SVID of a service."""
        key = generate_private_key()
        spiffe_id = self.spiffe_id(service)
        issued = self.authority.issue_x509(SpiffeId.parse(spiffe_id), build_csr(key), ttl)
        return Held(spiffe_id, issued.chain_der, encode_private_key(key).reveal())

    def jwt_svid(self, service, *audience, ttl=None):
        return self.authority.issue_jwt(SpiffeId.parse(self.spiffe_id(service)), audience, ttl).token

    def context(self, held=None, *, alpn=()):
        """Return a client's TLS that trusts the bundle and checks the name of the host."""
        bundle = self.authority.bundle().x509_authorities
        context = client_context(
            () if held is None else held.chain, b"" if held is None else held.key, bundle
        )
        context.check_hostname = True
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def connect(self, context, *, host="127.0.0.1"):
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return context.wrap_socket(raw, server_hostname=host)
        except BaseException:
            raw.close()
            raise

    def raw(self, content, held=None):
        """Send bytes and return one answer."""
        with self.connect(self.context(held)) as secure:
            secure.sendall(content)
            answer = http.client.HTTPResponse(secure)
            answer.begin()
            return Answer(answer.status, answer.getheaders(), answer.read())

    def call(self, method, path, *, held=None, body=None, headers=(), context=None):
        """Make one call over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", timeout=20)
        with self.connect(context or self.context(held)) as secure:
            connection.sock = secure
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("content-length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheaders(), answer.read())

    def form(
        self, path, parameters, *, held=None, headers=(), content_type="application/x-www-form-urlencoded"
    ):
        """Send a form; ``parameters`` are pairs, a mapping, or bytes as they are."""
        body = parameters if isinstance(parameters, bytes) else urlencode(parameters).encode()
        return self.call(
            "POST", path, held=held, body=body, headers=[("content-type", content_type), *headers]
        )

    def token(self, held, **parameters):
        """Ask for a token with client credentials."""
        return self.form("/oauth/token", {"grant_type": "client_credentials", **parameters}, held=held)

    def records(self):
        """Return what the audit log says of tokens, oldest first."""
        from everyhop.auditlog import Kind, Order, RecordFilter

        self.storage.token_journal.flush()
        page = self.storage.records.query(
            RecordFilter(kind=Kind.TOKEN), order=Order.OLDEST, cursor=None, limit=1000
        )
        return list(page.records)


__all__ = ["POLICY", "Answer", "FaceUnderTest", "Held", "ssl", "wait_for"]
