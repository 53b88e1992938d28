# SPDX-License-Identifier: Apache-2.0
"""The SDK for applications: who calls, for whom, may they; identities, tokens and TLS for one's own calls.

Names are loaded when they are first used: ``import everyhop.sdk`` loads no cryptography, no gRPC and no web
framework (tests/unit/sdk/test_import.py holds it).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everyhop.sdk.authorization import authorize, visible
    from everyhop.sdk.behalf import on_behalf_of
    from everyhop.sdk.checked import peer_of
    from everyhop.sdk.clients import ID_TOKEN, AsyncWorkloadApiClient, Issued, WorkloadApiClient
    from everyhop.sdk.context import ContextSource, OperationContext, ServiceContext, Target, TargetOperation
    from everyhop.sdk.grpc_tls import grpc_peer, grpc_server_credentials
    from everyhop.sdk.guard import Guard
    from everyhop.sdk.identities import JwtIdentity, ValidatedJwt, X509Identity, X509Update
    from everyhop.sdk.model import OUTSIDE, Caller, Decided, Peer, Refusal, Request, User, Verified
    from everyhop.sdk.propagation import caller, carry, current, outgoing_headers, require, serving, user
    from everyhop.sdk.servers import asgi_peer, hypercorn_config, uvicorn_config, wsgi_peer
    from everyhop.sdk.sources import BundleSource, JwtSource, X509Source
    from everyhop.sdk.targets import find_operation
    from everyhop.sdk.tls import client_context, server_context
    from everyhop.sdk.token_source import TokenSource
    from everyhop.sdk.trace import TraceContext, parse_trace
    from everyhop.sdk.workload import Workload, aconnect, connect

_HOMES = {
    "authorization": ("authorize", "visible"),
    "behalf": ("on_behalf_of",),
    "checked": ("peer_of",),
    "clients": ("ID_TOKEN", "AsyncWorkloadApiClient", "Issued", "WorkloadApiClient"),
    "context": ("ContextSource", "OperationContext", "ServiceContext", "Target", "TargetOperation"),
    "grpc_tls": ("grpc_peer", "grpc_server_credentials"),
    "guard": ("Guard",),
    "identities": ("JwtIdentity", "ValidatedJwt", "X509Identity", "X509Update"),
    "model": ("OUTSIDE", "Caller", "Decided", "Peer", "Refusal", "Request", "User", "Verified"),
    "propagation": ("caller", "carry", "current", "outgoing_headers", "require", "serving", "user"),
    "servers": ("asgi_peer", "hypercorn_config", "uvicorn_config", "wsgi_peer"),
    "sources": ("BundleSource", "JwtSource", "X509Source"),
    "targets": ("find_operation",),
    "tls": ("client_context", "server_context"),
    "token_source": ("TokenSource",),
    "trace": ("TraceContext", "parse_trace"),
    "workload": ("Workload", "aconnect", "connect"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ID_TOKEN",
    "OUTSIDE",
    "AsyncWorkloadApiClient",
    "BundleSource",
    "Caller",
    "ContextSource",
    "Decided",
    "Guard",
    "Issued",
    "JwtIdentity",
    "JwtSource",
    "OperationContext",
    "Peer",
    "Refusal",
    "Request",
    "ServiceContext",
    "Target",
    "TargetOperation",
    "TokenSource",
    "TraceContext",
    "User",
    "ValidatedJwt",
    "Verified",
    "Workload",
    "WorkloadApiClient",
    "X509Identity",
    "X509Source",
    "X509Update",
    "aconnect",
    "asgi_peer",
    "authorize",
    "caller",
    "carry",
    "client_context",
    "connect",
    "current",
    "find_operation",
    "grpc_peer",
    "grpc_server_credentials",
    "hypercorn_config",
    "on_behalf_of",
    "outgoing_headers",
    "parse_trace",
    "peer_of",
    "require",
    "server_context",
    "serving",
    "user",
    "uvicorn_config",
    "visible",
    "wsgi_peer",
]


def __getattr__(name: str) -> Any:
    """Load the module that a name lives in (PEP 562)."""
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
