# SPDX-License-Identifier: Apache-2.0
"""Those fields of Envoy's messages that our resources use, with Envoy's numbers (API v3).

A resource whose message is not here travels inside a ``TypedStruct``, which Envoy turns back into JSON.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Field(NamedTuple):
    """One field: its number, its kind, and the message (for messages and maps) or the numbers (for enums)."""

    number: int
    kind: str
    of: str | dict[str, int] = ""


Message = dict[str, Field]

STRING, UINT, BOOL, ENUM, MESSAGE, ANY, MAP = "string", "uint", "bool", "enum", "message", "any", "map"
DURATION, UINT_VALUE, BOOL_VALUE = "duration", "uint_value", "bool_value"
INT, DOUBLE = "int", "double"

_ADDRESS: Final = "envoy.config.core.v3.Address"
_EXTENSION: Final = "xds.core.v3.TypedExtensionConfig"
_MATCHER: Final = "xds.type.matcher.v3.Matcher"
_RANGES: Final = "xds.type.matcher.v3.IPMatcher.IPRangeMatcher"
_LISTENER: Final = "envoy.config.listener.v3."
_CLUSTER: Final = "envoy.config.cluster.v3."
_ENDPOINT: Final = "envoy.config.endpoint.v3."
_ROUTE: Final = "envoy.config.route.v3."
_CORE: Final = "envoy.config.core.v3."
_ACCESS: Final = "envoy.config.accesslog.v3."
_PREDICATE: Final = _MATCHER + ".MatcherList.Predicate"
_EXPR: Final = "cel.expr.Expr"
_TYPED: Final = {"name": Field(1, STRING), "typed_config": Field(3, ANY)}

MESSAGES: Final[dict[str, Message]] = {
    # --- shared
    _ADDRESS: {
        "socket_address": Field(1, MESSAGE, _CORE + "SocketAddress"),
        "pipe": Field(2, MESSAGE, _CORE + "Pipe"),
    },
    _CORE + "SocketAddress": {"address": Field(2, STRING), "port_value": Field(3, UINT)},
    _CORE + "Pipe": {"path": Field(1, STRING), "mode": Field(2, UINT)},
    _CORE + "TransportSocket": _TYPED,
    _CORE + "ConfigSource": {
        "ads": Field(3, MESSAGE, "empty"),
        "initial_fetch_timeout": Field(4, DURATION),
        "resource_api_version": Field(6, ENUM, {"V3": 2}),
    },
    _CORE + "HeaderValue": {"key": Field(1, STRING), "value": Field(2, STRING)},
    _CORE + "HeaderValueOption": {
        "header": Field(1, MESSAGE, _CORE + "HeaderValue"),
        "append_action": Field(3, ENUM, {"OVERWRITE_IF_EXISTS_OR_ADD": 2}),
    },
    _CORE + "TypedExtensionConfig": {"name": Field(1, STRING), "typed_config": Field(2, ANY)},
    _EXTENSION: {"name": Field(1, STRING), "typed_config": Field(2, ANY)},
    "empty": {},
    # --- listeners
    _LISTENER + "Listener": {
        "name": Field(1, STRING),
        "address": Field(2, MESSAGE, _ADDRESS),
        "filter_chains": Field(3, MESSAGE, _LISTENER + "FilterChain"),
        "per_connection_buffer_limit_bytes": Field(5, UINT_VALUE),
        "access_log": Field(22, MESSAGE, _ACCESS + "AccessLog"),
        "enable_reuse_port": Field(29, BOOL_VALUE),
    },
    _LISTENER + "FilterChain": {
        "filters": Field(3, MESSAGE, _LISTENER + "Filter"),
        "transport_socket": Field(6, MESSAGE, _CORE + "TransportSocket"),
        "name": Field(7, STRING),
        "transport_socket_connect_timeout": Field(9, DURATION),
    },
    _LISTENER + "Filter": {"name": Field(1, STRING), "typed_config": Field(4, ANY)},
    _ACCESS + "AccessLog": {
        "name": Field(1, STRING),
        "filter": Field(2, MESSAGE, _ACCESS + "AccessLogFilter"),
        "typed_config": Field(4, ANY),
    },
    _ACCESS + "AccessLogFilter": {"extension_filter": Field(11, MESSAGE, _ACCESS + "ExtensionFilter")},
    _ACCESS + "ExtensionFilter": _TYPED,
    # --- clusters and endpoints
    _CLUSTER + "Cluster": {
        "name": Field(1, STRING),
        "type": Field(2, ENUM, {"STATIC": 0, "EDS": 3}),
        "eds_cluster_config": Field(3, MESSAGE, _CLUSTER + "Cluster.EdsClusterConfig"),
        "connect_timeout": Field(4, DURATION),
        "per_connection_buffer_limit_bytes": Field(5, UINT_VALUE),
        "circuit_breakers": Field(10, MESSAGE, _CLUSTER + "CircuitBreakers"),
        "transport_socket": Field(24, MESSAGE, _CORE + "TransportSocket"),
        "typed_extension_protocol_options": Field(36, MAP, "any"),
    },
    _CLUSTER + "Cluster.EdsClusterConfig": {
        "eds_config": Field(1, MESSAGE, _CORE + "ConfigSource"),
        "service_name": Field(2, STRING),
    },
    _CLUSTER + "CircuitBreakers": {"thresholds": Field(1, MESSAGE, _CLUSTER + "CircuitBreakers.Thresholds")},
    _CLUSTER + "CircuitBreakers.Thresholds": {
        "max_connections": Field(2, UINT_VALUE),
        "max_pending_requests": Field(3, UINT_VALUE),
        "max_requests": Field(4, UINT_VALUE),
        "max_retries": Field(5, UINT_VALUE),
    },
    _ENDPOINT + "ClusterLoadAssignment": {
        "cluster_name": Field(1, STRING),
        "endpoints": Field(2, MESSAGE, _ENDPOINT + "LocalityLbEndpoints"),
    },
    _ENDPOINT + "LocalityLbEndpoints": {"lb_endpoints": Field(2, MESSAGE, _ENDPOINT + "LbEndpoint")},
    _ENDPOINT + "LbEndpoint": {"endpoint": Field(1, MESSAGE, _ENDPOINT + "Endpoint")},
    _ENDPOINT + "Endpoint": {"address": Field(1, MESSAGE, _ADDRESS)},
    # --- routes
    _ROUTE + "RouteConfiguration": {
        "name": Field(1, STRING),
        "virtual_hosts": Field(2, MESSAGE, _ROUTE + "VirtualHost"),
        "ignore_port_in_host_matching": Field(14, BOOL),
    },
    _ROUTE + "VirtualHost": {
        "name": Field(1, STRING),
        "domains": Field(2, STRING),
        "routes": Field(3, MESSAGE, _ROUTE + "Route"),
        "request_headers_to_add": Field(7, MESSAGE, _CORE + "HeaderValueOption"),
        "request_headers_to_remove": Field(13, STRING),
        "typed_per_filter_config": Field(15, MAP, "any"),
    },
    _ROUTE + "FilterConfig": {"config": Field(1, MESSAGE, "empty")},
    _ROUTE + "Route": {
        "match": Field(1, MESSAGE, _ROUTE + "RouteMatch"),
        "route": Field(2, MESSAGE, _ROUTE + "RouteAction"),
        "direct_response": Field(7, MESSAGE, _ROUTE + "DirectResponseAction"),
        "typed_per_filter_config": Field(13, MAP, "any"),
        "name": Field(14, STRING),
    },
    _ROUTE + "RouteMatch": {
        "prefix": Field(1, STRING),
        "path": Field(2, STRING),
        "headers": Field(6, MESSAGE, _ROUTE + "HeaderMatcher"),
        "grpc": Field(8, MESSAGE, "empty"),
        "safe_regex": Field(10, MESSAGE, "envoy.type.matcher.v3.RegexMatcher"),
        "connect_matcher": Field(12, MESSAGE, "empty"),
    },
    _ROUTE + "HeaderMatcher": {
        "name": Field(1, STRING),
        "present_match": Field(7, BOOL),
        "string_match": Field(13, MESSAGE, "envoy.type.matcher.v3.StringMatcher"),
    },
    "envoy.type.matcher.v3.StringMatcher": {
        "exact": Field(1, STRING),
        "safe_regex": Field(5, MESSAGE, "envoy.type.matcher.v3.RegexMatcher"),
    },
    "envoy.type.matcher.v3.RegexMatcher": {"regex": Field(2, STRING)},
    _ROUTE + "DirectResponseAction": {"status": Field(1, UINT)},
    _ROUTE + "RouteAction": {
        "cluster": Field(1, STRING),
        "timeout": Field(8, DURATION),
        "retry_policy": Field(9, MESSAGE, _ROUTE + "RetryPolicy"),
        "idle_timeout": Field(24, DURATION),
        "upgrade_configs": Field(25, MESSAGE, _ROUTE + "RouteAction.UpgradeConfig"),
        "max_stream_duration": Field(36, MESSAGE, _ROUTE + "RouteAction.MaxStreamDuration"),
    },
    _ROUTE + "RouteAction.UpgradeConfig": {
        "upgrade_type": Field(1, STRING),
        "connect_config": Field(3, MESSAGE, "empty"),
    },
    _ROUTE + "RouteAction.MaxStreamDuration": {"max_stream_duration": Field(1, DURATION)},
    _ROUTE + "RetryPolicy": {
        "retry_on": Field(1, STRING),
        "num_retries": Field(2, UINT_VALUE),
        "retry_host_predicate": Field(5, MESSAGE, _ROUTE + "RetryPolicy.RetryHostPredicate"),
        "host_selection_retry_max_attempts": Field(6, UINT),
        "retry_back_off": Field(8, MESSAGE, _ROUTE + "RetryPolicy.RetryBackOff"),
    },
    _ROUTE + "RetryPolicy.RetryHostPredicate": _TYPED,
    _ROUTE + "RetryPolicy.RetryBackOff": {
        "base_interval": Field(1, DURATION),
        "max_interval": Field(2, DURATION),
    },
    # --- the policy
    "envoy.extensions.filters.http.rbac.v3.RBAC": {
        "matcher": Field(4, MESSAGE, _MATCHER),
        "shadow_matcher": Field(5, MESSAGE, _MATCHER),
    },
    _MATCHER: {
        "matcher_list": Field(1, MESSAGE, _MATCHER + ".MatcherList"),
        "matcher_tree": Field(2, MESSAGE, _MATCHER + ".MatcherTree"),
        "on_no_match": Field(3, MESSAGE, _MATCHER + ".OnMatch"),
    },
    _MATCHER + ".OnMatch": {"matcher": Field(1, MESSAGE, _MATCHER), "action": Field(2, MESSAGE, _EXTENSION)},
    _MATCHER + ".MatcherList": {"matchers": Field(1, MESSAGE, _MATCHER + ".MatcherList.FieldMatcher")},
    _MATCHER + ".MatcherList.FieldMatcher": {
        "predicate": Field(1, MESSAGE, _PREDICATE),
        "on_match": Field(2, MESSAGE, _MATCHER + ".OnMatch"),
    },
    _PREDICATE: {
        "single_predicate": Field(1, MESSAGE, _PREDICATE + ".SinglePredicate"),
        "or_matcher": Field(2, MESSAGE, _PREDICATE + ".PredicateList"),
        "and_matcher": Field(3, MESSAGE, _PREDICATE + ".PredicateList"),
        "not_matcher": Field(4, MESSAGE, _PREDICATE),
    },
    _PREDICATE + ".PredicateList": {"predicate": Field(1, MESSAGE, _PREDICATE)},
    _PREDICATE + ".SinglePredicate": {
        "input": Field(1, MESSAGE, _EXTENSION),
        "value_match": Field(2, MESSAGE, "xds.type.matcher.v3.StringMatcher"),
        "custom_match": Field(3, MESSAGE, _EXTENSION),
    },
    "xds.type.matcher.v3.StringMatcher": {
        "safe_regex": Field(5, MESSAGE, "xds.type.matcher.v3.RegexMatcher")
    },
    "xds.type.matcher.v3.RegexMatcher": {"google_re2": Field(1, MESSAGE, "empty"), "regex": Field(2, STRING)},
    _MATCHER + ".MatcherTree": {
        "input": Field(1, MESSAGE, _EXTENSION),
        "exact_match_map": Field(2, MESSAGE, _MATCHER + ".MatcherTree.MatchMap"),
        "prefix_match_map": Field(3, MESSAGE, _MATCHER + ".MatcherTree.MatchMap"),
        "custom_match": Field(4, MESSAGE, _EXTENSION),
    },
    _MATCHER + ".MatcherTree.MatchMap": {"map": Field(1, MAP, _MATCHER + ".OnMatch")},
    "envoy.extensions.filters.http.lua.v3.Lua": {
        "default_source_code": Field(3, MESSAGE, _CORE + "DataSource")
    },
    _CORE + "DataSource": {"inline_string": Field(3, STRING)},
    "envoy.config.rbac.v3.Action": {
        "name": Field(1, STRING),
        "action": Field(2, ENUM, {"ALLOW": 0, "DENY": 1}),
    },
    "envoy.extensions.matching.common_inputs.network.v3.FilterStateInput": {"key": Field(1, STRING)},
    "envoy.extensions.matching.common_inputs.ssl.v3.UriSanInput": {},
    "xds.type.matcher.v3.IPMatcher": {"range_matchers": Field(1, MESSAGE, _RANGES)},
    _RANGES: {
        "ranges": Field(1, MESSAGE, "xds.core.v3.CidrRange"),
        "on_match": Field(2, MESSAGE, _MATCHER + ".OnMatch"),
    },
    "xds.core.v3.CidrRange": {"address_prefix": Field(1, STRING), "prefix_len": Field(2, UINT_VALUE)},
    "envoy.type.matcher.v3.HttpRequestHeaderMatchInput": {"header_name": Field(1, STRING)},
    # --- conditions
    "xds.type.matcher.v3.HttpAttributesCelMatchInput": {},
    "xds.type.matcher.v3.CelMatcher": {"expr_match": Field(1, MESSAGE, "xds.type.v3.CelExpression")},
    "xds.type.v3.CelExpression": {"cel_expr_checked": Field(4, MESSAGE, "cel.expr.CheckedExpr")},
    "cel.expr.CheckedExpr": {"expr": Field(4, MESSAGE, _EXPR)},
    _EXPR: {
        "id": Field(2, INT),
        "const_expr": Field(3, MESSAGE, "cel.expr.Constant"),
        "ident_expr": Field(4, MESSAGE, _EXPR + ".Ident"),
        "select_expr": Field(5, MESSAGE, _EXPR + ".Select"),
        "call_expr": Field(6, MESSAGE, _EXPR + ".Call"),
        "list_expr": Field(7, MESSAGE, _EXPR + ".CreateList"),
    },
    _EXPR + ".Ident": {"name": Field(1, STRING)},
    _EXPR + ".Select": {"operand": Field(1, MESSAGE, _EXPR), "field": Field(2, STRING)},
    _EXPR + ".Call": {
        "target": Field(1, MESSAGE, _EXPR),
        "function": Field(2, STRING),
        "args": Field(3, MESSAGE, _EXPR),
    },
    _EXPR + ".CreateList": {"elements": Field(1, MESSAGE, _EXPR)},
    "cel.expr.Constant": {
        "bool_value": Field(2, BOOL),
        "int64_value": Field(3, INT),
        "double_value": Field(5, DOUBLE),
        "string_value": Field(6, STRING),
    },
    "envoy.extensions.matching.common_inputs.network.v3.SourceIPInput": {},
    "envoy.extensions.matching.input_matchers.ip.v3.Ip": {
        "cidr_ranges": Field(1, MESSAGE, _CORE + "CidrRange"),
        "stat_prefix": Field(2, STRING),
    },
    _CORE + "CidrRange": {"address_prefix": Field(1, STRING), "prefix_len": Field(2, UINT_VALUE)},
}
