# SPDX-License-Identifier: Apache-2.0
"""Claim: a token on every call costs a sidecar pair at most 10 % of the throughput of the same pair without.

One caller's sidecar, three callees with the same operation, each behind a sidecar of its own, and one application:

- ``none``: the certificate alone, as ``bench_sidecar.py`` has it;
- ``token``: ``token: required``; the caller's sidecar puts an access token of ordinary size into each call, the
  callee's remembers that it was verified;
- ``user``: no token, but a user, whose transaction token the application's call brings along and the callee's sidecar
  remembers.

In steady state the agent is asked once for each worker and token.  Rounds alternate and the median of the rounds
counts.  Besides (without a bar) the rate at which a permitted caller is refused with a token that is worth nothing,
for each of those is a question to the agent, and the share of processor time that the agent spends on it.  Exit 0: at
least 0.90 of the throughput and at most 1.10 of the median latency of ``none``; 1: less.
"""

import argparse
import base64
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.bench_sidecar import (  # noqa: E402
    CONNECTIONS,
    Processes,
    application,
    by_python,
    by_wrk,
    compare,
)
from tests.support.check_service import Checks, passes, refuses  # noqa: E402
from tests.support.envoy_pair import SECRET, Mesh, SpiffeId, wait_for  # noqa: E402
from tests.support.held_tokens import HeldTokens, judge  # noqa: E402

from everyhop.dataplane.envoy import envoy_version, locate_envoy  # noqa: E402

THROUGHPUT_BAR, LATENCY_BAR = 0.90, 1.10
TOKEN_BYTES = 700
GOOD_USER, BAD_USER = "u" * TOKEN_BYTES, "x" * TOKEN_BYTES
POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {}
  none: {operations: {read: "GET /resource/{id}"}}
  token: {operations: {read: {route: "GET /resource/{id}", token: required}}}
  user: {operations: {read: "GET /resource/{id}"}}
allow:
  - {from: storefront, to: [none, token], operations: all}
  - {from: storefront, to: user, operations: all, user: required}
"""


class LongTokens(HeldTokens):
    """Tokens as long as real ones."""

    def token_for(self, spiffe_id, target, operation, x5t):
        text = super().token_for(spiffe_id, target, operation, x5t)
        return text + "s" * (TOKEN_BYTES - len(text))


def answer(request):
    """Check a token as the test's agent does, and believe one user."""
    if request.rbac["enforced_effective_policy_id"].split("|")[1] == "allowed+s":
        return judge(request, life=300)
    if request.all("txn-token") != [GOOD_USER]:
        return refuses(401, "TOKEN_MALFORMED")
    headers = {"x-everyhop-user": "alice"}
    return passes(headers, until=int(time.time()) + 300, headers=headers)


def flood(port, headers, seconds):
    """Return how many calls a second are refused."""
    argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
    for name, value in headers:
        argv += ["-H", f"{name}: {value}"]
    argv.append(f"http://127.0.0.1:{port}/resource/7")
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    total = int(re.search(r"(\d+) requests in", done.stdout)[1])
    refused = int(re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)[1])
    if total != refused:
        raise SystemExit(f"{total - refused} calls with a worthless token passed")
    return refused / seconds


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=2, help="of each side in each round")
    options = parser.parse_args(argv)
    load = by_wrk if shutil.which("wrk") else by_python
    binary = locate_envoy()
    version = ".".join(map(str, envoy_version(binary)))
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Envoy {version}, load {os.getloadavg()[0]:.1f} before; ",
        end="",
    )
    print(f"{CONNECTIONS} connections, {load.__name__.removeprefix('by_')}; ", end="")
    print(f"median of {options.rounds} alternating rounds of {options.seconds} s")

    processes, tokens = Processes(), LongTokens()
    directory = Path(tempfile.mkdtemp(prefix="ehb-", dir="/tmp"))
    try:
        with Mesh(POLICY, tokens=tokens) as mesh, Checks(mesh) as checks:
            tokens.mesh, checks.answer = mesh, answer
            caller = SpiffeId.parse(mesh.spiffe_id("storefront"))
            mesh.call(mesh.identities.hold, caller)
            wait_for(lambda: mesh.call(mesh.identities.current, caller))
            app = application(processes, binary, directory)
            for service in ("none", "token", "user"):
                (mesh.root / f"{service}.app").symlink_to(app)
                mesh.apps[service] = type("None", (), {"close": lambda _: None})()
                mesh.sidecar(service)
            mesh.sidecar("storefront", app=False)
            port = mesh.sidecars["storefront"].sidecar.egress_port
            secret = base64.b64encode(b"storefront:" + SECRET).decode()
            common = ("Proxy-Authorization", f"Basic {secret}")
            sides = {
                name: (port, [("Host", name), common, *more])
                for name, more in (("none", ()), ("token", ()), ("user", [("Txn-Token", GOOD_USER)]))
            }
            result = compare(sides, load, options.rounds, options.seconds)
            for name, (rate, median, tail) in result.items():
                print(f"   {name:<6} {rate:9.0f} calls/s   p50 {median:6.2f} ms   p99 {tail:6.2f} ms")
            print(f"   the agent was asked {len(checks.seen)} times")
            met = len(checks.seen) < 100
            for name in ("token", "user"):
                rate, latency = result[name][0] / result["none"][0], result[name][1] / result["none"][1]
                met = met and rate >= THROUGHPUT_BAR and latency <= LATENCY_BAR
                print(f"   {name} / none: {rate:.2f} of the throughput (bar {THROUGHPUT_BAR}), ", end="")
                print(f"{latency:.2f} of the median latency (bar {LATENCY_BAR})")
            if load is by_wrk:
                spent = time.process_time()
                rate = flood(port, [("Host", "user"), common, ("Txn-Token", BAD_USER)], options.seconds)
                spent = (time.process_time() - spent) / options.seconds
                print(
                    f"   worthless tokens: {rate:.0f} refused/s, {spent:.2f} of a processor in the agent's place"
                )
    finally:
        processes.close()
        shutil.rmtree(directory, ignore_errors=True)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
