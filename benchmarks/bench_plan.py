# SPDX-License-Identifier: Apache-2.0
"""Claim: what a small change of a policy of 10,000 services (100,000 doors) opens is known in seconds.

One service in ten has a conditional rule, every one a probe, each calls three others.  Changes, one at a time: none, one rule
more, a boundary of one condition, a role that grants more, a new service (which every probe is open to), `from: any` on one
service.  Two snapshots are compared in memory; building the two engines is part of it.  The answer of each change is
checked.  Prints what it measured, as JSON with -o json.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import time
from dataclasses import replace

from everyhop.authz.difference import compare
from everyhop.policy import parse_policy
from everyhop.spiffe.ids import SpiffeId

OPERATIONS = 9
SMALL = 40  # services of the policy that a change is read from
BAR_SECONDS = 30.0


def policy_of(count, *, more="", hour=7, role="s1.o1", service="", first="s2"):
    """Return the text of a policy of so many services."""
    lines = [
        "version: 1",
        "trust_domain: bench.example",
        "roles:",
        f"  viewer: [s0.o0, {role}]",
        "services:",
    ]
    for n in range(count):
        lines.append(f"  s{n}:")
        lines.append("    probes: [GET /healthz]")
        lines.append("    operations:")
        lines += [f'      o{k}: "GET /r{k}/{{id}}"' for k in range(OPERATIONS)]
    lines.append(service)
    lines.append("allow:")
    for n in range(count):
        for step in (1, 7, 31):
            caller = f"s{(n + step) % count}"
            lines.append(f"  - {{from: {caller}, to: s{n}, operations: [o0, o{step % OPERATIONS}]}}")
        if n % 10 == 0:
            at = hour if n == 0 else 7
            lines.append(
                f"  - {{from: s{(n + 2) % count}, to: s{n}, operations: [o8], when: \"now.getHours('UTC') >= {at}\"}}"
            )
    lines.append("  - {from: s3, to: s1, operations: [o1, o2], user: required}")
    lines.append(f"  - {{from: {first}, to: s5, operations: [o5]}}")
    lines.append(more)
    return "\n".join(lines)


CHANGES = {
    "nothing": ({}, 0),
    "one rule more": ({"more": "  - {from: s9, to: s4, operations: [o3]}"}, 1),
    "a boundary of one condition": ({"hour": 6}, 1),
    "a role that grants more": ({"role": "s1.*"}, 1),
    "a new service": ({"service": "  extra: {}"}, None),
    "from: any at one operation": ({"first": "any"}, 1),
}


def changed(old, edit):
    """Return the big policy with one part of it taken from a small one, which is read in no time."""
    if not edit:
        return replace(old, hash="0" * 64)
    small = parse_policy({"small.yaml": policy_of(SMALL, **edit).encode()})
    rules = list(old.rules)
    if "more" in edit:
        rules.append(small.rules[-1])
    if "first" in edit:
        rules[-1] = small.rules[-1]
    if "hour" in edit:
        place = next(n for n, rule in enumerate(rules) if rule.when and rule.targets == frozenset({"s0"}))
        rules[place] = next(rule for rule in small.rules if rule.when and rule.targets == frozenset({"s0"}))
    services = {**old.services, "extra": small.services["extra"]} if "service" in edit else old.services
    return replace(
        old, rules=tuple(rules), roles=small.roles, services=dict(sorted(services.items())), hash="0" * 64
    )


def big(count):
    """Return the policy of so many services, put together from the parts of a small one: reading it is not measured here."""
    small = parse_policy({"small.yaml": policy_of(SMALL).encode()})
    names = [f"s{n}" for n in range(count)]
    first = small.services["s0"]
    services = {
        name: replace(first, name=name, spiffe_id=SpiffeId.parse(f"spiffe://bench.example/service/{name}"))
        for name in names
    }
    timed = next(rule for rule in small.rules if rule.when)
    rules = []

    def add(like, caller, target, operations):
        rules.append(
            replace(
                like,
                id=f"allow[{len(rules)}]",
                callers=frozenset({caller}),
                targets=frozenset({target}),
                operations=frozenset(operations),
            )
        )

    for n, name in enumerate(names):
        for step in (1, 7, 31):
            add(small.rules[0], names[(n + step) % count], name, ("o0", f"o{step % OPERATIONS}"))
        if n % 10 == 0:
            add(timed, names[(n + 2) % count], name, ("o8",))
    rules += small.rules[-2:]
    return replace(small, services=dict(sorted(services.items())), rules=tuple(rules), hash="1" * 64)


def main():
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--change", choices=CHANGES, help="this change alone")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    args = parser.parse_args()
    began = time.perf_counter()
    old = big(args.services)
    making = time.perf_counter() - began
    rows = []
    for name, (edit, expected) in CHANGES.items():
        if args.change not in {None, name}:
            continue
        new = changed(old, edit)
        began, worked = time.perf_counter(), time.process_time()
        plan = compare(old, new)
        seconds, cpu = time.perf_counter() - began, time.process_time() - worked
        wanted = args.services if expected is None else expected
        if len(plan.gained) != wanted or plan.lost or plan.unexplored:
            sys.exit(f"{name}: {len(plan.gained)} gained, {len(plan.lost)} lost, but {wanted} were expected")
        rows.append(
            {
                "change": name,
                "seconds": round(seconds, 3),
                "cpu_seconds": round(cpu, 3),
                "gained": len(plan.gained),
                "doors_asked": plan.explored,
                "requests": plan.evaluated,
            }
        )
        if args.output == "text":
            print(
                f"{name:32} {seconds:7.2f} s ({cpu:.2f} s of processor)   {len(plan.gained):6} gained, {plan.explored:6} doors asked, "
                f"{plan.evaluated:6} requests",
                flush=True,
            )
    slowest = max(row["seconds"] for row in rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    summary = {
        "services": args.services,
        "doors": args.services * (OPERATIONS + 1),
        "rules": len(old.rules),
        "making_seconds": round(making, 2),
        "peak_mib": round(peak),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "met": slowest < BAR_SECONDS,
        "rows": rows,
    }
    if args.output == "json":
        print(json.dumps(summary, indent=2))
    else:
        print(
            f"{summary['services']} services, {summary['doors']} doors, {summary['rules']} rules; "
            f"peak {peak:.0f} MiB, Python {summary['python']}; slowest {slowest:.2f} s (bar {BAR_SECONDS:.0f} s)"
        )
    return 0 if summary["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
