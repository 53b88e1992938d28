# SPDX-License-Identifier: Apache-2.0
"""OPA as a peer: its own benchmark (`opa bench`) and its HTTP server on loopback, with one policy and the same data."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from pathlib import Path

START_SECONDS = 30
FAST = "--optimize-store-for-read-speed"


def write_files(rego, directory):
    """Write policy and data; return the arguments that load them."""
    policy, data = directory / "policy.rego", directory / "data.json"
    policy.write_text(rego.policy)
    data.write_text(json.dumps(rego.data))
    return str(policy), str(data)


def bench(program, rego, question, directory):
    """Return p50 and p99 in µs of one evaluation of one input, as `opa bench` counts them."""
    policy, data = write_files(rego, directory)
    given = directory / "input.json"
    given.write_text(json.dumps(question))
    command = [program, "bench", FAST, "-d", policy, "-d", data, "-i", str(given), "--format", "json"]
    done = subprocess.run([*command, "data.authz.allow"], check=True, capture_output=True, timeout=60)
    extra = json.loads(done.stdout)["Extra"]
    name = "histogram_timer_rego_query_eval_ns_"
    return extra[f"{name}median"] / 1000, extra[f"{name}99%"] / 1000


class Client:
    """HTTP/1.1 on one kept connection, doing as little as can be done: what is measured is the server."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port), 10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @staticmethod
    def prepare(question):
        body = json.dumps({"input": question}).encode()
        head = f"POST /v1/data/authz/allow HTTP/1.1\r\nHost: opa\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def ask(self, request):
        self.sock.sendall(request)
        data = self.sock.recv(65536)
        while b"\r\n\r\n" not in data:
            data += self.sock.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise AssertionError(head)
        fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
        missing = int(fields[b"content-length"]) - len(body)
        while missing > 0:
            more = self.sock.recv(65536)
            body, missing = body + more, missing - len(more)
        return json.loads(body)["result"] is True


@contextlib.contextmanager
def server(program, rego, directory):
    """Run OPA's server with the policy; gives the process and its port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [program, "run", "--server", "--addr", f"127.0.0.1:{port}", "--log-level", "error", FAST]
    command += ["--skip-version-check"]
    log = directory / "opa.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *write_files(rego, directory)], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"OPA does not listen: {log.read_text()[-300:]}") from None
                time.sleep(0.05)
        yield process, port
    finally:
        process.terminate()
        process.wait(10)


def resident(pid):
    """Return the resident set of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
