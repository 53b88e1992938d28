# SPDX-License-Identifier: Apache-2.0
"""Whatever records hold, detectors neither raise nor grow without bound, and the same records give the same findings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings, strategies as st

from everyhop.anomaly import Outcome, observe
from everyhop.anomaly.detectors import Locations, default_detectors
from everyhop.auditlog import Kind, Point, Record

START = datetime(2026, 3, 2, tzinfo=UTC)
LOCATIONS = Locations.parse(b"network,latitude,longitude\n0.0.0.0/1,0,0\n128.0.0.0/1,50,100\n::/0,1,1\n")

texts = st.text(max_size=20)
names = st.sampled_from(
    ["orders", "spiffe://d.example/service/a", "spiffe://d.example/service/b", "\ud7ff\n", "x" * 700]
)
reasons = st.sampled_from(
    ["no-rule", "TOKEN_REPLAYED", "BINDING_MISMATCH", "TOKEN_REVOKED", "TOKEN_INVALID", "timeout"]
)
details = st.dictionaries(
    st.sampled_from(
        ["user", "api_key", "host", "source", "code", "error", "presented", "canary", "response", "account"]
    ),
    st.one_of(texts, st.integers(), st.none(), st.ip_addresses().map(str), reasons),
    max_size=6,
)
records = st.builds(
    Record,
    id=st.uuids().map(str),
    seq=st.just(1),
    producer=st.just("p"),
    time=st.timedeltas(min_value=timedelta(days=-400), max_value=timedelta(days=400)).map(
        lambda d: START + d
    ),
    kind=st.sampled_from([Kind.DECISION, Kind.TOKEN]),
    point=st.sampled_from(Point),
    caller=st.one_of(st.none(), names, texts),
    target=st.one_of(st.none(), names, texts),
    operation=st.one_of(st.none(), st.sampled_from(["exchange", "canary-used", "read"]), texts),
    path=st.one_of(st.none(), texts),
    decision=st.sampled_from(["allow", "deny"]),
    reason=st.one_of(st.none(), reasons),
    detail=details,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(records, max_size=40))
def test_any_records(seen):
    observations = [o for record in seen if (o := observe(record)) is not None]
    first, second = default_detectors(locations=LOCATIONS), default_detectors(locations=LOCATIONS)
    for one, two in zip(first, second, strict=True):
        findings = [f for o in observations for f in one.observe(o, o.time)]
        half = len(observations) // 2
        again = [f for o in observations[:half] for f in two.observe(o, o.time)]
        two.restore(dict(two.state()))
        again += [f for o in observations[half:] for f in two.observe(o, o.time)]
        assert findings == again
        for found in findings:
            assert found.first <= found.last
            assert found.evidence
            assert found.to_record_detail()["title"]
        assert all(o.outcome in Outcome for o in observations)
        assert len(one.state()) <= 10_000


@given(st.dictionaries(texts, st.binary(max_size=50), max_size=5))
def test_any_state(state):
    for detector in default_detectors(locations=LOCATIONS):
        detector.restore(state)
        detector.restore({"s ": b"", "t ": b"\xc0", "all": b"\x81\xa5tries\x01"} | state)
