# SPDX-License-Identifier: Apache-2.0
"""Claim: a decision costs at most 5 µs (p50), the same for 10 rules and for 100,000, and ten times less than its peers.

Question: may caller A call METHOD /path on service B?  One allow rule per edge (caller, operation); half of the
requests are allowed, the others fail by caller, method, path or target.  Peers in the same run: a linear scan
with compiled regular expressions, pycasbin (matcher over subject, service, method, keyMatch2) and cedarpy (one
permit per rule, PolicySet handle).  Every answer of every engine is compared with the expected one.  A peer is
skipped where loading, or forty requests, would take it longer than its budget; the output says so.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import re
import statistics
import sys
import time
from importlib.metadata import version

from everyhop.authz import Engine
from everyhop.policy import decode_snapshot, encode_snapshot, parse_policy

SIZES = (10, 1_000, 10_000, 100_000)
FLAT_UP_TO = 10_000
BAR_US = 5.0
BAR_FLAT = 1.5
BAR_PEER = 10.0
OPERATIONS_PER_SERVICE = 20
REQUESTS = 500
BUDGET_SECONDS = 6.0  # for one engine at one size
TRIALS = 2  # calls that tell whether a peer fits its budget
FEWEST = 40  # requests; fewer say nothing
TRUSTED_SIZE = 1_000  # below it, loading time is mostly start-up
DOMAIN = "bench.example"

MODEL = """
[request_definition]
r = sub, dom, act, path
[policy_definition]
p = sub, dom, act, path
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.sub == p.sub && r.dom == p.dom && r.act == p.act && keyMatch2(r.path, p.path)
"""


def edges_of(count, rng):
    """Return (caller, target, method, resource) edges: `count` different ones."""
    targets = max(2, count // (OPERATIONS_PER_SERVICE * 5))
    callers = max(5, targets)
    edges = {}
    while len(edges) < count:
        caller, target = f"c{rng.randrange(callers)}", f"t{rng.randrange(targets)}"
        resource = rng.randrange(min(OPERATIONS_PER_SERVICE, max(2, count // targets)))
        method = ("GET", "POST")[resource % 2]
        edges[caller, target, method, f"r{resource}"] = None
    return list(edges)


def snapshot_of(edges):
    """Return the policy of these edges, from text: the parser is part of what people run."""
    services = {caller: {} for caller, _, _, _ in edges}
    allow = []
    for caller, target, method, resource in edges:
        entry = services.setdefault(target, {"operations": {}})
        entry["operations"][resource] = f"{method} /v1/{resource}/{{id}}"
        allow.append({"from": caller, "to": target, "operations": [resource]})
    head = {"version": 1, "trust_domain": DOMAIN, "services": services}
    files = {"0.json": json.dumps(head).encode()}
    step = 20_000  # a file has at most 4 MiB
    for start in range(0, len(allow), step):
        part = {"version": 1, "allow": allow[start : start + step]}
        files[f"1-{start:09}.json"] = json.dumps(part).encode()
    return parse_policy(files)


def requests_of(edges, rng):
    """Return (caller, target, method, path, expected) with half of them allowed."""
    known = set(edges)
    found = []
    while len(found) < REQUESTS:
        caller, target, method, resource = rng.choice(edges)
        identifier = rng.randrange(10**6)
        kind = rng.choice(("allow", "allow", "allow", "allow", "caller", "method", "path", "target"))
        if kind == "caller":
            caller = rng.choice(edges)[0]
        elif kind == "method":
            method = "PUT"
        elif kind == "path":
            resource += "x"
        elif kind == "target":
            target = rng.choice(edges)[1]
        found.append(
            (
                caller,
                target,
                method,
                f"/v1/{resource}/{identifier}",
                (caller, target, method, resource) in known,
            )
        )
    return found


def ours(edges):
    began = time.perf_counter()
    snapshot = snapshot_of(edges)
    parsed = time.perf_counter()
    decode_snapshot(encode_snapshot(snapshot))
    decoded = time.perf_counter()
    engine = Engine(snapshot)
    built = time.perf_counter()
    print(
        f"    build: parse {parsed - began:.2f} s, encode and decode {decoded - parsed:.2f} s, index {built - decoded:.2f} s"
    )
    decide = engine.decide
    ids = {name: str(service.spiffe_id) for name, service in snapshot.services.items()}

    def prepare(requests):
        return [((ids[c], t, m, p), expected) for c, t, m, p, expected in requests]

    def ask(question):
        caller, target, method, path = question
        return decide(caller=caller, target=target, method=method, path=path).is_allowed

    return prepare, ask


def naive(edges):
    rules = [(c, t, m, re.compile(f"/v1/{r}/[^/]+")) for c, t, m, r in edges]

    def ask(question):
        caller, target, method, path = question
        return any(c == caller and t == target and m == method and x.fullmatch(path) for c, t, m, x in rules)

    return _plain, ask


def casbin_engine(edges):
    import casbin

    model = casbin.Model()
    model.load_model_from_text(MODEL)
    enforcer = casbin.Enforcer(model)
    enforcer.add_policies([[c, t, m, f"/v1/{r}/:id"] for c, t, m, r in edges])
    return _plain, lambda question: enforcer.enforce(*question)


def cedar_engine(edges):
    import cedarpy

    policies = cedarpy.PolicySet.from_str(
        "\n".join(
            f'permit(principal == Service::"{c}", action == Action::"{m}", resource == Service::"{t}")'
            f' when {{ context.path like "/v1/{r}/*" }};'
            for c, t, m, r in edges
        )
    )
    entities = cedarpy.Entities.from_json_str("[]")

    def ask(question):
        caller, target, method, path = question
        request = {
            "principal": f'Service::"{caller}"',
            "action": f'Action::"{method}"',
            "resource": f'Service::"{target}"',
            "context": {"path": path},
        }
        return cedarpy.is_authorized(request, policies, entities).allowed

    return _plain, ask


def _plain(requests):
    return [((c, t, m, p), expected) for c, t, m, p, expected in requests]


def measure(ask, questions, rounds):
    """Return the first pass and the later passes, in µs, after checking every answer."""
    clock = time.perf_counter_ns
    passes = []
    for _ in range(rounds):
        took = []
        for question, expected in questions:
            start = clock()
            answer = ask(question)
            took.append((clock() - start) / 1000)
            assert answer == expected, (question, answer, expected)
        passes.append(took)
    later = [x for took in passes[1:] for x in took] or passes[0]
    return passes[0], later


def quantiles(values):
    ordered = sorted(values)
    return statistics.median(ordered), ordered[int(len(ordered) * 0.99)]


def run_size(size, peers, last):
    """Measure all engines at one size; return p50 by engine. `last`: size and seconds of each one's last loading."""
    rng = random.Random(size)
    edges = edges_of(size, rng)
    requests = requests_of(edges, rng)
    print(f"  {size:,} rules, {len(requests)} requests, {sum(r[-1] for r in requests)} allowed")
    results = {}
    for name, make in peers.items():
        before = last.get(name)
        load = before[1] * (size / before[0]) if before and before[0] >= TRUSTED_SIZE else 0.0
        if name != "everyhop" and load > BUDGET_SECONDS:
            print(f"    {name:<10} skipped: about {load:,.0f} s to load")
            continue
        began = time.perf_counter()
        prepare, ask = make(edges)
        last[name] = size, time.perf_counter() - began
        questions = prepare(requests)
        began = time.perf_counter()
        for question, _ in questions[:TRIALS]:
            ask(question)
        call = (time.perf_counter() - began) / TRIALS
        if name != "everyhop":
            questions = questions[: int(BUDGET_SECONDS / 2 / call)]
        if len(questions) < FEWEST:
            print(f"    {name:<10} skipped: about {call * 1000:,.0f} ms a call")
            continue
        rounds = 40 if name == "everyhop" else 2 if call * len(questions) < BUDGET_SECONDS / 4 else 1
        first, later = measure(ask, questions, rounds)
        p50, p99 = quantiles(later)
        ratio = f"  {p50 / results['everyhop']:9,.1f} x" if "everyhop" in results else ""
        note = f"  first pass p50 {quantiles(first)[0]:.1f}" if name == "everyhop" else ""
        print(
            f"    {name:<10} p50 {p50:10,.2f} µs  p99 {p99:10,.2f} µs  ({len(questions)} requests){ratio}{note}"
        )
        results[name] = p50
    return results


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args(argv)
    peers = {"everyhop": ours, "naive": naive}
    if not options.no_peers:
        peers |= {"cedarpy": cedar_engine, "pycasbin": casbin_engine}
    packages = " ".join(f"{name} {version(name)}" for name in ("cedarpy", "pycasbin"))
    print(
        f"  {platform.machine()}, CPython {platform.python_version()}, {packages}; one thread, first pass apart as warm-up"
    )
    figures, last = {}, {}
    for size in options.sizes:
        figures[size] = run_size(size, peers, last)
    failed = []
    for size, result in figures.items():
        if size <= FLAT_UP_TO and result["everyhop"] > BAR_US:
            failed.append(f"p50 at {size:,} rules is {result['everyhop']:.2f} µs, the bar is {BAR_US} µs")
    flat = [result["everyhop"] for size, result in figures.items() if size <= FLAT_UP_TO]
    if max(flat) > BAR_FLAT * min(flat):
        failed.append(
            f"not flat up to {FLAT_UP_TO:,} rules: {max(flat) / min(flat):.2f} x, the bar is {BAR_FLAT} x"
        )
    for name, p50 in figures.get(1_000, {}).items():
        if name in {"cedarpy", "pycasbin"} and p50 < BAR_PEER * figures[1_000]["everyhop"]:
            failed.append(f"less than {BAR_PEER:.0f} x faster than {name} at 1,000 rules")
    print(
        "  "
        + (
            "; ".join(failed)
            if failed
            else f"bars met: p50 <= {BAR_US} µs, flat within {BAR_FLAT} x, >= {BAR_PEER:.0f} x peers"
        )
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
