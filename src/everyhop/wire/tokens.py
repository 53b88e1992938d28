# SPDX-License-Identifier: Apache-2.0
"""The workload's tokens on ``workload.sock``: the messages and the paths of their methods."""

from __future__ import annotations

from typing import Final

from everyhop.wire.tokens_pb2 import (
    ContextUpdate,
    ExchangeRequest,
    ExchangeResponse,
    MintRequest,
    MintResponse,
    WatchContextRequest,
)

__all__ = [
    "EXCHANGE",
    "MINT",
    "WATCH_CONTEXT",
    "ContextUpdate",
    "ExchangeRequest",
    "ExchangeResponse",
    "MintRequest",
    "MintResponse",
    "WatchContextRequest",
]

_SERVICE: Final = "/everyhop.workload.v1.Tokens/"
MINT: Final = _SERVICE + "Mint"
"""Unary: one access token for a call of this workload."""
EXCHANGE: Final = _SERVICE + "Exchange"
"""Unary: a narrower token for one that was received."""
WATCH_CONTEXT: Final = _SERVICE + "WatchContext"
"""Server stream: the service context, at once and after each change."""
