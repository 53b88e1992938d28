# SPDX-License-Identifier: Apache-2.0
"""``everyhop up`` with authorizers: a foreign Envoy before an application, the records, and the death of each process."""

import contextlib
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from tests.support.envoy_pair import exchange, free_port, request_bytes
from tests.support.foreign_proxies import Process, blocks, substitute
from trust_domain import TrustDomainUnderTest, wait_until

from everyhop.dataplane.envoy import locate_envoy

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {workload: [{run: true}]}
  gateway: {workload: [{run: true}]}
  orders:
    workload: [{run: true}]
    operations: {list: GET /orders, create: POST /orders}
allow:
  - {from: storefront, to: orders, operations: [list]}
"""
SETTINGS = f"""\
authorizer_workers = 2

[[authorizers]]
uid = {os.getuid()}
service = "orders"
"""


class Shop(TrustDomainUnderTest):
    """A trust domain whose orders stand behind an Envoy that is not ours."""

    def up(self, *arguments):
        self.state.mkdir(exist_ok=True)
        (self.state / "everyhop.toml").write_text(SETTINGS)
        super().up(*arguments)

    def svid(self, service):
        directory = self.root / service
        directory.mkdir(exist_ok=True)
        self.cli("svid", "fetch", service, "--write", str(directory))
        return directory

    def proxy(self, app):
        port, directory = free_port(), self.svid("orders")
        text = substitute(
            blocks()["envoy"],
            {
                "port_value: 8443": f"port_value: {port}",
                "/etc/proxy/everyhop": directory,
                "orders.shop.example": "orders",
                "socket_address: {address: 127.0.0.1, port_value: 8080}": f"pipe: {{path: {app}}}",
                "/var/lib/everyhop": self.state,
            },
        )
        (directory / "envoy.yaml").write_text(yaml.safe_dump(yaml.safe_load(text)))
        argv = [str(locate_envoy()), "-c", str(directory / "envoy.yaml"), "--use-dynamic-base-id"]
        return Process(None, [*argv, "--concurrency", "1", "-l", "warning"], port, directory / "log")

    def ask(self, proxy, method="GET", path="/orders"):
        directory = self.root / "storefront"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(directory / "bundle.pem")
        context.load_cert_chain(directory / "svid.pem", directory / "key.pem")
        with proxy.connect(context) as connection:
            return exchange(connection, request_bytes(method, path))

    def workers(self):
        """The pids of the processes that answer."""
        agent = self.child_pids()["agent"]
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                if int(path.read_text().rpartition(")")[2].split()[1]) == agent:
                    words = (path.parent / "cmdline").read_bytes().split(b"\0")
                    if b"everyhop.runtime.authorizer_worker" in words:
                        found.append(int(path.parent.name))
        return found


@pytest.fixture(scope="module")
def shop():
    with Shop(POLICY) as started:
        started.svid("storefront")
        yield started


@pytest.fixture(scope="module")
def app(shop):
    path = shop.root / "app.sock"
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).parents[1] / "support" / "echo_service.py"), "unix"],
        env={**shop.environment, "EVERYHOP_SOCKET": str(path)},
    )
    wait_until(path.exists, what="the application listens")
    yield path
    server.terminate()
    server.wait(10)


@pytest.fixture(scope="module")
def proxy(shop, app):
    with shop.proxy(app) as started:
        wait_until(lambda: shop.ask(started)[0] == 200, what="the authorizer answers")
        yield started


def record_of(shop, decision):
    return wait_until(
        lambda: json.loads(shop.cli("why", decision, "-o", "json", code=None) or "null"), what="a record"
    )


def test_the_sockets_are_their_owners(shop):
    for name in ("authorizer.sock", "authorizer-http.sock"):
        mode = (shop.state / "run" / name).stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600


def test_a_refusal_can_be_looked_up(shop, proxy):
    status, headers, body = shop.ask(proxy, "POST")
    assert (status, json.loads(body)["code"]) == (403, "ACCESS_DENIED")
    found = record_of(shop, headers["x-everyhop-decision"])
    assert found["record"]["reason"] == "no-rule"
    assert found["record"]["detail"] == {"form": "envoy", "uid": os.getuid()}
    assert found["record"]["caller"] == "spiffe://shop.example/service/storefront"
    assert "create" in shop.cli("why", headers["x-everyhop-decision"])


def test_an_allowed_call_is_recorded(shop, proxy):
    before = len(shop.cli("log", "show", "-o", "json").splitlines())
    assert shop.ask(proxy)[0] == 200
    wait_until(
        lambda: len(shop.cli("log", "show", "-o", "json").splitlines()) > before, what="one more record"
    )


def test_an_edit_of_the_policy_counts(shop, proxy):
    assert shop.ask(proxy, "POST")[0] == 403
    shop.policy.write_text(POLICY.replace("[list]", "[list, create]"))
    wait_until(lambda: shop.ask(proxy, "POST")[0] == 200, what="the edit counts")
    shop.policy.write_text(POLICY)
    wait_until(lambda: shop.ask(proxy, "POST")[0] == 403, what="the edit is taken back")


def test_workers_that_do_not_answer_let_nothing_pass(shop, proxy):
    workers = wait_until(lambda: w if len(w := shop.workers()) == 2 else None, what="two workers")
    try:
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        assert shop.ask(proxy)[0] == 503
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: shop.ask(proxy)[0] == 200, what="the authorizer answers again")


def test_a_worker_that_dies_is_started_anew_and_both_answer(shop, proxy):
    before = wait_until(lambda: w if len(w := shop.workers()) == 2 else None, what="two workers")
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    assert shop.ask(proxy)[0] in {200, 503}
    wait_until(lambda: shop.ask(proxy)[0] == 200, what="the authorizer answers again")
    after = wait_until(lambda: w if len(w := shop.workers()) == 2 else None, what="two workers")
    assert not set(before) & set(after)


def test_an_agent_that_is_killed_takes_its_workers_along_and_nothing_passes(shop, proxy):
    workers = shop.workers()
    os.kill(shop.up_process.pid, signal.SIGSTOP)  # so that nobody starts it anew meanwhile
    try:
        os.kill(shop.child_pids()["agent"], signal.SIGKILL)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), what="workers end")
        assert shop.ask(proxy)[0] in {403, 503}
    finally:
        os.kill(shop.up_process.pid, signal.SIGCONT)
    wait_until(lambda: shop.ask(proxy)[0] == 200, seconds=40, what="the authorizer answers again")


def test_doctor_tells_of_authorizers(shop):
    findings = {f["check"]: f for f in json.loads(shop.cli("doctor", "-o", "json", code=None))}
    assert findings["authorizers"]["ok"]
    assert "orders" in findings["authorizers"]["detail"]


def test_a_stranger_at_the_socket(shop):
    """The raw protocol: no certificate, no principal, nobody."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(shop.state / "run" / "authorizer-http.sock"))
        status, _, body = exchange(
            sock,
            request_bytes(
                "GET", "/nginx", headers=[("X-Original-Method", "GET"), ("X-Original-URI", "/orders")]
            ),
        )
    assert (status, json.loads(body)["code"]) == (403, "ACCESS_DENIED")
