# SPDX-License-Identifier: Apache-2.0
"""Proxies that are not ours, real ones, configured by the blocks of docs/guides/proxies.md."""

from __future__ import annotations

import asyncio
import ctypes
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from tests.support.envoy_pair import free_port, wait_for
from tests.support.tokens import DOMAIN, ISSUER, KEYS
from tests.support.workloads import RealClock

from everyhop.api.authorizer_grpc import GrpcAuthorizer, grpc_authorizer
from everyhop.api.authorizer_http import KEEP_ALIVE_SECONDS, HttpAuthorizer
from everyhop.api.http import http_server, serve_until_stopped
from everyhop.control.asking import AskingProxy
from everyhop.control.policy_view import PolicyView
from everyhop.dataplane.log_lines import record_of
from everyhop.runtime.authorizer_worker import Worker, _nobody, refuse_single_use
from everyhop.tokens.verifier import TokenVerifier
from everyhop.wire.sockets import UnixListener
from everyhop.x509.certificates import certificates_to_pem
from everyhop.x509.csr import build_csr
from everyhop.x509.keys import generate_private_key

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "proxies.md"
_BLOCK = re.compile(r"<!-- block: (?P<name>[a-z-]+) -->\n```[a-z]+\n(?P<text>.*?)```", re.DOTALL)


def blocks():
    """The configurations of the guide that are meant to be run, by name."""
    return {match["name"]: match["text"] for match in _BLOCK.finditer(GUIDE.read_text(encoding="utf-8"))}


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Authorizer:
    """The product's worker, in a mesh's event loop, on two sockets; ``proxies`` are who may ask."""

    def __init__(self, mesh, *proxies, name="authorizer", **limits):
        self.mesh = mesh
        self.grpc = mesh.root / f"{name}.sock"
        self.http = mesh.root / f"{name}-http.sock"
        self.spool = mesh.root / f"{name}-spool"
        self._proxies = {p.uid: p for p in proxies or [AskingProxy(uid=os.getuid(), services=("orders",))]}
        self._limits = limits

    def __enter__(self):
        self.mesh.call(self._start)
        return self

    def __exit__(self, *exc_info):
        self.mesh.call(self._stop)

    async def _start(self):
        self.worker = Worker(directory=self.spool, clock=RealClock(), spend=refuse_single_use)
        self._apply()
        over_grpc = GrpcAuthorizer(self.worker.decisions, self._proxies, **self._limits)
        over_http = HttpAuthorizer(self.worker.decisions, self._proxies, **self._limits)
        self._listeners = [UnixListener.bind(path, mode=0o666) for path in (self.grpc, self.http)]
        self._server = grpc_authorizer(over_grpc)
        await self._server.start(self._listeners[0])
        self._web = http_server(_nobody, admit=over_http.application, keep_alive=KEEP_ALIVE_SECONDS)
        self._serving = asyncio.create_task(serve_until_stopped(self._web, self._listeners[1].sock))

    def _apply(self):
        snapshot = self.mesh.snapshot
        view = PolicyView(snapshot)
        self.worker.credentials.apply_policy(view)
        self.worker.credentials.apply_verifier(
            TokenVerifier(KEYS, issuer=ISSUER, trust_domain=DOMAIN, clock=RealClock())
        )
        self.worker.decisions.apply_policy(view)
        self.worker.callers.apply_bundle(self.mesh.authority.bundle())

    async def _stop(self):
        await self._server.close()
        self._web.stop()
        await self._serving
        for listener in self._listeners:
            listener.close()
        self.worker.log.close()

    def records(self):
        log = self.spool / "access.log"
        lines = log.read_bytes().split(b"\n")[:-1] if log.exists() else []
        return [record_of(line, instance="authorizer", seq=n) for n, line in enumerate(lines, 1)]

    def record(self, decision):
        (found,) = [record for record in self.records() if record.id == decision]
        return found


def write_svid(mesh, service, directory):
    """What `everyhop svid fetch SERVICE --write` writes."""
    directory.mkdir(parents=True, exist_ok=True)
    key = generate_private_key()
    signed = mesh.authority.sign(mesh.spiffe_id(service), build_csr(key))
    (directory / "svid.pem").write_bytes(certificates_to_pem(signed.chain))
    (directory / "bundle.pem").write_bytes(certificates_to_pem(mesh.authority.certificates))
    (directory / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return directory


class Process:
    """A proxy as a child; ``port`` is where it listens."""

    def __init__(self, mesh, argv, port, log):
        self.mesh = mesh
        self.port = port
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  # one system call, no locks
            )
        try:
            wait_for(self._listens, seconds=20, what=f"{argv[0]} listens")
        except BaseException:
            self.stop()
            raise

    def _listens(self):
        assert self.process.poll() is None, self._log.read_text(errors="replace")[-4000:]
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.stop()

    def connect(self, context):
        """A TLS connection to it."""
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return context.wrap_socket(raw)
        except BaseException:
            raw.close()
            raise


