# SPDX-License-Identifier: Apache-2.0
"""Trace context as records hold it: strictly read, or not at all."""

import pytest

from everyhop.auditlog.trace import joined, parted, trace_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "-",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01\n",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01",
        f"00-{TRACE[:-1]}\u0661-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-" + "x" * 300,
        "0" * 100_000,
    ],
)
def test_what_breaks_the_recommendation_is_none(header):
    assert trace_of(header) is None


@pytest.mark.parametrize("header", [f"00-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-00-what.comes"])
def test_trace_and_span(header):
    assert trace_of(header) == f"{TRACE}-{SPAN}"
    assert parted(f"{TRACE}-{SPAN}") == (TRACE, SPAN)


@pytest.mark.parametrize("text", ["", TRACE, f"{TRACE}-{SPAN}-", f"{TRACE}_{SPAN}", f"{TRACE}-{SPAN}\n"])
def test_what_is_no_pair_is_not_parted(text):
    assert parted(text) is None


def test_ids_that_are_none_are_not_joined():
    assert joined(TRACE, SPAN) == f"{TRACE}-{SPAN}"
    assert joined(TRACE, "x" * 16) is None
    assert joined("0" * 32, SPAN) is None
