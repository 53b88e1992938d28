# SPDX-License-Identifier: Apache-2.0
"""Envoy's external authorization: our messages with Envoy's field numbers, under Envoy's names on the wire."""

from __future__ import annotations

from typing import Final

from everyhop.wire.ext_authz_pb2 import (
    AttributeContext,
    CheckRequest,
    CheckResponse,
    DeniedHttpResponse,
    HeaderMap,
    HeaderValue,
    HeaderValueOption,
    HttpStatus,
    OkHttpResponse,
    Status,
)

__all__ = [
    "CHECK",
    "FILTER_NAME",
    "OVERWRITE",
    "AttributeContext",
    "CheckRequest",
    "CheckResponse",
    "DeniedHttpResponse",
    "HeaderMap",
    "HeaderValue",
    "HeaderValueOption",
    "HttpStatus",
    "OkHttpResponse",
    "Status",
]

CHECK: Final = "/envoy.service.auth.v3.Authorization/Check"
"""Path of the method."""

FILTER_NAME: Final = "envoy.filters.http.ext_authz"
"""Namespace under which Envoy keeps ``dynamic_metadata`` of an answer, and name of the filter."""

OVERWRITE: Final = 2
"""``OVERWRITE_IF_EXISTS_OR_ADD``: a header of ours replaces whatever a request brought."""
