# SPDX-License-Identifier: Apache-2.0
"""Claim: a condition that Envoy evaluates costs a sidecar pair at most a fifth of its throughput; at the agent, most of it.

One caller's sidecar, three callees with the same operation, each behind a sidecar of its own, and one application:

- ``none``: no condition;
- ``envoy``: a header, the hour and the caller's network, all evaluated by the policy filter;
- ``agent``: the same with a named time zone, which only the agent knows: each call is a question to it (here the
  product's own judgement, in Python, in the process of this script).

Rounds alternate and the median of the rounds counts.  The agent must have been asked for its side only.  Exit 0:
``envoy`` has at least 0.80 of the throughput of ``none`` and more than that of ``agent``; 1: less.
"""

import argparse
import base64
import os
import platform
import shutil
import sys
import tempfile
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
from tests.support.deciding_agent import DecidingAgent  # noqa: E402
from tests.support.envoy_pair import SECRET, Mesh  # noqa: E402

from everyhop.dataplane.envoy import envoy_version, locate_envoy  # noqa: E402

THROUGHPUT_BAR = 0.80
CONDITION = "request.headers['x-region'] == 'eu' && in_cidr(request.source_ip, '127.0.0.0/8')"
POLICY = f"""\
version: 1
trust_domain: shop.example
attributes: {{request: {{headers: [x-region]}}}}
services:
  storefront: {{}}
  none: {{operations: {{read: "GET /resource/{{id}}"}}}}
  envoy: {{operations: {{read: "GET /resource/{{id}}"}}}}
  agent: {{operations: {{read: "GET /resource/{{id}}"}}}}
allow:
  - {{from: storefront, to: none, operations: all}}
  - {{from: storefront, to: envoy, operations: all, when: "{CONDITION} && now.getHours('UTC') >= 0"}}
  - {{from: storefront, to: agent, operations: all, when: "{CONDITION} && now.getHours('Europe/Paris') >= 0"}}
"""


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
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
    processes = Processes()
    directory = Path(tempfile.mkdtemp(prefix="ehb-", dir="/tmp"))
    try:
        with Mesh(POLICY) as mesh, DecidingAgent(mesh, "agent") as agent:
            agent.apply(mesh.snapshot)
            app = application(processes, binary, directory)
            for service in ("none", "envoy", "agent"):
                (mesh.root / f"{service}.app").symlink_to(app)
                mesh.apps[service] = type("None", (), {"close": lambda _: None})()
                mesh.sidecar(service)
            mesh.sidecar("storefront", app=False)
            port = mesh.sidecars["storefront"].sidecar.egress_port
            secret = base64.b64encode(b"storefront:" + SECRET).decode()
            common = [("Proxy-Authorization", f"Basic {secret}"), ("X-Region", "eu")]
            sides = {name: (port, [("Host", name), *common]) for name in ("none", "envoy", "agent")}
            result = compare(sides, load, options.rounds, options.seconds)
            for name, (rate, median, tail) in result.items():
                print(f"   {name:<6} {rate:9.0f} calls/s   p50 {median:6.2f} ms   p99 {tail:6.2f} ms")
            points = {request.destination.rpartition("/")[2] for request in agent.seen}
            print(f"   the agent was asked {len(agent.seen)} times, for {', '.join(sorted(points))}")
            ratios = {name: result[name][0] / result["none"][0] for name in ("envoy", "agent")}
            print(f"   envoy / none: {ratios['envoy']:.2f} of the throughput (bar {THROUGHPUT_BAR})")
            print(f"   agent / none: {ratios['agent']:.2f}; envoy / agent: ", end="")
            print(f"{result['envoy'][0] / result['agent'][0]:.1f} times")
    finally:
        processes.close()
        shutil.rmtree(directory, ignore_errors=True)
    is_met = ratios["envoy"] >= THROUGHPUT_BAR and ratios["envoy"] > ratios["agent"]
    return 0 if is_met and points == {"agent"} else 1


if __name__ == "__main__":
    sys.exit(main())
