# SPDX-License-Identifier: Apache-2.0
"""The rules that a cluster's objects are judged by."""

import pytest
from hypothesis import given, strategies as st
from tests.support.admission_cases import (
    CASES,
    DEFAULT_DENIES,
    NO_DEFAULT_DENIES,
    POD,
    as_yaml,
    cilium,
    deployment,
    istio,
)

from everyhop.admission.judging import RULES, judge, judge_all, judge_removal
from everyhop.admission.model import Code
from everyhop.manifests import read_manifests

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["spec", "rules", "from", "source", "mtls", "x"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("name", CASES)
def test_each_object_gets_what_it_deserves(name):
    document, codes = CASES[name]
    assert tuple(dict.fromkeys(f.code.value for f in judge(document))) == codes


@pytest.mark.parametrize(
    "document",
    [
        istio({"rules": "all"}),
        istio({"selector": {"matchLabels": {}}, "rules": [[]]}),
        istio([]),
        deployment([]),
        deployment({"containers": {}}),
        cilium({"ingress": {}}),
    ],
    ids=str,
)
def test_what_has_not_the_shape_of_its_kind_is_not_admitted(document):
    assert Code.MALFORMED in {f.code for f in judge(document)}


@given(JSON, st.sampled_from([(g.group, kind) for rule in RULES for g in rule.kinds for kind in g.resources]))
def test_no_object_is_too_strange_to_be_judged(spec, kind):
    group, name = kind
    judge({"apiVersion": f"{group}/v1", "kind": name, "metadata": {"name": "x"}, "spec": spec})


@pytest.mark.parametrize("name", DEFAULT_DENIES)
def test_what_refuses_by_default_cannot_go_or_change(name):
    old = DEFAULT_DENIES[name]
    assert [f.code for f in judge_removal(old, None)] == [Code.DEFAULT_DENY_REMOVED]
    opened = {
        **old,
        "spec": {"podSelector": {"matchLabels": {"a": "b"}}, "selector": {"matchLabels": {"a": "b"}}},
    }
    assert [f.code for f in judge_removal(old, opened)] == [Code.DEFAULT_DENY_REMOVED]
    assert judge_removal(old, {**old, "metadata": {"name": "p", "labels": {"a": "b"}}}) == ()


@pytest.mark.parametrize("name", NO_DEFAULT_DENIES)
def test_what_refuses_nothing_by_default_may_go(name):
    assert judge_removal(NO_DEFAULT_DENIES[name], None) == ()


@pytest.mark.parametrize("name", DEFAULT_DENIES)
def test_a_namespace_with_workloads_needs_something_that_refuses(name):
    without = read_manifests({"a.yaml": as_yaml(deployment(POD))})
    assert [f.code for _, f in judge_all(without.objects)] == [Code.DEFAULT_DENY_MISSING]
    with_it = read_manifests({"a.yaml": as_yaml(deployment(POD), DEFAULT_DENIES[name])})
    assert list(judge_all(with_it.objects)) == []


def test_other_systems_default_denies_count():
    linkerd = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "shop", "annotations": {"config.linkerd.io/default-inbound-policy": "deny"}},
    }
    endpoints = cilium({"endpointSelector": {}, "ingress": [{}]})
    for one in (linkerd, endpoints):
        assert list(judge_all(read_manifests({"a.yaml": as_yaml(deployment(POD), one)}).objects)) == []
    undone = cilium({"endpointSelector": {}, "ingress": [{}], "enableDefaultDeny": {"ingress": False}})
    assert list(judge_all(read_manifests({"a.yaml": as_yaml(deployment(POD), undone)}).objects))
