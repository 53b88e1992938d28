# SPDX-License-Identifier: Apache-2.0
"""From the order to block a caller to its first call that is refused, on a connection that was open before.

Bar: worst below 1 s, with no call of another caller failing, with nobody else blocked and with 1,000 others.  Beside it,
in the same run and on the same connections: the time from saving a policy that takes the same right away, which is the
other way to stop somebody.  Both are asked for over the owner's socket or by the file, so no start of a command counts.
"""

from __future__ import annotations

import http.client
import platform
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from trust_domain import TrustDomainUnderTest, trust_domain

from everyhop.cli.__main__ import build_parser
from everyhop.cli.verbs.svid import fetch_svid
from everyhop.control.local_link import LocalLink
from everyhop.dataplane.envoy import envoy_version, locate_envoy
from everyhop.runtime.mtls import client_context

ROUNDS = 30
OTHERS = 1000
BAR_SECONDS = 1.0
OPEN, CLOSED = "operations: [list, read]", "operations: [list]"
POLICY = """\
version: 1
trust_domain: shop.example
detect: {mode: observe}  # the caller's hundreds of refused calls are the measurement
services:
  storefront: {workload: [{run: true}]}
  mallory: {workload: [{run: true}]}
  orders: {workload: [{run: true}], operations: {list: GET /orders, read: "GET /orders/{id}"}}
allow:
  - {from: mallory, to: orders, operations: [list, read]}
  - {from: storefront, to: orders, operations: all}
"""


class Caller:
    """Calls of one service on one connection that stays open."""

    def __init__(self, domain: TrustDomainUnderTest, service: str) -> None:
        args = build_parser().parse_args(["svid", "show", service, "--state", str(domain.state)])
        svid = fetch_svid(args, service)
        host, _, port = domain.ready("orders")[0]["ingress"].rpartition(":")
        context = client_context(svid["chain"], svid["key"], svid["bundle"])
        self._connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=10)
        self._connection.connect()
        self._socket = self._connection.sock

    def status(self, path: str) -> int:
        """Return the status of one call; the connection must still be the first one."""
        self._connection.request("GET", path, headers={"host": "orders"})
        answer = self._connection.getresponse()
        answer.read()
        assert self._connection.sock is self._socket
        return answer.status


class Measured:
    """The blocked caller, and another one whose calls must go on."""

    def __init__(self, domain: TrustDomainUnderTest) -> None:
        self.blocked, self.other = Caller(domain, "mallory"), Caller(domain, "storefront")
        self.failed = 0

    def seconds_until(self, wanted: int, begun: float) -> float:
        """Return the seconds from ``begun`` until the caller's calls give ``wanted``."""
        while self.blocked.status("/orders/7") != wanted:
            self.failed += self.other.status("/orders") != 200
            if time.perf_counter() - begun > 10:
                raise AssertionError("never enforced")
        return time.perf_counter() - begun


def orders(link: LocalLink, measured: Measured) -> tuple[list[float], list[float]]:
    """Return seconds of blocks and of their ends; an order returns when every agent has confirmed it."""
    begun_at, ended_at = [], []
    for _ in range(ROUNDS):
        for path, wanted, seconds in (("/v1/blocks", 429, begun_at), ("/v1/unblock", 200, ended_at)):
            begun = time.perf_counter()
            answer = link.post(path, {"subject": "mallory", "reason": "measured"})
            assert answer["lagging"] == [], answer
            seconds.append(measured.seconds_until(wanted, begun))
    return begun_at, ended_at


def edits(domain: TrustDomainUnderTest, measured: Measured) -> list[float]:
    """Return seconds of policy edits that take the right away, and give it back."""
    seconds = []
    for number in range(ROUNDS):
        old, new, wanted = (OPEN, CLOSED, 403) if number % 2 == 0 else (CLOSED, OPEN, 200)
        begun = time.perf_counter()
        domain.edit_policy(old, new)
        seconds.append(measured.seconds_until(wanted, begun))
        time.sleep(0.05)
    return seconds


def told(what: str, seconds: list[float]) -> float:
    """Print a row; return its median."""
    p50 = statistics.median(seconds)
    p99 = sorted(seconds)[min(len(seconds) - 1, int(len(seconds) * 0.99))]
    print(
        f"{what:<44} p50 {p50 * 1000:6.1f} ms   p99 {p99 * 1000:6.1f} ms   worst {max(seconds) * 1000:6.1f} ms"
    )
    return p50


def main() -> int:
    """Measure and print; 1 when the bar is missed."""
    print(f"{platform.machine()}, Python {platform.python_version()}, Envoy {envoy_version(locate_envoy())}")
    print(f"{ROUNDS} rounds each, one agent, two sidecars, two callers on open connections\n")
    with trust_domain(POLICY) as domain:
        domain.serve()
        link = LocalLink(domain.state / "run" / "admin.sock", timeout=30)
        measured = Measured(domain)
        assert measured.blocked.status("/orders/7") == measured.other.status("/orders") == 200
        orders(link, measured)  # warm
        first, lifted = orders(link, measured)
        edited = edits(domain, measured)
        for number in range(OTHERS):
            link.post(
                "/v1/blocks",
                {"subject": f"address:10.0.{number >> 8}.{number & 255}", "reason": "x", "wait_seconds": 0},
            )
        many, _ = orders(link, measured)
    p50 = told("block, nobody else blocked", first)
    told("its end", lifted)
    with_many = told(f"block, {OTHERS:,} others blocked", many)
    edit = told("policy edit to the same effect", edited)
    print(f"\nblock / policy edit {p50 / edit:.2f}; with {OTHERS:,} others / without {with_many / p50:.2f}")
    print(f"calls of the other caller that failed meanwhile: {measured.failed}")
    return 0 if max(first + lifted + many) < BAR_SECONDS and measured.failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
