# SPDX-License-Identifier: Apache-2.0
"""Question: how many ext_authz v3 checks a second does a Python decision point answer, against OPA's Envoy plugin in Go?

One policy of 1,000 edges, 500 check requests as Envoy sends them (15 headers, the caller's SPIFFE ID as principal, the
target service in ``context_extensions``), half of them allowed.  Sides, each in processes of its own, on a Unix socket:

- ``everyhop``: our gRPC server, decision point and message encoding, with one worker and with two;
- ``opa-envoy``: the plugin with an equivalent policy, its data indexed in the order of the question, bodies not
  parsed, no decision log; it may use every core.

The client is the same: grpcio, four connections, first one call at a time, then sixteen in flight, from one
thread; the sides take turns.
It takes most of one core itself and so bounds what any side can show.  Every answer is compared with the expected one.
What everyhop's agent does besides (the caller's certificate, tokens, the record of the decision) is not in this figure.

There is no bar: compile structure into the proxy where you can (``everyhop policy show``), and ask only for the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import grpc  # noqa: E402
import grpc.aio  # noqa: E402
from benchmarks.authorization_cases import DOMAIN, case_of  # noqa: E402
from benchmarks.authorization_engines import policy_of, rego_of  # noqa: E402
from benchmarks.opa_peer import FAST, resident  # noqa: E402
from tests.support.peers import peer_program, why_absent  # noqa: E402

from everyhop.api.ext_authz import denied  # noqa: E402
from everyhop.authz import Engine  # noqa: E402
from everyhop.policy import parse_policy  # noqa: E402
from everyhop.wire.ext_authz import CHECK, OVERWRITE, CheckRequest, CheckResponse  # noqa: E402
from everyhop.wire.rpc import Cardinality, Method, Service  # noqa: E402
from everyhop.wire.sockets import UnixListener  # noqa: E402
from everyhop.wire.transport import Limits, PeerServer  # noqa: E402

RULES = 1_000
CONNECTIONS = 4
IN_FLIGHT = 16
WARM_UP = 50
ROUNDS = 3  # sides take turns, so that a neighbour on the machine meets all of them
ALONE_SECONDS = 0.8
TOGETHER_SECONDS = 1.5
START_SECONDS = 30.0
SERVICE = "everyhop_service"
LIMITS = Limits(streams_per_connection=1024, resets_per_connection=1_000_000)
REGO = """package authz
default allow := false
allow if {
	count(input.parsed_path) == 3
	input.parsed_path[0] == "v1"
	target := input.attributes.contextExtensions.everyhop_service
	data.edges[target][input.attributes.request.http.method][input.parsed_path[1]][input.attributes.source.principal]
}
"""
HEADERS = {
    ":authority": "orders.shop.example",
    ":scheme": "https",
    "accept": "application/json",
    "accept-encoding": "gzip, br",
    "accept-language": "en-GB,en;q=0.9",
    "cache-control": "no-cache",
    "content-type": "application/json",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "user-agent": "python-httpx/0.28.1",
    "x-envoy-expected-rq-timeout-ms": "15000",
    "x-forwarded-for": "10.1.2.3",
    "x-forwarded-proto": "https",
    "x-request-id": "d290f1ee-6c54-4b01-90e6-d701748f0851",
}


class WrongAnswerError(Exception):
    """A side gave another answer than the rules."""


def identity(name):
    return f"spiffe://{DOMAIN}/service/{name}"


def message_of(request):
    """Return a check request as bytes."""
    message = CheckRequest()
    attributes = message.attributes
    attributes.source.principal = identity(request.caller)
    attributes.source.address.socket_address.address = "10.1.2.3"
    attributes.source.address.socket_address.port_value = 40_000
    attributes.context_extensions[SERVICE] = request.target
    http = attributes.request.http
    http.method, http.path = request.method.encode(), request.path.encode()
    http.host, http.scheme = b"orders.shop.example", b"https"
    for name, value in {**HEADERS, ":method": request.method, ":path": request.path}.items():
        http.headers[name] = value.encode()
    return message.SerializeToString()


def is_allowed(reply):
    """Tell what an answer says; raises ValueError for one that says both or nothing."""
    response = CheckResponse.FromString(reply)
    if response.status.code == 0 and response.HasField("denied_response"):
        raise ValueError("an answer allows and denies")
    return response.status.code == 0


# --- our side ------------------------------------------------------------------------------------------------------


async def serve(descriptor):
    """Answer on a listening socket until the process is ended."""
    engine = Engine(parse_policy(policy_of(case_of("edges", RULES))))

    async def check(call):
        request = await call.receive_only()
        attributes = request.attributes
        http = attributes.request.http
        decision = engine.decide(
            caller=attributes.source.principal,
            target=attributes.context_extensions[SERVICE],
            method=http.method.decode("latin-1"),
            path=http.path.decode("latin-1"),
        )
        if not decision.is_allowed:
            await call.send(denied(403, "ACCESS_DENIED", ""))
            return
        response = CheckResponse()
        option = response.ok_response.headers.add(append_action=OVERWRITE)
        option.header.key, option.header.value = b"x-everyhop-caller", decision.caller.encode()
        response.ok_response.headers_to_remove.append("x-everyhop-user")
        await call.send(response)

    method = Method(
        path=CHECK,
        cardinality=Cardinality.UNARY_UNARY,
        request=CheckRequest,
        reply=CheckResponse,
        handler=check,
    )
    server = PeerServer([Service([method])], limits=LIMITS)
    listening = socket.socket(fileno=descriptor)
    listening.setblocking(False)
    await server.start(UnixListener(listening, Path(), (0, 0)))
    print("ready", flush=True)
    await asyncio.Event().wait()


@contextlib.contextmanager
def everyhop_side(directory, workers):
    """Run workers that accept on one socket; gives the address and the processes."""
    path = directory / f"everyhop-{workers}.sock"
    listener = UnixListener.bind(path, mode=0o600)
    processes = []
    try:
        for _ in range(workers):
            command = [sys.executable, __file__, "--serve", str(listener.sock.fileno())]
            processes.append(
                subprocess.Popen(command, pass_fds=[listener.sock.fileno()], stdout=subprocess.PIPE)
            )
        for process in processes:
            assert process.stdout.readline() == b"ready\n", "a worker did not start"
        yield f"unix:{path}", processes
    finally:
        end(processes)
        listener.close()


# --- OPA -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def opa_side(program, directory):
    """Run the plugin; gives the address and the processes."""
    path = directory / "opa.sock"
    rego = rego_of(case_of("edges", RULES))
    edges = {
        target: {
            method: {
                resource: {identity(caller): True for caller in callers}
                for resource, callers in resources.items()
            }
            for method, resources in methods.items()
        }
        for target, methods in rego.data["edges"].items()
    }
    plugin = {"addr": f"unix://{path}", "path": "authz/allow", "skip-request-body-parse": True}
    files = {
        "policy.rego": REGO,
        "data.json": json.dumps({"edges": edges}),
        "config.json": json.dumps({"plugins": {"envoy_ext_authz_grpc": plugin}}),
    }
    for name, text in files.items():
        (directory / name).write_text(text)
    command = [program, "run", "--server", "--addr", f"unix://{directory}/api.sock", "--log-level", "error"]
    command += [FAST, "--skip-version-check", "--config-file", str(directory / "config.json")]
    log = directory / "opa.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, str(directory / "policy.rego"), str(directory / "data.json")],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        stop = time.monotonic() + START_SECONDS
        while not path.exists():
            if process.poll() is not None or time.monotonic() > stop:
                raise RuntimeError(f"opa-envoy-plugin does not listen: {log.read_text()[-300:]}")
            time.sleep(0.05)
        yield f"unix:{path}", [process]
    finally:
        end([process])


def end(processes):
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(10)
        if process.stdout:
            process.stdout.close()


# --- the client ----------------------------------------------------------------------------------------------------


async def ask_for(seconds, calls, questions, in_flight):
    """Ask with so many calls in flight; return µs of each, in any order, and how long it took."""
    took = []
    clock = time.perf_counter_ns
    stop = time.monotonic() + seconds

    async def asker(number):
        call = calls[number % len(calls)]
        index = number * 31
        while time.monotonic() < stop:
            question, expected = questions[index % len(questions)]
            index += 1
            began = clock()
            reply = await call(question)
            took.append((clock() - began) / 1000)
            if is_allowed(reply) is not expected:
                raise WrongAnswerError(CheckRequest.FromString(question))

    began = time.perf_counter()
    await asyncio.gather(*(asker(number) for number in range(in_flight)))
    return took, time.perf_counter() - began


class Side:
    """One decision point under test, and what its rounds have shown."""

    def __init__(self, name, address, processes):
        self.name = name
        self.address = address
        self.processes = processes
        self.alone, self.together, self.rates = [], [], []
        self.cpu = 0.0

    async def round(self, questions):
        """Compare answers, then measure once."""
        # Without a pool of its own, channels to one address share one connection.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.default_authority", "localhost")]
        channels = [grpc.aio.insecure_channel(self.address, options=options) for _ in range(CONNECTIONS)]
        try:
            calls = [channel.unary_unary(CHECK) for channel in channels]
            # Every question in the first round; later a few, so that the connections and what they need are warm.
            asked = questions if not self.rates else questions[:WARM_UP]
            for index, (question, expected) in enumerate(asked):
                reply = await calls[index % CONNECTIONS](question, wait_for_ready=True, timeout=10)
                if is_allowed(reply) is not expected:
                    raise WrongAnswerError(CheckRequest.FromString(question))
            before = sum(cpu_seconds(process.pid) for process in self.processes)
            alone, _ = await ask_for(ALONE_SECONDS, calls, questions, 1)
            together, seconds = await ask_for(TOGETHER_SECONDS, calls, questions, IN_FLIGHT)
            self.cpu += sum(cpu_seconds(process.pid) for process in self.processes) - before
        finally:
            for channel in channels:
                await channel.close()
        self.alone += alone
        self.together += together
        self.rates.append(len(together) / seconds)

    @property
    def rate(self):
        return statistics.median(self.rates)

    @property
    def cost(self):
        """Return µs of CPU a check: what neighbours on the machine change least."""
        return self.cpu * 1e6 / (len(self.alone) + len(self.together))

    def render(self):
        alone, together = quantiles(self.alone), quantiles(self.together)
        memory = sum(resident(process.pid) for process in self.processes)
        return (
            f"    {self.name:<20} {self.rate:7,.0f} a second ({min(self.rates):,.0f} to {max(self.rates):,.0f}) with {IN_FLIGHT} in flight,"
            f" p50 {together[0]:7,.0f} µs p99 {together[1]:8,.0f} µs; one at a time p50 {alone[0]:6,.0f} µs p99 {alone[1]:6,.0f} µs;"
            f" {self.cost:5,.0f} µs of CPU a check, {memory:.0f} MiB"
        )


def quantiles(values):
    ordered = sorted(values)
    return statistics.median(ordered), ordered[int(len(ordered) * 0.99)]


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.serve is not None:
        asyncio.run(serve(options.serve))
        return 0
    program = peer_program("opa-envoy-plugin")
    print(
        f"  {platform.machine()}, {os.cpu_count()} cores, CPython {platform.python_version()}, grpcio {version('grpcio')}"
        + (f", opa-envoy-plugin {opa_version(program)}" if program else "")
    )
    case = case_of("edges", RULES)
    questions = [(message_of(request), request.expected) for request in case.requests]
    size = statistics.median(len(question) for question, _ in questions)
    print(
        f"  {RULES:,} rules, {len(questions)} different requests of {size:.0f} bytes; warmed up before each round"
    )
    with tempfile.TemporaryDirectory(prefix="ea-") as name:
        directory = Path(name)
        sides = []
        with contextlib.ExitStack() as running:
            for workers in (1, 2):
                label = f"everyhop, {workers} worker{'s' * (workers > 1)}"
                sides.append(Side(label, *running.enter_context(everyhop_side(directory, workers))))
            if program is not None:
                sides.append(Side("opa-envoy-plugin", *running.enter_context(opa_side(program, directory))))
            for _ in range(ROUNDS):
                for side in sides:
                    asyncio.run(side.round(questions))
            for side in sides:
                print(side.render())
    if program is None:
        print(f"  nothing to compare with: {why_absent('opa-envoy-plugin')}")
        return 77
    best, theirs = max(sides[:2], key=lambda side: side.rate), sides[2]
    print(
        f"  everyhop's best: {best.rate / theirs.rate:.2f} of the plugin's checks a second, {best.cost / theirs.cost:.2f} of its CPU"
        f" a check; the peer {'wins' if theirs.rate > best.rate else 'loses'} the first,"
        f" {'wins' if theirs.cost < best.cost else 'loses'} the second. No bar."
    )
    return 0


def opa_version(program):
    shown = subprocess.run([program, "version"], capture_output=True, text=True, check=True).stdout
    return shown.partition("Version: ")[2].split()[0]


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # who is stopped early ends what it has started
    sys.exit(main())
