# SPDX-License-Identifier: Apache-2.0
"""The example with three hops, with sidecars and without: each hop has verified the same user and its own caller."""

from __future__ import annotations

import ast
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import urllib.request
from pathlib import Path

import pytest
from trust_domain import TrustDomainUnderTest, wait_until

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "three_hops"
SERVICES = ("storefront", "orders", "billing")
SEEN = ["storefront: alice by shopper", "orders: alice by storefront", "billing: alice by orders"]
MOST_LINES = 10


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetch(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


@pytest.fixture(scope="module")
def provider():
    """The example's own OpenID provider; gives its URL."""
    url = f"http://127.0.0.1:{free_port()}"
    process = subprocess.Popen([sys.executable, str(EXAMPLE / "issuer.py"), url.rpartition(":")[2]])
    try:

        def answers():
            try:
                return fetch(f"{url}/keys")
            except OSError:
                return None

        wait_until(answers, what="the provider answers")
        yield url
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """An interpreter for each service: without sidecars the kernel tells services by their executable."""
    import tempfile

    directory = Path(tempfile.mkdtemp(prefix="ehpy-", dir="/tmp"))
    real = Path(sys.executable).resolve()
    found = {}
    for name in ("shopper", *SERVICES):
        found[name] = directory / f"{name}-python"
        shutil.copy(real, found[name])
    yield found
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def domain(provider, programs):
    policy = (EXAMPLE / "everyhop.yaml").read_text().replace("http://127.0.0.1:9400", provider)
    for name, program in programs.items():
        head, found, tail = policy.partition(f"  {name}:\n    workload: [{{run: true}}")
        assert found
        policy = f"{head}{found}, {{unix: {{path: {program}}}}}{tail}"
    with TrustDomainUnderTest(policy) as started:
        yield started


@pytest.fixture
def token(provider):
    return fetch(f"{provider}/token?user=alice")


def said(domain, process):
    """What a workload has printed so far, once it has said something about alice."""
    assert process.stdout is not None
    line = process.stdout.readline()
    while line and "alice" not in line:
        line = process.stdout.readline()
    return line.strip()


def test_with_sidecars(domain, token):
    in_example = {"PYTHONPATH": str(EXAMPLE)}
    flask = f"exec {sys.executable} -m flask --app billing run -h unix://$EVERYHOP_SOCKET"
    uvicorn = (sys.executable, "-m", "uvicorn", "--log-level", "warning")
    running = [
        domain.run("storefront", *uvicorn, "storefront:app", wait=False, **in_example),
        domain.run("orders", *uvicorn, "orders:app", wait=False, **in_example),
        domain.run("billing", "sh", "-c", flask, wait=False, **in_example),
    ]
    wait_until(lambda: all(domain.ready(name) for name in SERVICES), what="three services are ready")
    shopper = (sys.executable, str(EXAMPLE / "shopper.py"))

    def shop():
        done = domain.once("shopper", *shopper, token)
        return done.stdout.splitlines() if "alice" in done.stdout else None

    assert wait_until(shop, what="alice can buy") == SEEN
    assert [said(domain, process) for process in running] == SEEN

    forged = domain.once("shopper", *shopper, token[:-4] + "AAAA")
    assert "alice" not in forged.stdout
    # Nobody skips a hop, whatever is in the hand.
    skipped = domain.once("storefront", "curl", "-s", "-X", "POST", "http://billing/charges")
    assert "UNDECLARED_DESTINATION" in skipped.stdout
    for process in running:
        domain.stop(process)


def test_without_sidecars(domain, programs, token):
    ports = {name: free_port() for name in SERVICES}
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("EVERYHOP_", "HTTP_", "http_"))},
        "PYTHONHOME": sys.base_prefix,
        "PYTHONPATH": os.pathsep.join(
            [str(EXAMPLE), sysconfig.get_path("purelib"), str(EXAMPLE.parents[1] / "src")]
        ),
        "SPIFFE_ENDPOINT_SOCKET": f"unix://{domain.state}/run/workload.sock",
        "EVERYHOP_ENDPOINTS": ",".join(f"{name}=127.0.0.1:{port}" for name, port in ports.items()),
    }

    def start(name):
        command = [str(programs[name]), str(EXAMPLE / "without_sidecar.py"), name, str(ports[name])]
        with (domain.root / f"direct-{name}.err").open("w") as errors:
            return subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
            )

    running = [start(name) for name in SERVICES]
    try:

        def listens(port):
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(lambda: all(map(listens, ports.values())), what="three services listen")
        shopper = [str(programs["shopper"]), str(EXAMPLE / "shopper.py"), token]
        done = subprocess.run(
            shopper, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stdout.splitlines() == SEEN, done.stdout + done.stderr
        assert [said(domain, process) for process in running] == SEEN
        # Without a certificate there is no conversation.
        with socket.create_connection(("127.0.0.1", ports["orders"]), timeout=5) as plain:
            plain.sendall(b"POST /orders HTTP/1.1\r\nHost: orders\r\nX-Everyhop-Caller: x\r\n\r\n")
            assert not plain.recv(100).startswith(b"HTTP/1.1 2")
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(10)
            process.stdout.close()


@pytest.mark.parametrize("name", SERVICES)
def test_the_sdk_takes_less_than_ten_lines(name):
    """Counted are the lines of code in which a name of everyhop occurs, imports included."""
    source = (EXAMPLE / f"{name}.py").read_text()
    tree = ast.parse(source)
    ours, lines = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("everyhop"):
            ours |= {alias.asname or alias.name for alias in node.names}
            lines.add(node.lineno)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in ours:
            lines.add(node.lineno)
    assert 0 < len(lines) < MOST_LINES, sorted(lines)
