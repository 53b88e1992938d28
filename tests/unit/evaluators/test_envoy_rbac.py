# SPDX-License-Identifier: Apache-2.0
"""Envoy's RBAC filter, matcher by matcher; what is not known is refused."""

import ipaddress

import pytest

from everyhop.core.errors import InputError
from everyhop.evaluators.envoy_rbac import Attempt, allows_all, read_filter

HTTP = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
TEMPLATE = "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"
ANY = [{"any": True}]
URI = "spiffe://mesh.test/ns/shop/sa/checkout"


def filter_of(policies, action="ALLOW"):
    """Return a filter with policies, each a pair of permissions and principals."""
    held = {name: {"permissions": one[0], "principals": one[1]} for name, one in policies.items()}
    return read_filter({"@type": HTTP, "rules": {"action": action, "policies": held}})


def attempt(**further):
    """Return an attempt of checkout."""
    headers = {":method": "POST", ":path": "/charge?q=1", ":authority": "Payments", "x-a": "one,two"}
    held = {"is_tls": True, "uris": (URI,), "headers": headers, "port": 8080, "server_name": "payments"}
    return Attempt(**(held | further))


@pytest.mark.parametrize(
    ("action", "matching", "passes"),
    [
        ("ALLOW", True, True),
        ("ALLOW", False, False),
        ("DENY", True, False),
        ("DENY", False, True),
        ("LOG", True, True),
        ("LOG", False, True),
    ],
)
def test_actions(action, matching, passes):
    permissions = ANY if matching else [{"not_rule": {"any": True}}]
    assert filter_of({"a": (permissions, ANY)}, action).allows(attempt()) is passes


def test_allow_without_policies_denies_and_no_rules_allow():
    assert not read_filter({"@type": HTTP, "rules": {}}).allows(attempt())
    assert read_filter({"@type": HTTP}).allows(attempt())
    assert read_filter({"@type": HTTP, "shadow_rules": {}}).allows(attempt())
    assert not allows_all([read_filter({}), read_filter({"rules": {}})], attempt())


def test_policies_add_up_and_the_first_name_is_told():
    made = filter_of({"b": (ANY, ANY), "a": (ANY, ANY), "c": (ANY, [{"not_id": {"any": True}}])})
    assert made.rules.matching(attempt()) == "a"


def permitted(permission, **further):
    """Tell whether a permission matches."""
    return filter_of({"a": ([permission], ANY)}).allows(attempt(**further))


def known(principal, **further):
    """Tell whether a principal matches."""
    return filter_of({"a": (ANY, [principal])}).allows(attempt(**further))


@pytest.mark.parametrize(
    ("permission", "matches"),
    [
        ({"header": {"name": ":method", "string_match": {"exact": "POST"}}}, True),
        ({"header": {"name": ":method", "stringMatch": {"exact": "post", "ignoreCase": True}}}, True),
        ({"header": {"name": ":method", "exact_match": "post"}}, False),
        ({"header": {"name": ":path", "string_match": {"exact": "/charge"}}}, False),
        ({"header": {"name": "X-A", "string_match": {"exact": "one,two"}}}, True),
        ({"header": {"name": "x-a", "present_match": True}}, True),
        ({"header": {"name": "x-b"}}, False),
        ({"header": {"name": "x-b", "present_match": False}}, True),
        ({"header": {"name": "x-b", "present_match": True, "invert_match": True}}, True),
        ({"header": {"name": "x-b", "string_match": {"exact": "a"}, "invert_match": True}}, False),
        ({"header": {"name": "x-b", "string_match": {"exact": "a"}, "invert_match": True, "treat_missing_header_as_empty": True}}, True),
        ({"header": {"name": "x-a", "safe_regex_match": {"regex": "one"}}}, False),
        ({"url_path": {"path": {"exact": "/charge"}}}, True),
        ({"urlPath": {"path": {"prefix": "/cha"}}}, True),
        ({"url_path": {"path": {"suffix": "q=1"}}}, False),
        ({"url_path": {"path": {"contains": "harg"}}}, True),
        ({"url_path": {"path": {"safe_regex": {"regex": "/char"}}}}, False),
        ({"url_path": {"path": {"safe_regex": {"regex": "/cha|/charge"}}}}, True),
        ({"uri_template": {"name": "t", "typed_config": {"@type": TEMPLATE, "path_template": "/*"}}}, True),
        ({"uri_template": {"name": "t", "typed_config": {"@type": TEMPLATE, "path_template": "/a/*"}}}, False),
        ({"destination_port": 8080}, True),
        ({"destination_port": 80}, False),
        ({"destination_port_range": {"start": 8080, "end": 8081}}, True),
        ({"destination_port_range": {"start": 8000, "end": 8080}}, False),
        ({"destination_ip": {"address_prefix": "10.1.0.0", "prefix_len": 16}}, True),
        ({"destination_ip": {"address_prefix": "10.2.0.0", "prefix_len": 16}}, False),
        ({"requested_server_name": {"exact": "payments"}}, True),
        ({"and_rules": {"rules": [{"any": True}, {"destination_port": 80}]}}, False),
        ({"or_rules": {"rules": [{"destination_port": 80}, {"any": True}]}}, True),
        ({"andRules": {"rules": [{"notRule": {"destinationPort": 80}}]}}, True),
    ],
)  # fmt: skip
def test_permissions(permission, matches):
    assert permitted(permission) is matches


