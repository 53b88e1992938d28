# SPDX-License-Identifier: Apache-2.0
"""The checked form of a CEL expression: our messages with Google's field numbers."""

from __future__ import annotations

from everyhop.wire.cel_pb2 import CheckedExpr, Constant, Expr, Reference, SourceInfo, Type

__all__ = ["CheckedExpr", "Constant", "Expr", "Reference", "SourceInfo", "Type"]
