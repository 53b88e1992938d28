# SPDX-License-Identifier: Apache-2.0
"""Observations as the door makes them from records, in short words."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime, timedelta

from everyhop.anomaly import observe
from everyhop.auditlog import Kind, Point, Record

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)  # a Monday
DOMAIN = "spiffe://shop.example/service/"
_numbers = itertools.count(1)


def later(**parts):
    return NOW + timedelta(**parts)


def act(
    time=NOW, *, kind=Kind.DECISION, point=Point.INGRESS, caller="orders", reason=None, detail=None, **values
):
    number = next(_numbers)
    if point is Point.EDGE:
        caller = "outside"
    elif caller is not None and "://" not in caller:
        caller = DOMAIN + caller
    values = {"target": "payments", "operation": "charge", "method": "GET", "path": "/x"} | values
    record = Record(
        id=f"r{number}",
        seq=number,
        producer="test",
        time=time,
        kind=kind,
        point=point,
        caller=caller,
        decision="allow" if reason is None else "deny",
        reason=reason or "allowed",
        detail=detail or {},
        **values,
    )
    seen = observe(record)
    assert seen is not None
    return seen


def at_edge(time=NOW, *, host="198.51.100.7", user=None, reason=None, **values):
    detail = {"host": host} | ({"user": user} if user else {})
    return act(time, point=Point.EDGE, detail=detail, reason=reason, **values)


def tried(time=NOW, *, source="198.51.100.7", fails=False, **detail):
    """One credential exchanged; ``detail`` has user= or api_key=."""
    more = {"code": "TOKEN_INVALID", "error": "invalid_request"} if fails else {}
    return act(
        time,
        kind=Kind.TOKEN,
        point=Point.CONTROL,
        caller="web",
        operation="exchange",
        reason="not accepted" if fails else None,
        detail={"source": source, **more, **detail},
    )


def feed(detector, observations):
    """Return all findings; no text of them may name a person or an address, which could not be forgotten there."""
    found = [found for o in observations for found in detector.observe(o, o.time)]
    named = {name for o in observations for name in (o.user, o.address) if name}
    texts = [text for f in found for text in (f.title, f.suggestion)]
    assert not [name for name in named if any(re.search(rf"\b{re.escape(name)}\b", text) for text in texts)]
    return found


def feed_with_restarts(make, observations):
    """The same with a new detector for every observation, which knows only what was stored."""
    found, state = [], {}
    for o in observations:
        detector = make()
        detector.restore(state)
        found += detector.observe(o, o.time)
        state = dict(detector.state())
    return found
