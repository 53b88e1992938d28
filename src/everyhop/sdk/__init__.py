# SPDX-License-Identifier: Apache-2.0
"""The SDK for applications: who calls, for whom, may they; identities, tokens and TLS for one's own calls.

Names are loaded when they are first used: ``import everyhop.sdk`` loads no cryptography, no gRPC and no web
framework (tests/unit/sdk/test_import.py holds it).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everyhop.sdk.context import ContextSource, OperationContext, ServiceContext, Target, TargetOperation
    from everyhop.sdk.guard import Guard
    from everyhop.sdk.model import OUTSIDE, Caller, Decided, Peer, Refusal, Request, User, Verified
    from everyhop.sdk.propagation import (
        caller,
        carry,
        current,
        outgoing_headers,
        require,
        serving,
        user,
    )
    from everyhop.sdk.trace import TraceContext, parse_trace

_HOMES = {
    "context": ("ContextSource", "OperationContext", "ServiceContext", "Target", "TargetOperation"),
    "propagation": ("caller", "carry", "current", "outgoing_headers", "require", "serving", "user"),
    "guard": ("Guard",),
    "model": ("OUTSIDE", "Caller", "Decided", "Peer", "Refusal", "Request", "User", "Verified"),
    "trace": ("TraceContext", "parse_trace"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "OUTSIDE",
    "Caller",
    "ContextSource",
    "Decided",
    "Guard",
    "OperationContext",
    "Peer",
    "Refusal",
    "Request",
    "ServiceContext",
    "Target",
    "TargetOperation",
    "TraceContext",
    "User",
    "Verified",
    "caller",
    "carry",
    "current",
    "outgoing_headers",
    "parse_trace",
    "require",
    "serving",
    "user",
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
