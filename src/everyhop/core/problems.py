# SPDX-License-Identifier: Apache-2.0
"""Positions in source text, and mistakes found at them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A place in a text: ``file`` as the user named it, ``line`` and ``column`` counted from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        """Render as ``file:line:column``, which editors and terminals make clickable."""
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake: a stable ``code``, where it is, what is wrong, and how to mend it where that is known.

    ``is_warning`` marks what is allowed but probably not meant.
    """

    code: str
    span: Span
    message: str
    suggestion: str | None = None
    is_warning: bool = False

    def to_dict(self) -> dict[str, object]:
        """Return a JSON object; part of the contract of ``status`` and ``policy check``."""
        return {
            "code": self.code,
            "file": self.span.file,
            "line": self.span.line,
            "column": self.span.column,
            "message": self.message,
            "suggestion": self.suggestion,
        }

    def render(self) -> str:
        """Return one line for people: position, message, suggestion."""
        tail = f" ({self.suggestion})" if self.suggestion else ""
        level = "warning" if self.is_warning else "error"
        return f"{self.span}: {level}: {self.message}{tail} [{self.code}]"
