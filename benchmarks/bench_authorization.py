# SPDX-License-Identifier: Apache-2.0
"""Claim: a decision costs at most 5 µs (p50), flat from 10 to 10,000 rules, at least ten times less than its peers.

Three questions (``authorization_cases.py``): ``edges`` (may A call METHOD /path on B), ``conditions`` (the same, with
a condition on the user in each rule), ``roles`` (100 roles, 744 grants, 500 users).  Peers in the same run, in this
process's language: a plain scan, cedarpy, pycasbin, regopy; and OPA, in Go, twice: ``opa bench`` counts one evaluation inside
OPA, which is how an engine compares with an engine, and ``opa http`` is a call of its server on loopback, which is how
Python asks OPA.  Policies are equivalent and each written as suits its engine: OPA's data is indexed in the order of
the question, its roles are expanded beforehand, and peers are told the action where everyhop finds it from the path.

Each engine runs in a process of its own; memory is the growth of its resident set by loading and by a first pass (for OPA the whole
server). Every answer is compared with the expected one; a wrong one ends the run. A peer is skipped where it
does not load in time or answers too slowly to say anything; the output says so. Where a peer wins, its line says so.

p50 and p99 are over all calls after the first pass. The bar on our own p50 takes the quietest pass instead, and flatness
is measured with the sizes in turns: on a shared machine anything else measures the neighbours.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import opa_peer  # noqa: E402
from benchmarks.authorization_cases import SUITES, case_of  # noqa: E402
from benchmarks.authorization_engines import ENGINES, AbsentError, rego_of  # noqa: E402
from tests.support.peers import peer_program, why_absent  # noqa: E402

SIZES = (10, 100, 1_000, 10_000, 100_000)
FLAT_UP_TO = 10_000
BAR_US = {"edges": 5.0}
BAR_FLAT = 1.5
BAR_PEER = 10.0
IN_PYTHON = ("cedarpy", "pycasbin", "regopy")
ASK_SECONDS = 2.0  # for one engine at one size
ENGINE_SECONDS = {"everyhop": 180.0}  # for everything that one engine does at one size
OTHERS_SECONDS = 30.0
ROUNDS = 400
TURNS, PASSES_A_TURN = 40, 8
FEWEST = 40  # requests; fewer say nothing


class WrongAnswerError(Exception):
    """An engine gave another answer than the rules: its figures would mean nothing."""


def measure(ask, questions, *, rounds=ROUNDS, seconds=ASK_SECONDS):
    """Return µs a call by pass, without the first (the warm-up) when there are more; each answer is compared first.

    ``questions`` are pairs of what ``ask`` takes and the bool that it must give.
    """
    clock = time.perf_counter_ns
    end = time.monotonic() + seconds
    passes = []
    for _ in range(rounds):
        took = []
        for question, expected in questions:
            start = clock()
            answer = ask(question)
            took.append((clock() - start) / 1000)
            if answer is not expected:
                raise WrongAnswerError(f"{question}: {answer}, expected {expected}")
            if time.monotonic() > end and len(took) >= FEWEST:
                break
        passes.append(took)
        if time.monotonic() > end:
            break
    return passes[1:] or passes


def flatten(passes):
    return [microseconds for took in passes for microseconds in took]


def quantiles(values):
    ordered = sorted(values)
    return statistics.median(ordered), ordered[int(len(ordered) * 0.99)]


def run_engine(name, suite, size):
    """Measure one engine in this process."""
    case = case_of(suite, size)
    make = ENGINES[name]
    make(case_of(suite, 10))  # imports, and what an engine sets up once
    gc.collect()
    before = opa_peer.resident(os.getpid())
    began = time.perf_counter()
    prepare, ask = make(case)
    loaded = time.perf_counter() - began
    questions = [(prepare(request), request.expected) for request in case.requests]
    measure(ask, questions, rounds=1, seconds=ASK_SECONDS / 2)
    gc.collect()
    memory = opa_peer.resident(os.getpid()) - before
    passes = measure(ask, questions)
    p50, p99 = quantiles(flatten(passes))
    quiet = min(map(statistics.median, passes))
    return {"p50": p50, "p99": p99, "quiet": quiet, "load": loaded, "memory": memory, "passes": len(passes)}


def run_growth(suite, sizes):
    """Return everyhop's p50 in its quietest pass by size, in turns in one process: neighbours meet every size."""
    asked = {}
    for size in sizes:
        case = case_of(suite, size)
        prepare, ask = ENGINES["everyhop"](case)
        asked[size] = ask, [(prepare(request), request.expected) for request in case.requests]
    quiet = dict.fromkeys(sizes, math.inf)
    for _ in range(TURNS):
        for size, (ask, questions) in asked.items():
            passes = measure(ask, questions, rounds=PASSES_A_TURN)  # the first brings the caches back
            quiet[size] = min(quiet[size], *map(statistics.median, passes))
    return quiet


