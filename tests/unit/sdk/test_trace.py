# SPDX-License-Identifier: Apache-2.0
"""W3C Trace Context level 1: what does not hold begins a new trace; what holds goes on with a new span."""

import re

import pytest

from everyhop.sdk.trace import new_trace, parse_trace

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    "values",
    [
        [],
        [GOOD, GOOD],
        [""],
        [GOOD.upper()],
        [f"00-{TRACE.upper()}-{SPAN}-01"],
        [f"00-{'0' * 32}-{SPAN}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"ff-{TRACE}-{SPAN}-01"],
        [f"{GOOD}-more"],
        [f"{GOOD}more"],
        [f" {GOOD}"],
        [f"{GOOD}\n"],
        [f"00-{TRACE[:-1]}-{SPAN}-01"],
        [f"00-{TRACE}-{SPAN}-1"],
        [f"00-{TRACE}-{SPAN}-0g"],
        [f"0-{TRACE}-{SPAN}-01"],
        [f"cc-{TRACE}-{SPAN}-01x"],
        [f"{GOOD},{GOOD}"],
    ],
)
def test_what_does_not_hold_begins_a_new_trace(values):
    found = parse_trace(values, ["a=1"])
    assert found.trace_id != TRACE
    assert found.parent_id is None
    assert found.state is None
    assert not found.sampled


def test_a_trace_goes_on_with_a_new_span():
    found = parse_trace([GOOD], ["congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7 , "])
    assert (found.trace_id, found.parent_id, found.sampled) == (TRACE, SPAN, True)
    first, second = found.child_headers(), found.child_headers()
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-01", first["traceparent"])
    assert first["traceparent"] != second["traceparent"]
    assert SPAN not in first["traceparent"]
    assert first["tracestate"] == "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"


def test_a_later_version_is_read_as_far_as_it_is_known():
    assert parse_trace([f"cc-{TRACE}-{SPAN}-01-what-the-future"]).trace_id == TRACE
    assert parse_trace([f"cc-{TRACE}-{SPAN}-03"]).child_headers()["traceparent"].startswith("00-")


@pytest.mark.parametrize(
    "state",
    [
        ["A=1"],
        ["a"],
        ["a=1,a=2"],
        ["a=1=2"],
        ["a=\t"],
        ["a=1;b=2=3"],
        ["a=" + "x" * 257],
        [",".join(f"k{i}=1" for i in range(33))],
        ["a=" + "x" * 250, "b=" + "x" * 250, "c=" + "x" * 250],
        ["a=é"],
        ["@x=1"],
    ],
)
def test_a_bad_tracestate_is_dropped_alone(state):
    found = parse_trace([GOOD], state)
    assert found.trace_id == TRACE
    assert found.state is None
    assert "tracestate" not in found.child_headers()


def test_new_traces_differ_and_are_not_sampled():
    first, second = new_trace(), new_trace()
    assert first.trace_id != second.trace_id
    assert first.child_headers()["traceparent"].endswith("-00")
