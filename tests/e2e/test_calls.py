# SPDX-License-Identifier: Apache-2.0
"""A newcomer's path: services that know nothing of everyhop, calls between them, and why one is refused."""

from __future__ import annotations

import json
import shutil
import stat
import sys
import time

import pytest
from trust_domain import TrustDomainUnderTest, trust_domain, wait_until

from everyhop.runtime.layout import StateLayout

CURL = ("curl", "-sS", "--max-time", "10")


def _newest(domain: TrustDomainUnderTest, **query: object) -> dict[str, object]:
    found = wait_until(lambda: domain.records(**query), what="a record")
    return dict(found[-1])


# -- refused


def test_a_call_beyond_the_policy_is_refused_and_explained(domain: TrustDomainUnderTest) -> None:
    done = domain.once(
        "storefront", *CURL, "-X", "POST", "-d", "{}", "-w", "\n%{http_code}", "http://orders/orders"
    )
    body, status = done.stdout.rsplit("\n", 1)
    assert status == "403"
    problem = json.loads(body)
    assert set(problem) <= {"type", "title", "status", "code", "decision"}
    record = wait_until(
        lambda: [r for r in domain.records(service="orders") if r["id"] == problem["decision"]],
        what="the record",
    )[0]
    assert record["decision"] == "deny"
    assert record["reason"] == "no-rule"
    assert record["operation"] == "create"
    assert record["caller"] == "spiffe://shop.example/service/storefront"
    assert record["snapshot"] == domain.status()["snapshot"]
    why = domain.cli("why", str(problem["decision"]))
    assert "no rule lets storefront call create" in why
    assert "{from: storefront, to: orders, operations: [create]}" in why


def test_an_undeclared_destination_is_refused_at_the_egress(domain: TrustDomainUnderTest) -> None:
    done = domain.once("storefront", *CURL, "-w", "\n%{http_code}", "http://example.com/")
    assert done.stdout.rsplit("\n", 1)[1] == "403"
    assert "UNDECLARED_DESTINATION" in done.stdout


def test_a_service_without_rights_does_not_even_get_a_route(domain: TrustDomainUnderTest) -> None:
    done = domain.once("intruder", *CURL, "-w", "\n%{http_code}", "http://orders/orders")
    assert done.stdout.rsplit("\n", 1)[1] == "403"


def test_a_service_that_run_may_not_start_is_refused(domain: TrustDomainUnderTest) -> None:
    done = domain.once("nobody", "true")
    assert done.returncode == 6
    assert "no service 'nobody'" in done.stderr


def test_the_proxy_needs_the_secret_of_this_launch(domain: TrustDomainUnderTest) -> None:
    script = (
        "import os,urllib.parse,urllib.request as u\n"
        "p=urllib.parse.urlsplit(os.environ['HTTP_PROXY'])\n"
        "for user in ('', 'storefront:wrong@'):\n"
        "    o=u.build_opener(u.ProxyHandler({'http':f'http://{user}{p.hostname}:{p.port}'}))\n"
        "    try: print(o.open('http://orders/orders').status)\n"
        "    except u.HTTPError as e: print(e.code)\n"
    )
    done = domain.once("storefront", sys.executable, "-c", script)
    assert done.stdout.split() == ["407", "407"]


# -- allowed


def test_a_call_reaches_the_application_with_a_verified_caller(domain: TrustDomainUnderTest) -> None:
    done = domain.once(
        "storefront",
        *CURL,
        "-H",
        "x-everyhop-caller: spiffe://shop.example/service/admin",
        "http://orders/orders/7",
    )
    seen = json.loads(done.stdout)
    headers = [value for name, value in seen["headers"] if name == "x-everyhop-caller"]
    assert headers == ["spiffe://shop.example/service/storefront"]
    assert [v for n, v in seen["headers"] if n == "x-everyhop-operation"] == ["read"]
    decision = next(v for n, v in seen["headers"] if n == "x-everyhop-decision")
    record = wait_until(lambda: [r for r in domain.records() if r["id"] == decision], what="the record")[0]
    assert record["rule"] == "allow[0]"
    assert record["decision"] == "allow"
    assert record["latency_ms"] >= 0


def test_the_unix_socket_of_the_egress_needs_no_secret(domain: TrustDomainUnderTest) -> None:
    done = domain.once(
        "storefront",
        "sh",
        "-c",
        'env -u HTTP_PROXY -u http_proxy curl -sS --unix-socket "$EVERYHOP_EGRESS" http://orders/orders',
    )
    assert json.loads(done.stdout)["path"] == "/orders"


