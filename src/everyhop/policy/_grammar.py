# SPDX-License-Identifier: Apache-2.0
"""The words of the policy language: keys, names and limits, shared by the parser and the JSON Schema."""

from __future__ import annotations

from typing import Final

VERSION: Final = "1"
DEFAULT_IDENTITY: Final = "/service/{service}"
ALL: Final = "all"

TOP_KEYS: Final = (
    "version", "trust_domain", "identity", "mode", "services", "users", "attributes", "roles", "allow", "deny", "shadow",
    "directory", "detect", "audit", "targets", "tests",
)  # fmt: skip
SERVICE_KEYS: Final = ("workload", "operations", "probes", "tcp", "identity", "attributes", "canary")
NOT_OF_CANARIES: Final = ("workload", "operations", "probes", "tcp", "attributes")
WORKLOAD_KEYS: Final = ("unix", "run")
UNIX_KEYS: Final = ("uid", "user", "gid", "group", "path", "sha256")
ROUTE_KEYS: Final = ("route", "grpc", "websocket")
OPERATION_KEYS: Final = (*ROUTE_KEYS, "token", "once", "body", "resource")
USERS_KEYS: Final = ("issuers",)
ISSUER_KEYS: Final = ("issuer", "audience", "jwks", "roles", "attributes", "algorithms")
RULE_KEYS: Final = ("from", "to", "operations", "user", "when", "mode", "id", "reason")
EDGE_KEYS: Final = ("from", "to")
DETECT_KEYS: Final = (
    "mode", "window", "users", "api_keys", "addresses", "services", "per_service", "exempt", "on_error", "breaker",
    "detectors",
)  # fmt: skip
AUDIT_KEYS: Final = ("readers",)
TARGETS_KEYS: Final = (
    "trust_domain", "cluster_domain", "namespace", "services", "gateway", "tokens", "probe_networks", "egress",
)  # fmt: skip
PLACEMENT_KEYS: Final = (
    "namespace", "service_account", "labels", "port", "host", "image", "timeout", "retries",
)  # fmt: skip
GATEWAY_KEYS: Final = ("namespace", "service_account", "labels", "hosts")
TARGET_TOKENS_KEYS: Final = ("issuer", "jwks_uri")
EGRESS_KEYS: Final = ("host", "port", "from")
LIMITS_KEYS: Final = ("alert", "block", "block_for", "count")
SERVICE_LIMITS_KEYS: Final = (*LIMITS_KEYS, "expected_rate")
BREAKER_KEYS: Final = ("share", "within")
COUNTED: Final = ("denied", "failed", "undeclared", "ambiguous")
FACT_KEYS: Final = ("user", "at", "headers", "source_ip", "device", "resource")
TEST_KEYS: Final = ("from", "call", "tcp", "to", "expect", *FACT_KEYS)
ROLE_KEYS: Final = ("includes", "grants", "groups")
ATTRIBUTES_KEYS: Final = ("user", "device", "resource", "service", "request")
ATTRIBUTE_TYPES: Final = ("bool", "int", "double", "string", "strings", "timestamp")
DIRECTORY_KEYS: Final = ("users", "resources")
DIRECTORY_USER_KEYS: Final = ("roles", "attributes")
RESOURCE_TYPE_KEYS: Final = ("service", "parameter", "items")
RESERVED_RESOURCE_TYPES: Final = frozenset({"service", "route"})
TEST_USER_KEYS: Final = ("id", "issuer", "roles", "amr", "acr", "auth_time", "mfa")
TEST_RESOURCE_KEYS: Final = ("type", "id")
EVERY_OPERATION: Final = "*"

LATER_KEYS: Final = frozenset(
    {
        "allow_encoded_slash", "federation", "gateway", "kubernetes", "secrets",
    }
)  # fmt: skip
"""Keys that later versions of the language define: refused by name, never silently ignored."""

METHODS: Final = (
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS",
    "PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH",
)  # fmt: skip
"""Methods that an operation may declare: RFC 9110 and 5789 without CONNECT and TRACE, and WebDAV's."""

