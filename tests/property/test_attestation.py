# SPDX-License-Identifier: Apache-2.0
"""Whatever bytes come in, nothing crashes; whatever selectors are added, no identity is lost."""

import contextlib
import tempfile
from pathlib import Path

from hypothesis import given, strategies as st

from everyhop.agent.launch_file import Launch, read_launches, write_launches
from everyhop.agent.matching import entitled, explain
from everyhop.core.errors import AttestationError
from everyhop.core.problems import Span
from everyhop.policy.model import Selector, Service, Snapshot
from everyhop.spiffe.ids import SpiffeId, TrustDomain
from everyhop.wire.processes import ProcessRef, parse_stat

SPAN = Span(file="p", line=1, column=1)
KINDS = st.sampled_from(["uid", "user", "gid", "group", "path", "sha256"])
UNIX = st.builds(
    lambda kind, value: Selector(type="unix", value=f"{kind}:{value}"), KINDS, st.sampled_from("abc")
)
SELECTOR = UNIX | st.builds(lambda name: Selector(type="run", value=name), st.sampled_from("abc"))
SELECTORS = st.frozensets(SELECTOR, max_size=6)
WORKLOAD = st.lists(st.frozensets(SELECTOR, max_size=4), max_size=3).map(tuple)


def service(name, workload):
    return Service(
        name=name,
        spiffe_id=SpiffeId.parse(f"spiffe://shop.example/service/{name}"),
        workload=workload,
        operations=(),
        probes=(),
        tcp=None,
        span=SPAN,
    )


SNAPSHOT = st.dictionaries(st.sampled_from("pqrst"), WORKLOAD).map(
    lambda found: Snapshot(
        trust_domain=TrustDomain.parse("shop.example"),
        services={name: service(name, workload) for name, workload in found.items()},
        rules=(),
        tests=(),
        canonical=b"",
        hash="0" * 64,
    )
)


@given(st.binary(max_size=200))
def test_a_stat_of_any_bytes(raw):
    with contextlib.suppress(AttestationError):
        parse_stat(raw)


@given(st.binary(max_size=60))
def test_a_stat_whose_process_is_called_anything(name):
    stat = parse_stat(b"1 (" + name + b") R 7 " + b"0 " * 17 + b"99 0")
    assert (stat.parent, stat.start_time) == (7, 99)


@given(SNAPSHOT, SELECTORS, SELECTORS)
def test_more_selectors_never_cost_an_identity(snapshot, some, more):
    before = {found.name for found in entitled(snapshot, some)}
    assert before <= {found.name for found in entitled(snapshot, some | more)}


@given(SNAPSHOT, SELECTORS)
def test_exactly_the_services_with_an_alternative_that_holds(snapshot, selectors):
    found = entitled(snapshot, selectors)
    assert {service.name for service in found} == {
        service.name
        for service in snapshot.services.values()
        if any(alternative and alternative <= selectors for alternative in service.workload)
    }
    assert found == entitled(snapshot, frozenset(sorted(selectors, reverse=True)))


@given(SNAPSHOT, SELECTORS)
def test_the_differences_of_an_explanation_are_what_is_missing(snapshot, selectors):
    why = explain(snapshot, selectors)
    assert why.render()
    missing = frozenset(difference.wanted for difference in why.differences)
    assert not missing & selectors
    if why.nearest is not None:
        completed = selectors | missing
        nearest = snapshot.services[why.nearest]
        assert any(alternative <= completed for alternative in nearest.workload)


TEXT = st.text(max_size=20)


@given(st.binary(max_size=300))
def test_a_launch_file_of_any_bytes(raw):
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "launches.json"
        file.write_bytes(raw)
        assert read_launches(file, "boot") == ()


@given(
    TEXT,
    TEXT,
    st.integers(0, 2**31),
    st.dictionaries(TEXT, TEXT, max_size=3),
    st.dictionaries(TEXT, st.integers(0, 65535), max_size=3),
    st.dictionaries(TEXT, TEXT | st.integers(-(2**31), 2**31) | st.booleans() | st.none(), max_size=3),
)
def test_launches_survive_the_disk(instance, name, uid, directories, ports, facts):
    launch = Launch(
        instance=instance,
        service=name,
        uid=uid,
        run=ProcessRef(pid=1, start_time=2),
        directories=directories,
        ports=ports,
        facts=facts,
    )
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "launches.json"
        write_launches(file, "boot", [launch])
        assert read_launches(file, "boot") == (launch,)
        assert read_launches(file, "another") == ()
