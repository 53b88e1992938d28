# SPDX-License-Identifier: Apache-2.0
"""How long until a trust domain serves, and how much memory it takes.

Bars (docs: DESIGN section 9): ``up`` to ready, warm, at most 3 s.  Memory is given as a ratio to the same Envoy
binary with an empty configuration, measured in the same run; it has no bar.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from trust_domain import TrustDomainUnderTest, wait_until

from everyhop.dataplane.envoy import envoy_version, locate_envoy

BAR_SECONDS = 3.0
ROUNDS = 5


def rss_kib(pid: int) -> int:
    """Return the resident memory of a process in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"no VmRSS of {pid}")


def empty_envoy_kib() -> int:
    """Return the resident memory of an Envoy that does nothing."""
    with tempfile.TemporaryDirectory(prefix="eh-", dir="/tmp") as directory:
        admin = {"address": {"pipe": {"path": f"{directory}/admin.sock"}}}
        config = Path(directory) / "c.json"
        config.write_text(json.dumps({"admin": admin}))
        process = subprocess.Popen(
            [locate_envoy(), "-c", config, "--use-dynamic-base-id", "--concurrency", "1", "-l", "error"]
        )
        try:
            time.sleep(1.5)
            return rss_kib(process.pid)
        finally:
            process.kill()
            process.wait()


def policy_of(services: int) -> str:
    """Return a policy of that many services, each with ten operations, each called by two others."""
    lines = ["version: 1", "trust_domain: big.example", "services:", "  front: {workload: [{run: true}]}"]
    allow = ["allow:", "  - {from: front, to: s0, operations: all}"]
    for i in range(services):
        lines += [f"  s{i}:", "    workload: [{run: true}]", "    operations:"]
        lines += [f"      op{j}: GET /v1/things{j}/{{id}}" for j in range(10)]
        allow += [
            f"  - {{from: s{(i + k) % services}, to: s{i}, operations: all}}" for k in (1, 7) if services > 7
        ]
    return "\n".join([*lines, *allow, ""])


def seconds_to_ready(domain: TrustDomainUnderTest) -> float:
    """Start ``up`` and return the seconds to its ready line."""
    begun = time.perf_counter()
    domain.up()
    return time.perf_counter() - begun


def stop(domain: TrustDomainUnderTest) -> None:
    """End ``up``, keep the state."""
    assert domain.up_process is not None
    domain.up_process.terminate()
    domain.up_process.wait()


def main() -> int:
    """Measure and print; 1 when the bar is missed."""
    print(
        f"{platform.machine()}, Python {platform.python_version()}, Envoy {'.'.join(map(str, envoy_version(locate_envoy())))}"
    )
    domain = TrustDomainUnderTest()
    try:
        cold = seconds_to_ready(domain)
        stop(domain)
        warm = []
        for _ in range(ROUNDS):
            warm.append(seconds_to_ready(domain))
            stop(domain)
        domain.up()
        begun = time.perf_counter()
        domain.serve()
        launch = time.perf_counter() - begun
        sidecar = rss_kib(domain.ready("orders")[0]["envoy_pid"])
        small = {name: rss_kib(pid) for name, pid in domain.child_pids().items()}
    finally:
        domain.close()
    empty = empty_envoy_kib()

    big = TrustDomainUnderTest(policy_of(1000))
    try:
        ready = seconds_to_ready(big)
        big.serve("s0")
        big_sidecar = rss_kib(big.ready("s0")[0]["envoy_pid"])
        large = {name: rss_kib(pid) for name, pid in big.child_pids().items()}
        before = big.status()["snapshot"]
        big.edit_policy("from: front, to: s0, operations: all", "from: front, to: s0, operations: [op1]")
        edited = time.perf_counter()
        big.wait_applied(before)
        applied = time.perf_counter() - edited
        wait_until(lambda: big.ready("s0"))
    finally:
        big.close()

    median = statistics.median(warm)
    print(
        f"up to ready: cold (new state) {cold:.2f} s; warm median {median:.2f} s of {ROUNDS} (worst {max(warm):.2f} s); bar {BAR_SECONDS} s"
    )
    print(f"run to ready instance: {launch:.2f} s")
    print(
        f"sidecar: {sidecar / 1024:.0f} MiB = {sidecar / empty:.2f}x the empty Envoy ({empty / 1024:.0f} MiB)"
    )
    print(f"server {small['server'] / 1024:.0f} MiB, agent {small['agent'] / 1024:.0f} MiB at 3 services")
    print(
        f"1,000 services x 10 operations: ready in {ready:.2f} s, edit applied everywhere in {applied:.2f} s, "
        f"server +{(large['server'] - small['server']) / 1024:.0f} MiB, agent +{(large['agent'] - small['agent']) / 1024:.0f} MiB, "
        f"sidecar {big_sidecar / 1024:.0f} MiB = {big_sidecar / empty:.2f}x the empty Envoy"
    )
    return 0 if median <= BAR_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
