# SPDX-License-Identifier: Apache-2.0
"""Claim: a policy of 10,000 services loads in seconds: at most 30 s from YAML to the first decision, growing as it does.

One policy of N services with 10 operations each and, for each service, two allow rules (half of its operations to a
caller each) and in every tenth a deny rule, written as people write it: YAML, block style, split into files below the limit
of one file.  Steps, each in the same process and in this order: ``parse`` (text to checked snapshot), ``encode`` and
``decode`` (what the server stores and an agent receives), ``index`` (the engine), ``ask`` (one decision per service).
Every first decision is compared with what the generator put there.  Beside it, for scale: what PyYAML takes only to
produce the events of the same text, and its own C loader to build plain dicts and lists, unchecked and without positions.

Memory is the growth of the process's resident set over the step, in a process of its own for each size.
``--profile`` prints where parsing and decoding spend their time.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import os
import platform
import pstats
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import yaml

from everyhop.authz import Engine
from everyhop.policy import decode_snapshot, encode_snapshot, parse_policy

SIZES = (100, 1_000, 10_000)
OPERATIONS = 10
SERVICES_PER_FILE = 2_000
DOMAIN = "bench.example"
BAR_SECONDS = 30.0
BAR_GROWTH = 1.5  # seconds a service at the largest size, against the one before
METHODS = ("GET", "POST", "PUT", "DELETE")


def files_of(count):
    """Return the files of a policy, name to YAML."""
    files = {}
    for start in range(0, count, SERVICES_PER_FILE):
        lines = ["version: 1", f"trust_domain: {DOMAIN}", "services:"]
        numbers = range(start, min(count, start + SERVICES_PER_FILE))
        for number in numbers:
            lines += [f"  s{number}:", "    workload:", "      - unix:", f"          user: user{number}"]
            lines.append("    operations:")
            lines += [f"      op{k}: {METHODS[k % 4]} /v1/r{k}/{{id}}" for k in range(OPERATIONS)]
        lines.append("allow:")
        for number in numbers:
            for half in (0, 1):
                chosen = ", ".join(f"op{k}" for k in range(half, OPERATIONS, 2))
                lines += [f"  - from: s{caller_of(number, half, count)}", f"    to: s{number}"]
                lines.append(f"    operations: [{chosen}]")
        lines.append("deny:")
        for number in numbers[::10]:
            lines += [
                f"  - from: s{caller_of(number, 0, count)}",
                f"    to: s{number}",
                "    operations: [op4]",
            ]
            lines.append("    reason: closed for now")
        files[f"{start:09}.yaml"] = "\n".join(lines).encode() + b"\n"
    return files


def caller_of(number, half, count):
    """Return the service that may call every second operation of this one."""
    return (number * 7 + 1 + half) % count


def expected(number, operation, caller, count):
    """Tell what the generator meant: the second implementation of these rules."""
    allowed = any(caller == caller_of(number, half, count) and operation % 2 == half for half in (0, 1))
    denied = number % 10 == 0 and operation == 4 and caller == caller_of(number, 0, count)
    return allowed and not denied


def resident():
    """Return the resident set in MiB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Steps:
    """Seconds and MiB of each step."""

    def __init__(self):
        self.seconds = {}
        self.memory = {}

    def take(self, name, work):
        before = resident()
        began = time.process_time()
        result = work()
        self.seconds[name] = time.process_time() - began
        self.memory[name] = resident() - before
        return result


def ask_everybody(engine, count):
    """Ask one question per service and compare; return how many were asked."""
    for number in range(count):
        operation = number % OPERATIONS
        caller = caller_of(number, number // OPERATIONS % 2, count)
        answer = engine.decide(
            caller=f"spiffe://{DOMAIN}/service/s{caller}",
            target=f"s{number}",
            method=METHODS[operation % 4],
            path=f"/v1/r{operation}/42",
        )
        assert answer.is_allowed == expected(number, operation, caller, count), answer
    return count


def run_size(count):
    """Load one policy, print the steps; return seconds from text to decisions."""
    files = files_of(count)
    size = sum(map(len, files.values()))
    print(
        f"  {count:,} services, {count * OPERATIONS:,} operations, {count * 2 + (count + 9) // 10:,} rules: {size / 2**20:.1f} MiB in {len(files)} files"
    )
    steps = Steps()
    snapshot = steps.take("parse", lambda: parse_policy(files))
    encoded = steps.take("encode", lambda: encode_snapshot(snapshot))
    decoded = steps.take("decode", lambda: decode_snapshot(encoded))
    assert decoded.hash == snapshot.hash
    engine = steps.take("index", lambda: Engine(snapshot))
    steps.take("ask", lambda: ask_everybody(engine, count))
    steps.take(
        "events", lambda: [sum(1 for _ in yaml.parse(text, yaml.CBaseLoader)) for text in files.values()]
    )
    steps.take("plain", lambda: [yaml.load(text, yaml.CBaseLoader) for text in files.values()])
    for name, seconds in steps.seconds.items():
        note = {
            "events": "  (PyYAML's events alone)",
            "plain": "  (yaml.load of the same text, for scale)",
        }.get(name, "")
        print(f"    {name:<7} {seconds:8.2f} s  {steps.memory[name]:+8.1f} MiB{note}")
    total = sum(steps.seconds[name] for name in ("parse", "index", "ask"))
    print(
        f"    text to decisions {total:.2f} s, {total / count * 1e6:.0f} µs a service; encoded {len(encoded) / 2**20:.1f} MiB"
    )
    return total


def profile(count):
    """Print where parsing and decoding spend their time."""
    files = files_of(count)
    encoded = encode_snapshot(parse_policy(files))
    for name, work in (("parse", lambda: parse_policy(files)), ("decode", lambda: decode_snapshot(encoded))):
        profiler = cProfile.Profile()
        profiler.runcall(work)
        print(f"  {name}, {count:,} services, by own time:")
        pstats.Stats(profiler).sort_stats("tottime").print_stats(18)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, metavar="SERVICES")
    parser.add_argument("--profile", action="store_true", help="only print where the time goes")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.profile:
        for size in options.sizes[:2][-1:]:
            profile(size)
        return 0
    if options.one:
        print(f"  total={run_size(options.one)}")
        return 0
    print(
        f"  {platform.machine()}, CPython {platform.python_version()}, PyYAML {version('PyYAML')}; process CPU time, one thread,"
        " nothing warmed up"
    )
    totals = {}
    for size in options.sizes:
        command = [sys.executable, __file__, "--one", str(size)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        shown, _, total = output.rpartition("  total=")
        print(shown, end="", flush=True)
        totals[size] = float(total)
    failed = []
    largest = max(totals)
    if largest <= 10_000 and totals[largest] > BAR_SECONDS:
        failed.append(f"{totals[largest]:.1f} s at {largest:,} services, the bar is {BAR_SECONDS:.0f} s")
    if len(totals) > 1:
        before = sorted(totals)[-2]
        growth = (totals[largest] / largest) / (totals[before] / before)
        if growth > BAR_GROWTH:
            failed.append(
                f"{growth:.2f} x the time a service of {before:,} services, the bar is {BAR_GROWTH} x"
            )
    print(
        "  "
        + ("; ".join(failed) or f"bars met: <= {BAR_SECONDS:.0f} s, time a service within {BAR_GROWTH} x")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