def substitute(text, replacements):
    """Put a test's places into a block; each must be there."""
    for old, new in replacements.items():
        assert old in text, f"the guide's block has no {old!r}"
        text = text.replace(old, str(new))
    return text


def foreign_envoy(mesh, authorizer, *, form="envoy", service="orders", change=None):
    """Start an Envoy of the guide's configuration before the echo application of a service."""
    port, name = free_port(), f"foreign-{form}-{free_port()}"
    directory = write_svid(mesh, service, mesh.root / name)
    text = substitute(
        blocks()["envoy"],
        {
            "port_value: 8443": f"port_value: {port}",
            "/etc/proxy/everyhop": directory,
            "orders.shop.example": service,
            "socket_address: {address: 127.0.0.1, port_value: 8080}": f"pipe: {{path: {mesh.root / service}.app}}",
            "/var/lib/everyhop/run/authorizer.sock": authorizer.grpc,
        },
    )
    config = yaml.safe_load(text)
    if form == "envoy-http":
        _ask_over_http(config, authorizer)
    _be_patient(config)
    if change is not None:
        change(config)
    config["admin"] = {"address": {"pipe": {"path": str(directory / "admin.sock"), "mode": 0o600}}}
    return _start_envoy(mesh, config, directory, port)


def door(mesh, authorizer, *, service="orders"):
    """Start the guide's door on TCP."""
    port = free_port()
    directory = write_svid(mesh, service, mesh.root / f"door-{port}")
    text = substitute(
        blocks()["door"],
        {
            "port_value: 9443": f"port_value: {port}",
            "/etc/proxy/everyhop": directory,
            "timeout: 0.5s": "timeout: 15s",
            "/var/lib/everyhop/run/authorizer.sock": authorizer.grpc,
        },
    )
    return _start_envoy(mesh, yaml.safe_load(text), directory, port)


def manager_of(config):
    """The connection manager of a bootstrap."""
    (chain,) = config["static_resources"]["listeners"][0]["filter_chains"]
    return chain["filters"][0]["typed_config"]


def _be_patient(config):
    """Wait longer for the authorizer than the guide does: it shares a busy machine, and a thread, with the test."""
    asking = manager_of(config)["http_filters"][0]["typed_config"]
    place = asking["grpc_service"] if "grpc_service" in asking else asking["http_service"]["server_uri"]
    assert place["timeout"] == "0.5s"
    place["timeout"] = "15s"


def _ask_over_http(config, authorizer):
    filters = manager_of(config)["http_filters"]
    filters[0] = yaml.safe_load(blocks()["envoy-http"])
    (cluster,) = [c for c in config["static_resources"]["clusters"] if c["name"] == "authorizer"]
    cluster["name"] = cluster["load_assignment"]["cluster_name"] = "authorizer-http"
    del cluster["typed_extension_protocol_options"]
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    endpoint["address"]["pipe"]["path"] = str(authorizer.http)


def _start_envoy(mesh, config, directory, port):
    file = directory / "envoy.yaml"
    file.write_text(yaml.safe_dump(config))
    argv = [
        str(mesh.envoy),
        "-c",
        str(file),
        "--use-dynamic-base-id",
        "--concurrency",
        "1",
        "-l",
        "warning",
    ]
    return Process(mesh, argv, port, directory / "log")


NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def foreign_nginx(mesh, authorizer, *, service="orders", change=lambda text: text, user="root"):
    """Start nginx with the guide's server in the foreground; as root, its workers are of ``user``."""
    if NGINX is None:
        pytest.skip("no nginx on this machine (`make peers` installs it)")
    port = free_port()
    directory = write_svid(mesh, service, mesh.root / f"foreign-nginx-{port}")
    server = substitute(
        change(blocks()["nginx"]),
        {
            "127.0.0.1:8443": f"127.0.0.1:{port}",
            "/etc/proxy/everyhop": directory,
            "orders.shop.example": service,
            "http://127.0.0.1:8080": f"http://unix:{mesh.root / service}.app",
            "timeout   500ms": "timeout   15s",
            "timeout      1s": "timeout      15s",
            "/var/lib/everyhop/run/authorizer-http.sock": authorizer.http,
        },
    )
    workers = f"user {user};" if os.getuid() == 0 else ""
    temporary = "\n".join(
        f"    {kind}_temp_path {directory}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(
        f"""\
{workers}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log info;
events {{ worker_connections 256; }}
http {{
    access_log off;
{temporary}
{server}
}}
"""
    )
    argv = [
        NGINX,
        "-c",
        str(directory / "nginx.conf"),
        "-e",
        str(directory / "error.log"),
        "-p",
        str(directory),
    ]
    return Process(mesh, argv, port, directory / "log")


def read_answer(connection):
    """One HTTP/1.1 answer: status, headers (lower case), body."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    body = answer.read()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body
