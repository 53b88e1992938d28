# SPDX-License-Identifier: Apache-2.0
"""The words of the policy language: keys, names and limits, shared by the parser and the JSON Schema."""

from __future__ import annotations

from typing import Final

VERSION: Final = "1"
DEFAULT_IDENTITY: Final = "/service/{service}"
ALL: Final = "all"

TOP_KEYS: Final = ("version", "trust_domain", "identity", "services", "users", "allow", "deny", "tests")
SERVICE_KEYS: Final = ("workload", "operations", "probes", "tcp", "identity")
WORKLOAD_KEYS: Final = ("unix", "run")
UNIX_KEYS: Final = ("uid", "user", "gid", "group", "path", "sha256")
ROUTE_KEYS: Final = ("route", "grpc", "websocket")
OPERATION_KEYS: Final = (*ROUTE_KEYS, "token", "once", "body")
USERS_KEYS: Final = ("issuers",)
ISSUER_KEYS: Final = ("issuer", "audience", "jwks", "roles", "algorithms")
RULE_KEYS: Final = ("from", "to", "operations", "user", "id", "reason")
TEST_KEYS: Final = ("from", "call", "tcp", "to", "expect")

LATER_KEYS: Final = frozenset(
    {
        "allow_encoded_slash", "at", "attributes", "detect", "federation", "gateway", "kubernetes", "mode",
        "role", "roles", "secrets", "targets", "user", "when",
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
