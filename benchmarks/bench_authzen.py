# SPDX-License-Identifier: Apache-2.0
"""Claim: an AuthZEN answer costs at most ten times the bare decision, and a batch shares what one commit costs.

One policy with roles, a condition and a directory of 1,000 users and 1,000 resources; every answer is compared with
the expected one.  Measured in process: the bare engine; the protocol around it (parse, map, decide, encode) without and
with a durable record in SQLite; batches of 100; a subject search over 1,000 users.  Then the same over the Unix socket
that the face uses, with four clients.  CPU time where nothing waits for the disk, wall time where it does, on a machine that others share: read the ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.authzen_under_test import authzen_under_test  # the door, its socket, a real store

from everyhop.authz import Engine
from everyhop.authzen import Kind, PageTokens, answer_evaluation, answer_evaluations, answer_search
from everyhop.control.authzen_peps import Pep
from everyhop.control.authzen_point import AuthzenPoint
from everyhop.core.secret import Secret
from everyhop.policy.facts import Context, Resource, User

USERS = 1_000
BATCH = 100
HEAD = """\
version: 1
trust_domain: shop.example
services:
  gateway: {workload: [{run: true}]}
  records:
    workload: [{run: true}]
    operations: {read: "GET /records/{id}", write: "PUT /records/{id}"}
roles:
  reader: [records.read]
  editor: {includes: [reader], grants: [records.write]}
attributes:
  resource: {status: string}
allow:
  - {from: gateway, to: records, operations: [read], user: required}
  - {from: gateway, to: records, operations: [write], user: required, when: resource.status == 'active'}
directory:
  users:
"""
GATEWAY = "spiffe://shop.example/service/gateway"


def policy():
    users = "".join(f"    u{n}: {{roles: [{'editor' if n % 2 else 'reader'}]}}\n" for n in range(USERS))
    items = ", ".join(f"r{n}: {{status: {'active' if n % 3 else 'archived'}}}" for n in range(USERS))
    return f"{HEAD}{users}  resources:\n    record: {{service: records, parameter: id, items: {{{items}}}}}\n"


def expected(n):
    return n % 2 == 1 and n % 3 != 0


def question(n):
    return {
        "subject": {"type": "user", "id": f"u{n}"},
        "action": {"name": "write"},
        "resource": {"type": "record", "id": f"r{n}"},
    }


class Unrecorded:
    """A journal that keeps nothing: the price of the record is measured apart."""

    def write(self, drafts):
        pass


def timed(name, seconds, call, per=1, *, clock=time.process_time):
    """Call with 0, 1, 2, … until the time is over; print median and p99 of one item in microseconds of ``clock``."""
    times, n, end = [], 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = clock()
        call(n % USERS)
        times.append((clock() - begun) * 1e6 / per)
        n += 1
    times.sort()
    p50, p99 = statistics.median(times), times[int(len(times) * 0.99)]
    unit = "CPU" if clock is time.process_time else "wall"
    print(
        f"{name:<52} p50 {p50:>9.1f} us  p99 {p99:>9.1f} us  {1e6 * len(times) / sum(times):>8.0f}/s of {unit}"
    )
    return p50


def in_process(served, seconds):
    engine = Engine(served.snapshot)
    pep = Pep(name=GATEWAY, service="gateway")
    bodies = [json.dumps(question(n)).encode() for n in range(USERS)]
    batches = [
        json.dumps({"evaluations": [question((n + k) % USERS) for k in range(BATCH)]}).encode()
        for n in range(10)
    ]
    ids = iter(range(10**9))

    def point(journal):
        now = served.clock.now()
        return AuthzenPoint(engine, pep, now=now, journal=journal, new_id=lambda: f"{next(ids):024x}")

    def bare(n):
        context = Context(
            now=served.clock.now(), user=User(id=f"u{n}"), resource=Resource(type="record", id=f"r{n}")
        )
        path = f"/records/r{n}"
        decision = engine.decide(caller=GATEWAY, target="records", method="PUT", path=path, context=context)
        assert decision.is_allowed is expected(n)

    def one(journal):
        def ask(n):
            asked = point(journal)
            answer = answer_evaluation(asked, bodies[n])
            asked.close()
            assert json.dumps(answer)
            assert answer["decision"] is expected(n)

        return ask

    def many(journal):
        def ask(n):
            asked = point(journal)
            answer = answer_evaluations(asked, batches[n % 10])
            asked.close()
            got = [item["decision"] for item in answer["evaluations"]]
            assert got == [expected((n % 10 + k) % USERS) for k in range(BATCH)]

        return ask

    tokens = PageTokens(Secret(b"k" * 32))
    query = json.dumps({**question(1), "subject": {"type": "user"}}).encode()

    def search(_n):
        found = answer_search(point(Unrecorded()), Kind.SUBJECT, query, tokens=tokens, now=served.clock.now())
        assert len(found["results"]) == USERS // 2

    base = timed("bare decision (engine, condition, role)", seconds, bare)
    full = timed("one evaluation: parse, map, decide, encode", seconds, one(Unrecorded()))
    timed("the same with its durable record", seconds, one(served.journal), clock=time.perf_counter)
    timed(f"an item of a batch of {BATCH}", seconds, many(Unrecorded()), BATCH)
    timed("the same with its durable record", seconds, many(served.journal), BATCH, clock=time.perf_counter)
    timed(f"subject search over {USERS:,} users, each one", seconds, search, USERS)
    print(f"one evaluation is {full / base:.1f} bare decisions (bar: 10)")
    return full / base <= 10


def over_socket(served, seconds, clients):
    counts, stop = [0] * clients, threading.Event()

    opened = [
        served.as_service("gateway") for _ in range(clients)
    ]  # the costly part of a client, before the clock

    def run(index):
        client, n = opened[index], index
        while not stop.is_set():
            answer = client.post("/access/v1/evaluation", json=question(n % USERS)).json()
            assert answer["decision"] is expected(n % USERS)
            counts[index] += 1
            n += clients

    threads = [threading.Thread(target=run, args=(i,)) for i in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    rate = sum(counts) / (time.perf_counter() - begun)
    print(f"over the Unix socket, {clients} clients in this same process, records durable: {rate:,.0f}/s")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each figure")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="eh-") as directory,
        authzen_under_test(policy(), Path(directory)) as served,
    ):
        is_met = in_process(served, args.seconds)
        over_socket(served, args.seconds, 4)
    return 1 if args.check and not is_met else 0


if __name__ == "__main__":
    raise SystemExit(main())