SERVICE_NAME: Final = r"[a-z][a-z0-9-]{0,62}"
OPERATION_NAME: Final = r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}"
RULE_ID: Final = r"[a-z][a-z0-9_.-]{0,63}"
PARAMETER_NAME: Final = r"[a-zA-Z_][a-zA-Z0-9_]{0,63}"
LITERAL: Final = r"[A-Za-z0-9._~!$&'()*+,=:@-]+"
GRPC_METHOD: Final = (
    r"[a-zA-Z_][a-zA-Z0-9_]{0,127}(?:\.[a-zA-Z_][a-zA-Z0-9_]{0,127}){0,15}/[a-zA-Z_][a-zA-Z0-9_]{0,127}"
)
DECIMAL: Final = r"0|[1-9][0-9]{0,9}"
ACCOUNT_NAME: Final = r"[a-zA-Z_][a-zA-Z0-9_.-]{0,30}\$?"
ABSOLUTE_PATH: Final = r"/(?:[^/\s]+(?: [^/\s]+)*/)*[^/\s]+(?: [^/\s]+)*"
SHA256: Final = r"[0-9a-f]{64}"
METHOD_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}"

RESERVED_SERVICE_NAMES: Final = frozenset({"any", "all", "outside"})
RESERVED_IDENTITY: Final = "/everyhop/"  # identities of everyhop's own processes

AUDIENCE: Final = r"[!#-\[\]-~]{1,255}"  # what a scope-token of RFC 6749 may hold, so no space and no quotes
CLAIM_NAME: Final = r"[A-Za-z0-9_:/-]{1,128}"
USER_ALGORITHMS: Final = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
)
DEFAULT_USER_ALGORITHMS: Final = ("RS256", "ES256")
MAX_URL: Final = 512
MAX_SCHEMA_BYTES: Final = 64 * 1024

MAX_ID_NUMBER: Final = 2**32 - 2  # 2**32 - 1 is "no user" in the kernel's interface
MAX_PORT: Final = 65535
MAX_TEMPLATE: Final = 1024
MAX_SEGMENTS: Final = 64
MAX_REASON: Final = 300
MAX_CALL: Final = 8192

ROLE_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}"
GROUP_NAME: Final = r"[^\x00-\x1f\x7f]{1,255}"
ATTRIBUTE_NAME: Final = r"[a-z][a-z0-9_]{0,63}"
HEADER_NAME: Final = r"[a-z0-9-]{1,64}"
RESERVED_HEADERS: Final = frozenset(
    {"authorization", "proxy-authorization", "cookie", "host", "connection", "transfer-encoding", "content-length",
     "txn-token", "dpop", "forwarded", "te", "upgrade", "trailer", "keep-alive"}
)  # fmt: skip
RESERVED_HEADER_PREFIXES: Final = ("x-everyhop-", "x-forwarded-", "x-envoy-", "x-original-")
MOMENT: Final = (
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
    r"(?:\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
SUBJECT: Final = r"[^\x00-\x1f\x7f]{1,255}"
MAX_ATTRIBUTE_TEXT: Final = 1024
MAX_CONDITION: Final = 4096
MAX_DIRECTORY: Final = 10_000

DNS_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
DNS_NAME: Final = rf"(?=[^\n]{{1,253}}$){DNS_LABEL}(?:\.{DNS_LABEL})*"
OPTION_TEXT: Final = r"[!#-&(-\[\]-~]{1,256}"
OPTION_PATH: Final = r"/[!#-&(-\[\]-~]{0,255}"
LABEL_KEY: Final = rf"(?:{DNS_LABEL}(?:\.{DNS_LABEL})*/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{{0,61}}[A-Za-z0-9])?"
LABEL_VALUE: Final = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
HOST_AND_PORT: Final = r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?:[1-9][0-9]{0,4}"
HTTPS_URL: Final = r"https://[A-Za-z0-9.-]{1,253}(?::[1-9][0-9]{0,4})?(?:/[!#$%&(-;=?-Z_a-z~-]{0,512})?"
HTTPS_PORT: Final = 443
MAX_RETRIES: Final = 10
MAX_OPTION: Final = 1_000_000
DURATION: Final = r"[0-9]{1,9}(?:s|m|h|d)"
RATE: Final = r"[1-9][0-9]{0,6}/[smh]"
PERCENT: Final = r"(?:[1-9][0-9]?|100)%"
EXEMPTION: Final = r"(?:identity|service|user|api-key|address):[!-~]{1,512}"
EXEMPTION_HINT: Final = "address:NETWORK, service:NAME, identity:SPIFFE-ID, user:NAME or api-key:KEY"
MAX_THRESHOLD: Final = 10_000_000
DETECTOR_NAME: Final = r"[a-z][a-z0-9_-]{0,40}"
KNOB: Final = r"[!-~]{1,256}"
MAX_DETECTORS: Final = 32
