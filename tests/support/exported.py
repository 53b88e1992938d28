# SPDX-License-Identifier: Apache-2.0
"""Records to export, and a receiver that fails as it is told."""

import asyncio
from datetime import timedelta

from tests.support.identity import NOW

from everyhop.auditlog import Kind, Point, Record, encode_record
from everyhop.core.errors import Unavailable
from everyhop.exports import Item


def record(n, **fields):
    base = {
        "id": f"{n:024x}",
        "seq": n,
        "producer": "agent-1",
        "time": NOW + timedelta(seconds=n),
        "kind": Kind.DECISION,
        "point": Point.INGRESS,
        "caller": "spiffe://shop.example/service/orders",
        "target": "payments",
        "method": "GET",
        "path": f"/v1/charges/{n}",
        "decision": "deny" if n % 5 == 0 else "allow",
        "rule": "allow[0]",
        "status": 403 if n % 5 == 0 else 200,
    }
    return Record(**{**base, **fields})


def item(n, **fields):
    made = record(n, **fields)
    return Item(index=n, record=made, line=encode_record(made))


class FakeSink:
    """Takes items; ``errors`` are raised, one a call; with ``lag`` the newest of them stay unconfirmed."""

    def __init__(self, *, lag=0):
        self.received = []
        self.calls = []
        self.errors = []
        self.lag = lag
        self.is_hanging = False
        self.tells = []
        self.closed = 0
        self._session = []
        self.got = asyncio.Event()

    async def send(self, items):
        self.calls.append([i.index for i in items])
        if self.is_hanging:
            await asyncio.Event().wait()
        if self.errors:
            error = self.errors.pop(0)
            if error is not None:
                raise error
        self.received += [i.index for i in items]
        self._session += [i.index for i in items]
        self.got.set()
        return await self.settle()

    async def settle(self):
        confirmed = self._session[: len(self._session) - self.lag]
        return confirmed[-1] if confirmed else 0

    async def close(self):
        self.closed += 1
        done = await self.settle()
        self._session = []
        return done

    def told(self):
        tells, self.tells = self.tells, []
        return tells


class BrokenLines:
    """A database that is down for the first questions."""

    def __init__(self, lines, failures):
        self._lines = lines
        self.failures = failures

    def read(self, after, *, limit, max_bytes):
        if self.failures:
            self.failures -= 1
            raise Unavailable("the database does not answer")
        return self._lines.read(after, limit=limit, max_bytes=max_bytes)

    def head(self):
        return self._lines.head()