@pytest.mark.parametrize(
    ("principal", "further", "matches"),
    [
        ({"authenticated": {}}, {}, True),
        ({"authenticated": {}}, {"is_tls": False}, False),
        ({"authenticated": {"principal_name": {"exact": URI}}}, {}, True),
        ({"authenticated": {"principal_name": {"exact": URI}}}, {"is_tls": False}, False),
        ({"authenticated": {"principal_name": {"exact": URI}}}, {"uris": ("spiffe://x/y", URI)}, True),
        ({"authenticated": {"principal_name": {"exact": "a.test"}}}, {"uris": (), "dns_names": ("a.test",)}, True),
        ({"authenticated": {"principal_name": {"exact": "CN=a"}}}, {"uris": (), "subject": "CN=a"}, True),
        ({"authenticated": {"principal_name": {"safe_regex": {"regex": ".*/ns/shop/.*"}}}}, {}, True),
        ({"filter_state": {"key": "io.istio.peer_principal", "string_match": {"exact": URI}}}, {}, False),
        ({"filter_state": {"key": "k", "string_match": {"exact": URI}}}, {"filter_state": {"k": URI}}, True),
        ({"header": {"name": "x-a", "string_match": {"prefix": "one"}}}, {}, True),
        ({"url_path": {"path": {"exact": "/charge"}}}, {}, True),
        ({"url_path": {"path": {"exact": "/charge"}}}, {"headers": {}}, False),
        ({"source_ip": {"address_prefix": "10.1.0.1", "prefix_len": 32}}, {}, True),
        ({"remote_ip": {"address_prefix": "::", "prefix_len": 0}}, {}, False),
        ({"direct_remote_ip": {"address_prefix": "10.0.0.0", "prefix_len": 8}}, {"direct_remote_ip": ipaddress.ip_address("192.0.2.1")}, False),
        ({"and_ids": {"ids": [{"any": True}, {"not_id": {"any": True}}]}}, {}, False),
        ({"orIds": {"ids": [{"notId": {"any": True}}, {"any": True}]}}, {}, True),
    ],
)  # fmt: skip
def test_principals(principal, further, matches):
    assert known(principal, **further) is matches


JWT = {"filter": "jwt", "path": [{"key": "payload"}, {"key": "aud"}]}


