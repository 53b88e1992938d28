# SPDX-License-Identifier: Apache-2.0
"""A detection engine with a log of a test's own making."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

from everyhop.anomaly.engine import Engine
from everyhop.anomaly.window import MemoryWindows
from everyhop.auditlog import Kind, Point, Record
from everyhop.policy import parse_policy

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
POLICY = "version: 1\ntrust_domain: shop.example\nservices: {orders: {}, batch: {}, store: {}}\n"


def snapshot_with(detect=None):
    """A policy with this chapter ``detect``."""
    text = POLICY if detect is None else f"{POLICY}detect: {detect}\n"
    return parse_policy({"policy.yaml": text.encode()})


def identity(name):
    return f"spiffe://shop.example/service/{name}"


_numbers = itertools.count(1)


def record(*, at=NOON, **fields):
    """A refused call of ``orders`` to ``store``, or whatever the fields say."""
    n = next(_numbers)
    base = {
        "id": f"r{n}",
        "seq": n,
        "producer": "p",
        "time": at,
        "kind": Kind.DECISION,
        "point": Point.INGRESS,
        "caller": identity("orders"),
        "target": "store",
        "operation": "read",
        "decision": "deny",
        "reason": "no-rule",
    }
    return Record(**{**base, **fields})


def of_user(name, **fields):
    return record(decision="allow", reason="allowed", detail={"user": name}, **fields)


def of_address(address, **fields):
    base = {"point": Point.EDGE, "caller": "outside", "decision": "allow", "reason": "allowed"}
    return record(**{**base, "detail": {"host": address}, **fields})


class Watched:
    """An engine over a log that grows; time stands still unless it is moved."""

    def __init__(self, detect=None, *, detectors=(), windows=None):
        self.windows = MemoryWindows() if windows is None else windows
        self.engine = Engine(snapshot_with(detect), self.windows, detectors)
        self.wall = NOON
        self.now = 0.0
        self.position = 0

    def move(self, seconds):
        self.wall += timedelta(seconds=seconds)
        self.now += seconds

    def take(self, records):
        numbered = []
        for one in records:
            self.position += 1
            numbered.append((self.position, one))
        return self.engine.take(numbered, wall=self.wall, now=self.now)

    def calls(self, n, make=record, *arguments, **fields):
        """``n`` calls of now, one at a time; what was found at which of them (from 1)."""
        found = []
        for number in range(1, n + 1):
            found += [(number, judged) for judged in self.take([make(*arguments, at=self.wall, **fields)])]
        return found


def told(found):
    return [(number, judged.answer.value) for number, judged in found]
