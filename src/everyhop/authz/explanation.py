# SPDX-License-Identifier: Apache-2.0
"""Why a decision is as it is, as values: for people (``render``) and for programs (``to_dict``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everyhop.conditions import Clause
    from everyhop.core.decision import Decision
    from everyhop.core.problems import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Cited:
    """A rule or an operation of the policy: ``id``, ``text`` in words, where it stands, the reason it gives."""

    id: str
    text: str
    span: Span
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        place = {"file": self.span.file, "line": self.span.line, "column": self.span.column}
        return {"id": self.id, "text": self.text, "reason": self.reason, **place}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that keeps the nearest rule or operation from matching.

    ``what`` is ``caller``, ``target``, ``operation``, ``method`` or ``path``; ``asked`` is the call's,
    ``declared`` the policy's.
    """

    what: str
    asked: str
    declared: str

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {"what": self.what, "asked": self.asked, "declared": self.declared}


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """An entry to add to the policy text.

    ``path`` names the list or mapping (``allow`` or ``services.NAME.operations``), ``yaml`` is the entry on
    one line (for a list without its dash), ``span`` the place to look at: the entry to add it after, or the
    service to add it to.  :func:`everyhop.policy.edit.append_entry` makes the change.
    """

    path: tuple[str, ...]
    yaml: str
    span: Span

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "add_to": ".".join(self.path),
            "yaml": self.yaml,
            "file": self.span.file,
            "line": self.span.line,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """The smallest change that would allow the call.

    ``also_opens`` names the others whom it would let in: callers, or where it adds to a role, the roles that include it.
    """

    edits: tuple[Edit, ...]
    also_opens: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {"edits": [edit.to_dict() for edit in self.edits], "also_opens": list(self.also_opens)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A decision with its why.

    ``rule`` is what decided (None where nothing matched), ``nearest`` what almost matched and
    ``differences`` what kept it from matching; ``clauses`` are the parts of the condition of the rule that decided,
    or came nearest, each with its value and what it saw; ``notes`` are further facts in whole sentences.
    """

    decision: Decision
    summary: str
    rule: Cited | None = None
    nearest: Cited | None = None
    differences: tuple[Difference, ...] = ()
    clauses: tuple[Clause, ...] = ()
    notes: tuple[str, ...] = ()
    suggestion: Suggestion | None = None

    @property
    def facts(self) -> str:
        """Return what the clauses saw, on one line."""
        return "; ".join(line for clause in self.clauses for line in _render_clause(clause))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object; keys are stable, more may be added."""
        decision = self.decision
        return {
            "decision": decision.effect.value,
            "reason": decision.reason.value,
            "status": decision.status,
            "caller": decision.caller,
            "target": decision.target,
            "operation": decision.operation,
            "rule": decision.rule,
            "snapshot": decision.snapshot,
            "summary": self.summary,
            "cited": self.rule.to_dict() if self.rule else None,
            "nearest": self.nearest.to_dict() if self.nearest else None,
            "differences": [difference.to_dict() for difference in self.differences],
            "clauses": [_clause(clause) for clause in self.clauses],
            "would": None
            if decision.would is None
            else {
                "decision": decision.would.effect.value,
                "reason": decision.would.reason.value,
                "rule": decision.would.rule,
            },
            "notes": list(self.notes),
            "suggestion": self.suggestion.to_dict() if self.suggestion else None,
        }

    def render(self) -> str:
        """Return lines for people, without a final newline."""
        lines = [f"{self.decision.effect.value}: {self.summary} [{self.decision.reason.value}]"]
        if self.rule:
            lines.append(f"  by {self.rule.id} at {self.rule.span}: {self.rule.text}")
            if self.rule.reason:
                lines.append(f"  reason: {self.rule.reason}")
        if self.nearest:
            lines.append(f"  nearest: {self.nearest.id} at {self.nearest.span}: {self.nearest.text}")
        lines += [f"    {d.what}: {d.asked} is not {d.declared}" for d in self.differences]
        lines += [f"    {line}" for clause in self.clauses for line in _render_clause(clause)]
        lines += [f"  {note}" for note in self.notes]
        if self.suggestion:
            lines += _render_suggestion(self.suggestion)
        return "\n".join(lines)


def _clause(clause: Clause) -> dict[str, Any]:
    return {
        "text": clause.text,
        "value": clause.truth.value,
        "inputs": dict(clause.inputs),
        "error": clause.error,
    }


def _render_clause(clause: Clause) -> list[str]:
    seen = ", ".join(f"{name} = {value}" for name, value in clause.inputs.items())
    error = f": {clause.error}" if clause.error else ""
    return [f"{clause.truth.value.lower():<5} {clause.text}{f'  ({seen})' if seen else ''}{error}"]


def _render_suggestion(suggestion: Suggestion) -> list[str]:
    lines = ["  to allow it:"]
    for edit in suggestion.edits:
        is_list = edit.path[0] in {"allow", "roles"}
        lines.append(f"    add to {'.'.join(edit.path)} (see {edit.span.file}:{edit.span.line})")
        lines.append(f"      {'- ' if is_list else ''}{edit.yaml}")
    if suggestion.also_opens:
        names = ", ".join(suggestion.also_opens)
        is_grant = any(edit.path[0] == "roles" for edit in suggestion.edits)
        lines.append(
            f"    this also grants it by way of {names}"
            if is_grant
            else f"    this also opens it to {names}, who may call all operations"
        )
    return lines