@pytest.mark.parametrize(
    ("value", "claims", "matches"),
    [
        ({"string_match": {"exact": "a"}}, {"aud": "a"}, True),
        ({"string_match": {"exact": "a"}}, {"aud": ["a"]}, False),
        ({"list_match": {"one_of": {"string_match": {"exact": "a"}}}}, {"aud": ["b", "a"]}, True),
        ({"list_match": {"one_of": {"string_match": {"exact": "a"}}}}, {"aud": "a"}, False),
        ({"or_match": {"value_matchers": [{"bool_match": True}, {"null_match": {}}]}}, {}, True),
        ({"bool_match": True}, {"aud": "true"}, False),
        ({"present_match": True}, {"aud": 1}, True),
        ({"present_match": True}, {}, False),
        ({"string_match": {"exact": "1"}}, {"aud": 1}, False),
    ],
)
def test_metadata_in_both_forms(value, claims, matches):
    matcher = JWT | {"value": value}
    held = {"metadata": {"jwt": {"payload": claims}}}
    assert known({"metadata": matcher}, **held) is matches
    assert known({"sourced_metadata": {"metadata_matcher": matcher}}, **held) is matches
    assert permitted({"metadata": matcher | {"invert": True}}, **held) is not matches
    of_route = {"sourced_metadata": {"metadata_matcher": matcher, "metadata_source": "ROUTE"}}
    assert known(of_route, route_metadata=held["metadata"]) is matches


@pytest.mark.parametrize(
    "wrong",
    [
        {"@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"},
        {"rules": {"action": "MAYBE"}},
        {"matcher": {}},
        {"matcher": {}, "rules": {}},
        {"rules": {"policies": {"a": {"permissions": ANY}}}},
        {"rules": {"policies": {"a": {"permissions": [], "principals": ANY}}}},
        {"rules": {"policies": {"a": {"permissions": ANY, "principals": ANY, "condition": {}}}}},
        {"rules": {"policies": {"a": {"permissions": [{"any": False}], "principals": ANY}}}},
        {"rules": {"policies": {"a": {"permissions": [{"any": True, "header": {}}], "principals": ANY}}}},
        {"rules": {"policies": {"a": {"permissions": [{"matcher": {}}], "principals": ANY}}}},
        {"rules": {"policies": {"a": {"permissions": [{"authenticated": {}}], "principals": ANY}}}},
        {"rules": {"policies": {"a": {"permissions": [{"and_rules": {"rules": []}}], "principals": ANY}}}},
        {"rules": {"policies": {"a": {"permissions": [{"header": {"name": ""}}], "principals": ANY}}}},
        {"rules": {"policies": {"a": {"permissions": [{"header": {"name": "a", "exact_match": "b", "prefix_match": "c"}}], "principals": ANY}}}},
        {"rules": {"policies": {"a": {"permissions": [{"url_path": {"path": {"prefix": ""}}}], "principals": ANY}}}},
        {"rules": {"policies": {"a": {"permissions": [{"url_path": {"path": {"safe_regex": {"regex": "("}}}}], "principals": ANY}}}},
        {"rules": {"policies": {"a": {"permissions": [{"url_path": {"path": {"exact": "a", "suffix": "b"}}}], "principals": ANY}}}},
        {"rules": {"policies": {"a": {"permissions": [{"uri_template": {"name": "a", "typed_config": {"@type": "x/y"}}}], "principals": ANY}}}},
        {"rules": {"policies": {"a": {"permissions": [{"destination_ip": {"address_prefix": "a"}}], "principals": ANY}}}},
        {"rules": {"policies": {"a": {"permissions": [{"metadata": JWT | {"value": {"double_match": {}}}}], "principals": ANY}}}},
        {"rules": {"policies": {"a": {"permissions": [{"metadata": JWT | {"value": {}}}], "principals": ANY}}}},
        {"rules": {"policies": {"a": {"permissions": [{"sourced_metadata": {"metadata_matcher": JWT | {"value": {"present_match": True}}, "metadata_source": "X"}}], "principals": ANY}}}},
        {"rules": {"policies": {"a": {"permissions": [{"and_rules": {"rules": ANY}, "andRules": {"rules": ANY}}], "principals": ANY}}}},
        {"rules": [], "typed_config": 3},
        {"shadow_rules": {}, "shadowRules": {}},
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused(wrong):
    with pytest.raises(InputError):
        read_filter(wrong)