def test_a_service_on_a_port_works_and_is_warned_about(domain: TrustDomainUnderTest) -> None:
    process = domain.serve(how="port")
    try:
        instance = domain.ready("orders")[-1]
        assert {i["app"] for i in domain.ready("orders")} == {"unix", "port"}
        assert instance["svid_expires_at"]
        warning = max(domain.root.glob("orders-*.err"), key=lambda p: p.stat().st_mtime).read_text()
        assert "any local process can reach it" in warning
    finally:
        domain.stop(process)
    wait_until(lambda: len(domain.ready("orders")) == 1, what="one instance again")


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_a_node_service_that_knows_nothing_of_everyhop(domain: TrustDomainUnderTest) -> None:
    script = (
        "require('http').createServer((q,s)=>s.end(JSON.stringify({node:q.headers['x-everyhop-caller']})))"
        ".listen(process.env.EVERYHOP_SOCKET)"
    )
    process = domain.run("orders", "node", "-e", script)
    try:
        answers = {domain.once("storefront", *CURL, "http://orders/orders").stdout for _ in range(6)}
        assert '{"node":"spiffe://shop.example/service/storefront"}' in answers
    finally:
        domain.stop(process)


def test_call_speaks_for_the_owner(domain: TrustDomainUnderTest) -> None:
    answer = domain.json("call", "orders", "GET", "/orders/9", "--as", "storefront")
    assert answer["status"] == 200
    assert json.loads(answer["body"])["path"] == "/orders/9"
    assert domain.json("call", "orders", "POST", "/orders", "--as", "storefront", code=3)["status"] == 403
    assert (
        domain.json("call", "orders", "GET", "/orders/../orders", "--as", "storefront", code=1)["status"]
        == 400
    )


