# SPDX-License-Identifier: Apache-2.0
"""What is found where objects in force are not those that the policy compiles to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from everyhop.proving.rendering import request_of, words_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from everyhop.core.problems import Span
    from everyhop.proving.model import Difference


class Severity(StrEnum):
    """What a finding means; in this order, the worst first."""

    WIDENS = "widens"  # something may get through that the policy refuses
    DRIFTS = "drifts"  # otherwise than the policy says, or ineffective; nothing more gets through
    NOTE = "note"  # worth knowing, and no drift


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One field that is not as compiled; ``wanted`` or ``found`` are None where it is not there."""

    path: str
    wanted: Any
    found: Any

    def render(self) -> str:
        """Return one line for people."""
        return f"{self.path}: {_short(self.wanted)} in the policy, {_short(self.found)} in force"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing: a stable ``code``, what it means, and the object (its ``span`` is where it stands, None for a missing one).

    ``request`` is one that gets through only because of it, where one was found.
    """

    code: str
    severity: Severity
    subject: str
    message: str
    span: Span | None = None
    changes: tuple[Change, ...] = ()
    request: Difference | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object; part of the contract of ``policy drift -o json``."""
        entry: dict[str, Any] = {
            "code": self.code,
            "severity": self.severity.value,
            "object": self.subject,
            "message": self.message,
        }
        if self.span is not None:
            entry |= {"file": self.span.file, "line": self.span.line}
        if self.changes:
            entry["changes"] = [
                {"path": one.path, "policy": one.wanted, "in_force": one.found} for one in self.changes
            ]
        if self.request is not None:
            entry["request"] = request_of(self.request.ask)
            entry["says"] = words_of(self.request)
        return entry


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReport:
    """What was found of one target, the worst first.

    ``requests`` is how many were asked of the objects in force; None where no evaluator of the target is known, or it could not
    read them, as a finding then says.
    """

    target: str
    objects: int
    requests: int | None
    findings: Sequence[Finding]

    @property
    def worst(self) -> Severity | None:
        """Return the worst severity, None where nothing was found."""
        found = {one.severity for one in self.findings}
        return min(found, key=list(Severity).index, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object; part of the contract of ``policy drift -o json``."""
        return {
            "target": self.target,
            "objects": self.objects,
            "requests": self.requests,
            "in_sync": self.worst in {None, Severity.NOTE},
            "widens": self.worst is Severity.WIDENS,
            "findings": [one.to_dict() for one in self.findings],
        }


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = str(value)
    return text if len(text) <= 120 else text[:117] + "..."  # noqa: PLR2004  # a line of a terminal
