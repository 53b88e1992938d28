# SPDX-License-Identifier: Apache-2.0
"""Records, the keys that sign them, and logs made of both."""

from __future__ import annotations

from datetime import timedelta

from tests.support.identity import DOMAIN_ID, HOUR, NOW, TestCa, new_key

from everyhop.auditlog import Kind, Point, Record, encode_record
from everyhop.auditlog.sealing import SealKey, Stored, seal_digest, seal_records, sealed_hash

AGENT = f"{DOMAIN_ID}/everyhop/agent/a1"


def record(seq, producer="i1", **more):
    values = {"id": f"{producer}-{seq}", "seq": seq, "producer": producer, "time": NOW}
    return Record(**{**values, "kind": Kind.DECISION, "point": Point.INGRESS, "path": f"/{seq}", **more})


def seal_key(ca, uri=AGENT, *, not_after=NOW + HOUR):
    key = new_key()
    chain = [ca.leaf(key=key, uri=uri, not_after=not_after)]
    return SealKey.of(chain, key, NOW + HOUR)


class Log:
    """A log as a database would hold it, to be changed by whoever may write there."""

    def __init__(self):
        self.ca = TestCa()
        self.lines: list[Stored] = []
        self.seals = []
        self.certificates = {}

    @property
    def authorities(self):
        return [self.ca.der]

    def add(self, records, key=None):
        self.lines += [Stored(r.producer, r.seq, encode_record(r)) for r in records]
        if key is None:
            return None
        before = [s for s in self.seals if s.producer == records[0].producer]
        seal = seal_records(
            records[0].producer,
            records[0].seq,
            [sealed_hash(r) for r in records],
            previous=seal_digest(before[-1]) if before else b"",
            now=NOW + timedelta(seconds=len(before)),
            key=key,
        )
        self.seals.append(seal)
        self.certificates[key.thumbprint] = b"".join(key.chain)
        return seal

    def sorted(self):
        return sorted(self.lines), sorted(self.seals, key=lambda s: (s.producer, s.first))