def test_exit_code_and_signals_pass_through(domain: TrustDomainUnderTest) -> None:
    assert domain.once("storefront", "sh", "-c", "exit 42").returncode == 42
    process = domain.run(
        "storefront",
        "sh",
        "-c",
        "trap 'echo got; exit 7' TERM; echo up; while :; do sleep 0.05; done",
        wait=False,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    assert domain.stop(process) == 7
    assert process.stdout.read() == "got\n"


def test_commands_show_the_truth(domain: TrustDomainUnderTest) -> None:
    status = domain.json("status")
    assert status["trust_domain"] == "shop.example"
    assert status["services"]["orders"]["spiffe_id"] == "spiffe://shop.example/service/orders"
    assert domain.json("entry", "list")[0]["selectors"]
    assert [k["state"] for k in domain.json("keys", "list")["authorities"]].count("active") == 2
    assert json.loads(domain.cli("bundle", "show"))["keys"]
    sidecar = json.loads(domain.cli("envoy", "show", "orders"))
    assert any("xds/lds.json" in files for files in sidecar.values())
    shown = domain.json("svid", "show", "orders")
    assert shown["spiffe_id"] == "spiffe://shop.example/service/orders"
    assert "ok" in domain.cli("doctor", code=None)
    out = domain.root / "svid"
    domain.cli("svid", "fetch", "orders", "--write", str(out))
    assert stat.S_IMODE((out / "key.pem").stat().st_mode) == 0o600
    assert domain.cli("svid", "fetch", "orders", "--audience", "elsewhere").count(".") == 2


def test_why_of_a_process_without_an_identity(domain: TrustDomainUnderTest) -> None:
    import os

    text = domain.cli("why", "--pid", str(os.getpid()), code=3)
    assert f"unix:uid:{os.getuid()}" in text
    assert "no identity" in text
    pid = domain.ready("orders")[0]["pid"]
    assert "spiffe://shop.example/service/orders" in domain.cli("why", "--pid", str(pid))


def test_no_secret_in_process_list_logs_or_open_files(domain: TrustDomainUnderTest) -> None:
    secret = domain.once("storefront", "sh", "-c", "echo $HTTP_PROXY").stdout.split(":")[2].split("@")[0]
    process = domain.run("storefront", "sh", "-c", "echo $HTTP_PROXY; sleep 30", wait=False)
    assert process.stdout is not None
    secret = process.stdout.readline().split(":")[2].split("@")[0]
    try:
        layout = StateLayout(domain.state)
        for path in layout.root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                assert secret.encode() not in content, path
                assert b"PRIVATE KEY" not in content, path
        for path in layout.root.rglob("*"):
            if path.is_file():
                assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
        for socket_path, mode in (
            (layout.workload_socket, 0o777),
            (layout.admin_socket, 0o600),
            (layout.sds_socket, 0o600),
        ):
            assert stat.S_IMODE(socket_path.stat().st_mode) == mode
        listing = "".join(
            (p / "cmdline").read_bytes().decode("latin-1")
            for p in __import__("pathlib").Path("/proc").glob("[0-9]*")
            if (p / "cmdline").exists()
        )
        assert secret not in listing
    finally:
        domain.stop(process)


def test_log_tail_and_filters(domain: TrustDomainUnderTest) -> None:
    domain.json("call", "orders", "GET", "/nowhere", "--as", "intruder", code=3)
    wait_until(lambda: domain.records(caller="spiffe://shop.example/service/intruder"), what="the record")
    lines = domain.cli("log", "show", "--denied", "--service", "orders", "-o", "json").splitlines()
    records = [json.loads(line) for line in lines]
    assert records
    assert all(list(r)[:2] == ["id", "time"] and "rule" in r for r in records)
    assert all(r["decision"] == "deny" and r["target"] == "orders" for r in records)
    assert all(
        {"id", "time", "caller", "target", "method", "path", "decision", "reason", "snapshot", "status"}
        <= set(r)
        for r in records
    )
    assert domain.cli("log", "show", "--rule", "allow[0]", "-n", "1").count("\n") == 1


def test_a_large_upload_and_a_slow_start(domain: TrustDomainUnderTest) -> None:
    begun = time.monotonic()
    domain.edit_policy("operations: [list, read]", "operations: [list, read, create]")
    domain.wait_applied(domain.status()["snapshot"]) if time.monotonic() - begun > 2 else wait_until(
        lambda: domain.cli("can", "storefront", "POST /orders", "orders", code=None).startswith("allow"),
        what="applied",
    )
    done = domain.once(
        "storefront",
        "sh",
        "-c",
        "head -c 3000000 /dev/zero | tr '\\0' x | curl -sS --data-binary @- http://orders/orders | wc -c",
    )
    assert int(done.stdout) > 3_000_000


def test_tcp_service() -> None:
    policy = """\
version: 1
trust_domain: shop.example
services:
  orders: {workload: [{run: true}]}
  intruder: {workload: [{run: true}]}
  ledger: {workload: [{run: true}], tcp: 5432}
allow:
  - {from: orders, to: ledger}
"""
    server = (
        "import os,socketserver\n"
        "class H(socketserver.StreamRequestHandler):\n"
        "    def handle(self):\n"
        "        self.wfile.write(b'ledger ready\\n')\n"
        "        for line in self.rfile: self.wfile.write(b'ok '+line)\n"
        "class S(socketserver.ThreadingMixIn, socketserver.UnixStreamServer): daemon_threads=True\n"
        "S(os.environ['EVERYHOP_SOCKET'],H).serve_forever()\n"
    )
    client = (
        "import os,socket,base64,urllib.parse\n"
        "p=urllib.parse.urlsplit(os.environ['HTTP_PROXY'])\n"
        "s=socket.create_connection((p.hostname,p.port),timeout=5)\n"
        "a=base64.b64encode(f'{p.username}:{p.password}'.encode()).decode()\n"
        "s.sendall(f'CONNECT ledger:5432 HTTP/1.1\\r\\nhost: ledger:5432\\r\\nproxy-authorization: Basic {a}\\r\\n\\r\\n'.encode())\n"
        "f=s.makefile('rwb'); print(f.readline().decode().strip())\n"
        "while f.readline().strip(): pass\n"
        "print(f.readline().decode().strip()); f.write(b'hello\\n'); f.flush(); print(f.readline().decode().strip())\n"
    )
    with trust_domain(policy) as own:
        own.run("ledger", sys.executable, "-c", server)
        done = own.once("orders", sys.executable, "-c", client)
        assert done.stdout.splitlines()[0].split()[1] == "200", done
        assert done.stdout.splitlines()[1:] == ["ledger ready", "ok hello"]
        refused = own.once("intruder", sys.executable, "-c", client)
        assert "ledger ready" not in refused.stdout
        allowed = wait_until(lambda: own.records(service="ledger", decision="allow"), what="a record")
        assert allowed[-1]["caller"] == "spiffe://shop.example/service/orders"


def test_a_handshake_that_fails_is_a_record_too(domain: TrustDomainUnderTest) -> None:
    import socket
    import ssl

    host, _, port = domain.ready("orders")[0]["ingress"].rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection((host, int(port)), timeout=5) as plain,
        context.wrap_socket(plain) as secure,
        pytest.raises(ssl.SSLError),
    ):
        secure.sendall(b"GET /orders HTTP/1.1\r\nhost: orders\r\n\r\n")
        secure.recv(100)
    found = wait_until(
        lambda: [r for r in domain.records(service="orders") if r["reason"] == "untrusted-client"],
        what="the record",
    )
    assert found[-1]["decision"] == "deny"
    assert "failure" in found[-1]["detail"]
    assert "untrusted-client" in domain.cli("why", found[-1]["id"])
