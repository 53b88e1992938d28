# SPDX-License-Identifier: Apache-2.0
"""RBAC by a matcher tree: what is not known is refused, and where nothing matches the filter denies."""

import pytest

from everyhop.core.errors import InputError
from everyhop.evaluators.envoy_rbac import Attempt, read_filter

COMMON = "type.googleapis.com/envoy.extensions.matching.common_inputs."
URI = {"name": "u", "typed_config": {"@type": f"{COMMON}ssl.v3.UriSanInput"}}
PORT = {"name": "p", "typed_config": {"@type": f"{COMMON}network.v3.DestinationPortInput"}}
KEY = {"name": "k", "typed_config": {"@type": f"{COMMON}network.v3.FilterStateInput", "key": "route"}}
METHOD = {
    "name": "m",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
        "headerName": ":method",
    },
}
CHECKOUT = "spiffe://mesh.test/checkout"


def action(kind="ALLOW"):
    """Return an action."""
    config = {"@type": "type.googleapis.com/envoy.config.rbac.v3.Action", "name": "n", "action": kind}
    return {"action": {"name": "a", "typed_config": config}}


def tree(of, branches, otherwise=None, kind="exact_match_map"):
    """Return a matcher by a map."""
    made = {"matcher_tree": {"input": of, kind: {"map": branches}}}
    return made if otherwise is None else made | {"on_no_match": otherwise}


def listed(predicate, then, otherwise=None):
    """Return a matcher by a list of one."""
    made = {"matcher_list": {"matchers": [{"predicate": predicate, "on_match": then}]}}
    return made if otherwise is None else made | {"on_no_match": otherwise}


def single(of, **pattern):
    """Return a predicate on one input."""
    return {"single_predicate": {"input": of, "value_match": pattern}}


def allows(matcher, **attempt):
    """Tell whether a filter by a tree lets an attempt of checkout pass."""
    held = {"is_tls": True, "uris": (CHECKOUT,), "port": 8080, "headers": {":method": "GET"}}
    return read_filter({"matcher": matcher}).allows(Attempt(**(held | attempt)))


@pytest.mark.parametrize(
    ("matcher", "attempt", "passes"),
    [
        (tree(URI, {CHECKOUT: action()}), {}, True),
        (tree(URI, {CHECKOUT: action("LOG")}), {}, True),
        (tree(URI, {CHECKOUT: action("DENY")}), {}, False),
        (tree(URI, {CHECKOUT: action()}), {"uris": ("spiffe://mesh.test/other",)}, False),
        (tree(URI, {CHECKOUT: action()}), {"uris": (), "is_tls": False}, False),
        (tree(URI, {}, action()), {}, True),
        (tree(URI, {}, action()), {"uris": ()}, True),
        (tree(URI, {}, action()), {"uris": (), "is_tls": False}, False),
        (listed({"not_matcher": single(URI, exact="a")}, action()), {"uris": (), "is_tls": False}, False),
        (listed({"or_matcher": {"predicate": [single(URI, exact="a"), single(METHOD, exact="GET")]}}, action()), {"uris": (), "is_tls": False}, True),
        (listed({"or_matcher": {"predicate": [single(URI, exact="a"), single(METHOD, exact="PUT")]}}, action(), action()), {"uris": (), "is_tls": False}, False),
        (tree(URI, {CHECKOUT: {"matcher": tree(PORT, {"8080": action()}, action("DENY"))}}), {}, True),
        (tree(URI, {CHECKOUT: {"matcher": tree(PORT, {"80": action()}, action("DENY"))}}, action()), {}, False),
        (tree(KEY, {"GET /": action()}), {"filter_state": {"route": "GET /"}}, True),
        (tree(KEY, {"GET /": action()}), {}, False),
        (tree(METHOD, {"G": action("DENY"), "GE": action()}, kind="prefix_match_map"), {}, True),
        (tree(METHOD, {"P": action()}, kind="prefix_match_map"), {}, False),
        (listed(single(METHOD, exact="GET"), action()), {}, True),
        (listed(single(METHOD, exact="POST"), action()), {}, False),
        (listed(single(METHOD, safe_regex={"regex": "G"}), action(), action("DENY")), {}, False),
        (listed(single(KEY, prefix="a"), action()), {}, False),
        (listed({"not_matcher": single(METHOD, exact="POST")}, action()), {}, True),
        (listed({"and_matcher": {"predicate": [single(METHOD, exact="GET"), single(PORT, exact="1")]}}, action()), {}, False),
        (listed({"or_matcher": {"predicate": [single(METHOD, exact="GET"), single(PORT, exact="1")]}}, action()), {}, True),
    ],
)  # fmt: skip
def test_a_tree_ends_at_an_action(matcher, attempt, passes):
    assert allows(matcher, **attempt) is passes


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        tree(URI, {}) | listed(single(URI, exact="a"), action()),
        tree(URI, {"a": {"matcher": tree(PORT, {})}}),
        tree(URI, {"a": {}}),
        tree(URI, {"a": action("MAYBE")}),
        tree(URI, {"a": {"action": {"name": "a", "typed_config": {"@type": "x/y"}}}}),
        tree({"name": "x", "typed_config": {"@type": "x/y"}}, {}),
        {"matcher_tree": {"input": URI}},
        listed({}, action()),
        listed({"single_predicate": {"input": URI, "custom_match": {}}}, action()),
        {"matcher_list": {"matchers": [{"predicate": single(URI, exact="a"), "on_match": action(), "keep_matching": True}]}},
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused(wrong):
    with pytest.raises(InputError):
        read_filter({"matcher": wrong})
