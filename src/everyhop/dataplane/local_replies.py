# SPDX-License-Identifier: Apache-2.0
"""Answers that a sidecar gives by itself: ``application/problem+json`` (RFC 9457) with a stable code.

A caller learns the code and the decision id, never the rule or the reason.  gRPC callers get the matching
``grpc-status`` from Envoy (403 is PERMISSION_DENIED, 429 is UNAVAILABLE).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.core.decision import Reason
from everyhop.dataplane import _names as names
from everyhop.dataplane._resources import Json, extension, set_header

if TYPE_CHECKING:
    from collections.abc import Sequence

_CEL: Final = "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"
_DECISION: Final = "%REQ(X-EVERYHOP-DECISION)%"
_CHALLENGE: Final = 'Basic realm="everyhop egress"'

REFUSED_BY: Final = "rbac_access_denied_matched_policy["
"""How Envoy's details begin where a filter of ours refused; elsewhere in them may stand what others have chosen."""

# CEL's own quoting: what reaches it as two backslashes is one.
_BY_BLOCK: Final = (
    rf"response.code_details.matches('^{REFUSED_BY[:-1]}\\[[0-9a-f]{{16}}\\|{Reason.BLOCKED}\\|')"
)
_LEFT: Final = r"int(re.extract(response.code_details, '([0-9]+)\\]$', '\\1')) - int(request.time)"
_SECONDS_LEFT: Final = f"{_LEFT} > 86400 ? 86400 : ({_LEFT} < 1 ? 1 : {_LEFT})"

ACCESS_DENIED: Final = "ACCESS_DENIED"
AMBIGUOUS_PATH: Final = "AMBIGUOUS_PATH"
UNDECLARED_DESTINATION: Final = "UNDECLARED_DESTINATION"
PROXY_AUTHENTICATION_REQUIRED: Final = "PROXY_AUTHENTICATION_REQUIRED"
UPSTREAM_UNAVAILABLE: Final = "UPSTREAM_UNAVAILABLE"
REQUEST_REFUSED: Final = "REQUEST_REFUSED"
TOKEN_UNAVAILABLE: Final = "TOKEN_UNAVAILABLE"  # noqa: S105  # a code
CHECK_UNAVAILABLE: Final = "CHECK_UNAVAILABLE"
BLOCKED: Final = "BLOCKED"

CHECK_REFUSED: Final = "ext_authz_denied"
CHECK_FAILED: Final = "ext_authz_error"
"""What Envoy says of a request when the agent refused its credentials, and when it could not ask."""

AMBIGUOUS_DETAILS: Final = frozenset({"absolute_path_rejected", "path_normalization_failed"})
"""What Envoy says of targets that it refuses by itself: absolute forms, ``*``, fragments."""

_COMMON: Final = (
    (400, "BAD_REQUEST", "Bad request"),
    (404, "NOT_FOUND", "Not found"),
    (408, "REQUEST_TIMEOUT", "Request timeout"),
    (413, "CONTENT_TOO_LARGE", "Content too large"),
    (431, "HEADERS_TOO_LARGE", "Request header fields too large"),
    (502, UPSTREAM_UNAVAILABLE, "Upstream unavailable"),
    (503, UPSTREAM_UNAVAILABLE, "Upstream unavailable"),
    (504, UPSTREAM_UNAVAILABLE, "Upstream unavailable"),
)


def ingress_replies(*, also_ambiguous: Sequence[str] = ()) -> Json:
    """Return ``local_reply_config`` of an ingress.

    RBAC refuses everything with 403; what it refused as ambiguous is told by the details of the response,
    because its metadata is written only after the reply.  ``also_ambiguous`` are further expressions for it.
    """
    ambiguous = " || ".join(
        [
            f"response.code_details.contains('|{Reason.AMBIGUOUS_PATH}|')",
            *(f"response.code_details == '{detail}'" for detail in sorted(AMBIGUOUS_DETAILS)),
            *also_ambiguous,
        ]
    )
    return {
        "mappers": [
            *_check_replies(),
            _blocked_reply(),
            _reply(_expression(ambiguous), 400, AMBIGUOUS_PATH, "Ambiguous path"),
            _reply(_status(403), 403, ACCESS_DENIED, "Access denied"),
            *(_reply(_status(status), status, code, title) for status, code, title in _COMMON),
        ],
        "body_format": _body("%RESPONSE_CODE%", REQUEST_REFUSED, "Request refused"),
    }


def egress_replies() -> Json:
    """Return ``local_reply_config`` of an egress: 407 without the launch's secret, 403 for what is undeclared."""
    unserved = "response.code == 503 && response.code_details == 'direct_response'"
    challenge = _reply(_status(401), 407, PROXY_AUTHENTICATION_REQUIRED, "Proxy authentication required")
    challenge["headers_to_add"].append(set_header("proxy-authenticate", _CHALLENGE))
    return {
        "mappers": [
            *_check_replies(),
            _blocked_reply(),
            challenge,
            _reply(_status(403), 403, UNDECLARED_DESTINATION, "Undeclared destination"),
            _reply(_expression(unserved), 503, TOKEN_UNAVAILABLE, "No token can be had now"),
            *(_reply(_status(status), status, code, title) for status, code, title in _COMMON),
        ],
        "body_format": _body("%RESPONSE_CODE%", REQUEST_REFUSED, "Request refused"),
    }


def passed_on(detail: str) -> Json:
    """Return what lets an answer stand as whoever was asked wrote it; ``detail`` is what Envoy says of the request."""
    body = {
        "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
        "content_type": "application/problem+json",
    }
    return {"filter": _expression(f"response.code_details == '{detail}'"), "body_format_override": body}


def _check_replies() -> list[Json]:
    """Return the answers where credentials were checked: status and challenge are the agent's, the body is ours."""
    told = f"%DYNAMIC_METADATA({names.EXT_AUTHZ}:{{}})%"
    refused = {
        "filter": _expression(f"response.code_details == '{CHECK_REFUSED}'"),
        "headers_to_add": [set_header(names.DECISION_HEADER, _DECISION)],
        "body_format_override": _body("%RESPONSE_CODE%", told.format(names.CODE), told.format(names.TITLE)),
    }
    failed = _expression(f"response.code_details == '{CHECK_FAILED}'")
    return [refused, _reply(failed, 503, CHECK_UNAVAILABLE, "Credentials cannot be checked now")]


def _blocked_reply() -> Json:
    """Return the answer to a blocked caller: when to come back is the end that its verdict names.

    Without an end it is a day, and a caller who comes back is refused again.
    """
    reply = _reply(_expression(_BY_BLOCK), 429, BLOCKED, "Blocked")
    reply["headers_to_add"].append(set_header("retry-after", f"%CEL({_SECONDS_LEFT})%"))
    return reply


def _reply(condition: Json, status: int, code: str, title: str) -> Json:
    return {
        "filter": condition,
        "status_code": status,
        "headers_to_add": [set_header(names.DECISION_HEADER, _DECISION)],
        "body_format_override": _body(status, code, title),
    }


def _body(status: int | str, code: str, title: str) -> Json:
    body = {"type": "about:blank", "title": title, "status": status, "code": code, "decision": _DECISION}
    return {"json_format": body, "content_type": "application/problem+json"}


def _status(status: int) -> Json:
    value = {"default_value": status, "runtime_key": "everyhop.none"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _expression(text: str) -> Json:
    return {
        "extension_filter": extension("envoy.access_loggers.extension_filters.cel", _CEL, expression=text)
    }
