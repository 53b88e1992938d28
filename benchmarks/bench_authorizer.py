# SPDX-License-Identifier: Apache-2.0
"""What a question of a foreign proxy costs, and what a second worker process brings.

Machine and versions are printed.  Input: a policy of 200 services, one question of 12 headers and a client certificate,
allowed; every answer is checked.  Measured: reading, deciding, recording and encoding inside one process (no transport);
then real worker processes behind ``authorizer.sock``, asked by a grpcio client (C core) in a process of its own with 4
connections of 8 questions each, and one question at a time.  Warm-up: 200 questions, not counted.  Client and workers
share the machine's cores, so rates are for reading ratios; processor time, as the kernel counts it, holds on a busy
machine too.

Bar: reading, deciding, recording and encoding take at most a third of the processor time that a question costs a worker;
the rest is gRPC.  What a second worker brings is told, not judged: it needs a core of its own, and the client takes one.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from urllib.parse import quote_from_bytes

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import grpc
import msgspec
from tests.support.workloads import AuthorityForTests, FixedEntropy, RealClock

from everyhop.api.authorizer_grpc import message_of, question_of
from everyhop.control.asking import AskingProxy, Form
from everyhop.control.messages import Update
from everyhop.policy import encode_snapshot, parse_policy
from everyhop.runtime.authorizer_pool import AuthorizerPool
from everyhop.runtime.authorizer_worker import Worker, refuse_single_use
from everyhop.runtime.layout import StateLayout
from everyhop.runtime.settings import Settings
from everyhop.spiffe.bundle import encode_bundle
from everyhop.wire.ext_authz import CHECK, CheckRequest, CheckResponse
from everyhop.x509.certificates import certificates_to_pem
from everyhop.x509.csr import build_csr
from everyhop.x509.keys import generate_private_key

PROXY = AskingProxy(uid=os.getuid(), services=("orders",))
STOREFRONT = "spiffe://shop.example/service/storefront"
SECONDS = 4.0
BAR_SHARE = 1 / 3


def policy():
    lines = ["version: 1", "trust_domain: shop.example", "services:", "  storefront: {}"]
    lines += [
        "  orders: {operations: {list: GET /orders, read: 'GET /orders/{id}'}}",
        *(f"  s{n}: {{operations: {{list: GET /items}}}}" for n in range(200)),
        "allow:",
        "  - {from: storefront, to: orders, operations: [list, read]}",
        *(f"  - {{from: s{n}, to: orders, operations: [list]}}" for n in range(200)),
    ]
    return parse_policy({"p": "\n".join(lines).encode()})


def question(authority):
    leaf = authority.sign(STOREFRONT, build_csr(generate_private_key())).chain[0]
    made = CheckRequest()
    made.attributes.source.principal = STOREFRONT
    made.attributes.source.certificate = quote_from_bytes(certificates_to_pem([leaf]))
    http = made.attributes.request.http
    http.method, http.path = b"GET", b"/orders/4711?page=2"
    for number in range(12):
        http.header_map.headers.add(key=f"x-header-{number}".encode(), raw_value=b"v" * 24)
    return made.SerializeToString()


def check(answer):
    assert CheckResponse.FromString(answer).status.code == 0


# -- inside one process


async def inside(snapshot, authority, asked, directory):
    worker = Worker(directory=directory, clock=RealClock(), spend=refuse_single_use)
    await worker.take(truth(snapshot, authority))
    taken, processor = [], 0.0
    for number in range(2200):
        if number == 200:
            processor = time.process_time()
        began = time.perf_counter()
        request = CheckRequest.FromString(asked)
        answer = await worker.decisions.answer(
            PROXY, Form.ENVOY, lambda request=request: question_of(request, PROXY)
        )
        encoded = message_of(answer).SerializeToString()
        if number >= 200:
            taken.append(time.perf_counter() - began)
    processor = (time.process_time() - processor) / len(taken)
    check(encoded)
    worker.log.close()
    return sorted(taken), processor


def processor_seconds(pids):
    """Return what the kernel has counted for processes: user and system time."""
    found = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        found += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def truth(snapshot, authority):
    return Update(
        snapshot=msgspec.Raw(encode_snapshot(snapshot)), bundle=msgspec.Raw(encode_bundle(authority.bundle()))
    )


# -- over the socket; the client is this script again, in a process of its own


async def client(path, asked, connections, streams):
    channels = [
        grpc.aio.insecure_channel(f"unix:{path}", options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(connections)
    ]
    calls = [channel.unary_unary(CHECK) for channel in channels]
    taken, answered = [], 0

    async def ask(call, until):
        nonlocal answered
        while time.perf_counter() < until:
            began = time.perf_counter()
            check(await call(asked, timeout=5))
            taken.append(time.perf_counter() - began)
            answered += 1

    async def crowd(seconds):
        until = time.perf_counter() + seconds
        await asyncio.gather(*(ask(call, until) for call in calls for _ in range(streams)))

    await crowd(0.5)
    taken.clear()
    began = time.perf_counter()
    await crowd(SECONDS)
    rate = len(taken) / (time.perf_counter() - began)
    for channel in channels:
        await channel.close()
    taken.sort()
    print(
        json.dumps({"all": answered, "rps": rate, "p50": median(taken), "p99": taken[int(len(taken) * 0.99)]})
    )


async def ready(layout, asked):
    async with grpc.aio.insecure_channel(f"unix:{layout.authorizer_socket}") as channel:
        for _ in range(20):
            await channel.unary_unary(CHECK)(asked, timeout=30, wait_for_ready=True)


async def served(snapshot, authority, asked, workers):
    with tempfile.TemporaryDirectory(prefix="eh-", dir="/tmp") as directory:
        layout = StateLayout(Path(directory))
        layout.create()
        file = layout.root / "question"
        file.write_bytes(asked)
        settings = Settings(authorizers=(PROXY,), authorizer_workers=workers, log_level="error")
        pool = AuthorizerPool(layout, settings, FixedEntropy())
        task = asyncio.create_task(pool.run())
        pool.take(truth(snapshot, authority))
        while len(pool.pids) < workers:  # noqa: ASYNC110  # a benchmark may look again
            await asyncio.sleep(0.05)
        await ready(layout, asked)
        found = {}
        for name, connections, streams in (("one at a time", 1, 1), ("32 in flight", 4, 8)):
            before = processor_seconds(pool.pids.values())
            argv = [sys.executable, __file__, "--ask", str(layout.authorizer_socket), str(file)]
            process = await asyncio.create_subprocess_exec(
                *argv, str(connections), str(streams), stdout=subprocess.PIPE
            )
            output, _ = await process.communicate()
            assert process.returncode == 0
            found[name] = json.loads(output)
            used = processor_seconds(pool.pids.values()) - before
            found[name]["cpu"] = used / found[name]["all"]
        task.cancel()
        await asyncio.wait([task])
        pool.close()
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ask", nargs=4)
    options = parser.parse_args()
    if options.ask:
        path, file, connections, streams = options.ask
        asyncio.run(client(path, Path(file).read_bytes(), int(connections), int(streams)))
        return 0
    authority, snapshot = AuthorityForTests(RealClock()), policy()
    asked = question(authority)
    load = os.getloadavg()[0]
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f}, Python {platform.python_version()}"
    )
    print(f"a question of {len(asked)} bytes, {len(snapshot.services)} services, grpcio {grpc.__version__}")
    with tempfile.TemporaryDirectory() as directory:
        taken, processor = asyncio.run(inside(snapshot, authority, asked, Path(directory)))
    p50, p99 = median(taken) * 1e6, taken[int(len(taken) * 0.99)] * 1e6
    print(
        f"inside: read, decide, record, encode   {processor * 1e6:6.0f} us of processor   "
        f"p50 {p50:6.0f} us   p99 {p99:6.0f} us"
    )
    figures = {}
    for workers in (1, 2):
        figures[workers] = asyncio.run(served(snapshot, authority, asked, workers))
        for name, found in figures[workers].items():
            print(
                f"{workers} worker{'s' if workers > 1 else ' '}, {name:<14} {found['rps']:6.0f}/s   "
                f"{found['cpu'] * 1e6:6.0f} us of processor   p50 {found['p50'] * 1e3:6.2f} ms   p99 {found['p99'] * 1e3:6.2f} ms"
            )
    gain = figures[2]["32 in flight"]["rps"] / figures[1]["32 in flight"]["rps"]
    print(f"a second worker: {gain:.2f} times the questions")
    share = processor / figures[1]["32 in flight"]["cpu"]
    print(f"share of the decision in what a question costs: {share:.2f} (bar {BAR_SHARE:.2f})")
    return 0 if share <= BAR_SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