def run_opa(program, suite, size):
    """Measure OPA's engine and its server; return the figures of both."""
    case = case_of(suite, size)
    rego = rego_of(case)
    questions = [(opa_peer.Client.prepare(rego.input_of(r)), r.expected) for r in case.requests]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        began = time.perf_counter()
        with opa_peer.server(program, rego, directory) as (process, port):
            loaded = time.perf_counter() - began
            ask = opa_peer.Client(port).ask
            measure(ask, questions, rounds=1)
            passes = measure(ask, questions)
            memory = opa_peer.resident(process.pid)
        p50, p99 = quantiles(flatten(passes))
        http = {"p50": p50, "p99": p99, "load": loaded, "memory": memory, "passes": len(passes)}
        engine = {}
        for expected in (True, False):
            request = next(r for r in case.requests if r.expected is expected)
            median, high = opa_peer.bench(program, rego, rego.input_of(request), directory)
            engine["allowed" if expected else "denied"] = median
            engine["p99"] = max(engine.get("p99", 0.0), high)
    engine["p50"] = (engine["allowed"] + engine["denied"]) / 2
    return {"opa bench": engine, "opa http": http}


def line_of(name, found, ours):
    text = f"    {name:<10} p50 {found['p50']:10,.2f} µs  p99 {found['p99']:10,.2f} µs"
    if "load" in found:
        text += f"  load {found['load']:7.2f} s  memory {found['memory']:+8.1f} MiB"
    else:
        text += f"  (allowed {found['allowed']:.1f}, denied {found['denied']:.1f})"
    if name == "everyhop":
        text += f"  quietest pass p50 {found['quiet']:.2f}"
    elif ours:
        ratio = found["p50"] / ours["p50"]
        text += f"  {ratio:9,.1f} x" + ("  WINS" if ratio < 1 else "")
    return text


def run_size(suite, size, engines, program):
    """Measure every engine with one case; return the figures by name."""
    case = case_of(suite, size)
    allowed = sum(request.expected for request in case.requests)
    print(f"  {suite}, {case.rules:,} rules, {len(case.requests)} requests, {allowed} allowed", flush=True)
    results = {}
    for name in engines:
        if name == "opa":
            found = {} if program is None else run_opa(program, suite, size)
            if program is None:
                print(f"    opa        skipped: {why_absent('opa')}")
            for part, figures in found.items():
                results[part] = figures
                print(line_of(part, figures, results.get("everyhop")), flush=True)
            continue
        command = [sys.executable, __file__, "--one", name, suite, str(size)]
        limit = ENGINE_SECONDS.get(name, OTHERS_SECONDS)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        except subprocess.TimeoutExpired:
            print(f"    {name:<10} skipped: not loaded and asked within {limit:.0f} s", flush=True)
            continue
        if done.returncode == 77:
            print(f"    {name:<10} skipped: {done.stdout.strip()}")
            continue
        if done.returncode != 0:
            raise WrongAnswerError(f"{name}: {done.stderr.strip().splitlines()[-1]}")
        results[name] = json.loads(done.stdout)
        print(line_of(name, results[name], results.get("everyhop")), flush=True)
    return results


def judge(figures, growth):
    """Return what misses its bar; ``growth`` is p50 by size, by suite."""
    failed = []
    for (suite, size), results in figures.items():
        quiet = results.get("everyhop", {}).get("quiet", 0.0)
        if size <= FLAT_UP_TO and quiet > BAR_US.get(suite, quiet):
            failed.append(f"{suite}: p50 at {size:,} rules is {quiet:.2f} µs, the bar is {BAR_US[suite]} µs")
    for suite, found in growth.items():
        times = max(found.values()) / min(found.values())
        if times > BAR_FLAT:
            failed.append(f"{suite}: {times:.2f} x over all sizes, the bar is {BAR_FLAT} x")
    for (suite, size), results in figures.items():
        if size != 1_000 or "everyhop" not in results:
            continue
        failed += [
            f"{suite}: less than {BAR_PEER:.0f} x faster than {name}"
            for name in IN_PYTHON
            if name in results and results[name]["p50"] < BAR_PEER * results["everyhop"]["p50"]
        ]
    return failed


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suites", nargs="*", default=SUITES, choices=SUITES)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--engines", nargs="*", default=(*ENGINES, "opa"), choices=(*ENGINES, "opa"))
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--growth", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.growth:
        suite, *sizes = options.growth
        print(json.dumps(run_growth(suite, [int(size) for size in sizes])))
        return 0
    if options.one:
        name, suite, size = options.one
        try:
            print(json.dumps(run_engine(name, suite, int(size))))
        except AbsentError as error:
            print(error)
            return 77
        return 0
    program = peer_program("opa")
    packages = " ".join(f"{name} {version(name)}" for name in IN_PYTHON)
    if program:
        shown = subprocess.run([program, "version"], capture_output=True, text=True, check=True).stdout
        packages += " OPA " + shown.partition("Version: ")[2].split()[0]
    print(
        f"  {platform.machine()}, CPython {platform.python_version()}, {packages}; one thread, first passes apart as warm-up"
    )
    figures = {}
    for suite in options.suites:
        for size in options.sizes if suite != "roles" else (1_000,):
            figures[suite, size] = run_size(suite, size, options.engines, program)
    growth = {}
    flat = [size for size in options.sizes if size <= FLAT_UP_TO]
    if "edges" in options.suites and "everyhop" in options.engines and len(flat) > 1:
        command = [sys.executable, __file__, "--growth", "edges", *map(str, flat)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        growth["edges"] = {int(size): p50 for size, p50 in json.loads(done.stdout).items()}
        shown = ", ".join(f"{size:,}: {p50:.2f}" for size, p50 in growth["edges"].items())
        print(f"  everyhop, edges, sizes in turns in one process, p50 of the quietest pass in µs: {shown}")
    failed = judge(figures, growth)
    print("  " + ("; ".join(failed) or "bars met"))
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # who is stopped early ends what it has started
    sys.exit(main())
