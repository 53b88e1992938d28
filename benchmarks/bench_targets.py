# SPDX-License-Identifier: Apache-2.0
"""Claim: compiling and proving grow as the policy: time a service within 1.5 x from 1,000 services to 10,000.

One policy of N services in namespaces of a hundred, two operations each (one literal, one with a parameter), each called by two
others.  ``compile`` gives the files of one target; its peer in the same run is PyYAML's own C dumper over the same objects, which
knows nothing of a policy.  ``prove`` asks every request of the space of policy and evaluator; its peer is a bare loop that only asks
the evaluator, so the ratio is what the policy's side, the making of requests and the comparison cost.  Beside these: the size of the
output, requests a door, and the growth of the resident set, in a process of its own for each size.

Proving the largest size takes minutes, so by default it is proven on every tenth service there (``--whole`` proves all).
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import yaml

from everyhop.authz import Engine
from everyhop.policy import parse_policy
from everyhop.proving.compare import Prover
from everyhop.proving.model import Verdict
from everyhop.proving.oracle import Oracle
from everyhop.proving.space import Space
from everyhop.proving.systems import BUILDERS, Material, dns_of
from everyhop.targets import compile_policy
from everyhop.targets.intents import Intents
from everyhop.targets.view import View

SIZES = (10, 1_000, 10_000)
BAR_GROWTH = 1.5
SAMPLE_ABOVE = 2_000
PER_FILE = 2_000
ALONE = frozenset({"linkerd"})  # others cannot hold all of it by themselves: the SDK stands beside them


def files_of(count):
    """Return the files of a policy, name to YAML (JSON is YAML)."""
    files = {}
    for start in range(0, count, PER_FILE):
        numbers = range(start, min(count, start + PER_FILE))
        services = {
            f"s{n}": {"operations": {"list": f"GET /v1/r{n % 7}", "read": f"GET /v1/r{n % 7}/{{id}}"}}
            for n in numbers
        }
        others = {n: sorted({(n * 7 + 1) % count, (n + 1) % count}) for n in numbers}
        allow = [
            {"from": [f"s{one}" for one in others[n]], "to": f"s{n}", "operations": ["list", "read"]}
            for n in numbers
        ]
        document = {"version": 1, "trust_domain": "bench.example", "services": services, "allow": allow}
        files[f"{start:09}.yaml"] = json.dumps(document).encode()
    places = {f"s{n}": {"namespace": f"n{n // 100}"} for n in range(count)}
    chapter = {"version": 1, "targets": {"services": places}}
    files["targets.yaml"] = json.dumps(chapter).encode()
    return files


def resident():
    """Return the resident set in MiB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def timed(work):
    """Return seconds of CPU, MiB of growth and the result."""
    before, began = resident(), time.process_time()
    result = work()
    return time.process_time() - began, resident() - before, result


def run_size(count, target, *, whole):
    """Compile and prove one size; print; return seconds a service of both."""
    snapshot = parse_policy(files_of(count))
    beside = () if target in ALONE else ("sdk",)
    seconds, grown, found = timed(lambda: compile_policy(snapshot, [target], beside=beside)[0])
    assert not found.failed, [one.render() for one in found.diagnostics][:3]
    size = sum(len(file.content) for file in found.files)
    objects = [list(yaml.load_all(file.content, yaml.CSafeLoader)) for file in found.files]
    dumped, _, _ = timed(lambda: [yaml.dump_all(one, Dumper=yaml.CSafeDumper) for one in objects])
    print(
        f"  {target}, {count:,} services: {size / 2**20:.2f} MiB in {len(found.files)} files, {size / count:.0f} bytes a service"
    )
    print(
        f"    compile {seconds:8.2f} s {grown:+8.1f} MiB  {seconds / count * 1e6:6.0f} µs a service; "
        f"PyYAML dumps the same objects in {dumped:.2f} s: {seconds / max(dumped, 1e-9):.2f} x"
    )
    engine, intents = Engine(snapshot), Intents(snapshot)
    material = Material(
        target=target,
        view=View(intents, target, beside),
        files={file.path: file.content for file in found.files},
        diagnostics=found.diagnostics,
    )
    built, _, system = timed(lambda: BUILDERS[target](material))
    prover = Prover(engine, intents, Oracle(engine, intents), [system], beside)
    stride = 1 if whole or count <= SAMPLE_ABOVE else 10
    chosen = [f"s{n}" for n in range(0, count, stride)]
    space = Space(engine, intents, dns=dns_of([system]), services=chosen)
    proving, grown, proof = timed(lambda: prover.prove(space))
    report = proof.targets[target]
    assert report.verdict is Verdict.EQUAL, (report.wider[:1], report.narrower[:1])
    some = list(itertools.islice(space, min(proof.requests, 50_000)))
    bare, _, _ = timed(lambda: [system.evaluate(ask) for ask in some])
    asked = len(chosen)
    per, alone = proving / proof.requests * 1e6, bare / len(some) * 1e6
    print(
        f"    prove   {proving:8.2f} s {grown:+8.1f} MiB  {proof.requests:,} requests at {asked:,} services "
        f"({proof.requests / asked / 2:.0f} a door), {per:.1f} µs each; the evaluator alone {alone:.1f} µs: {per / alone:.2f} x; "
        f"manifests read in {built:.2f} s"
    )
    return seconds / count, proving / asked


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, metavar="SERVICES")
    parser.add_argument("--target", default="linkerd", choices=tuple(BUILDERS))
    parser.add_argument("--whole", action="store_true", help="prove every service at every size")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.one:
        compiled, proven = run_size(options.one, options.target, whole=options.whole)
        print(f"  figures={compiled},{proven}")
        return 0
    print(
        f"  {platform.machine()}, CPython {platform.python_version()}, PyYAML {yaml.__version__}; CPU time, nothing warmed up"
    )
    figures = {}
    for size in options.sizes:
        command = [sys.executable, __file__, "--one", str(size), "--target", options.target]
        output = subprocess.run(
            command + ["--whole"] * options.whole, check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        shown, _, found = output.rpartition("  figures=")
        print(shown, end="", flush=True)
        figures[size] = [float(one) for one in found.split(",")]
    failed = []
    if len(figures) > 1:
        before, last = sorted(figures)[-2:]
        for index, name in enumerate(("compile", "prove")):
            growth = figures[last][index] / figures[before][index]
            print(f"  {name}: time a service grows {growth:.2f} x from {before:,} to {last:,} services")
            if growth > BAR_GROWTH:
                failed.append(f"{name} grows {growth:.2f} x, the bar is {BAR_GROWTH} x")
    print("  " + ("; ".join(failed) or f"bar met: time a service within {BAR_GROWTH} x"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
