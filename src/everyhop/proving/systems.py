# SPDX-License-Identifier: Apache-2.0
"""The systems that can be proven, each by its evaluator over manifests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from everyhop.evaluators.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from everyhop.core.problems import Span
    from everyhop.evaluators.model import Evaluator
    from everyhop.proving.model import Ask
    from everyhop.targets.model import Diagnostic
    from everyhop.targets.view import View

_UNSEEN: Outcome = Outcome(allowed=True, why="it does not see what leaves")


@dataclass(frozen=True, kw_only=True)
class System:
    """One target as it stands on the hops that are proven.

    ``diagnostics`` are those of compiling the policy to it, ``places`` the file and line of each object by its name.
    ``is_own_form``: it sees SPIFFE IDs as the policy writes them, not as the mesh does.
    """

    name: str
    evaluator: Evaluator
    view: View
    diagnostics: Sequence[Diagnostic] = ()
    places: Mapping[str, Span] = field(default_factory=dict)
    is_own_form: bool = False
    sees_egress: bool = True

    def evaluate(self, ask: Ask) -> Outcome:
        """Return what the system does with a request."""
        if ask.is_egress and not self.sees_egress:
            return _UNSEEN
        request = ask.request
        if self.is_own_form and request.peer is not None:
            request = replace(request, peer=ask.caller.own_peer)
        return self.evaluator.evaluate(request)

    def place(self, outcome: Outcome) -> str | None:
        """Return the file and line of the object that decided, None where there is none."""
        if outcome.by is None:
            return None
        words = outcome.by.split(" ")
        span = next(
            (
                self.places[name]
                for n in range(len(words), 0, -1)
                if (name := " ".join(words[:n])) in self.places
            ),
            None,
        )
        return None if span is None else f"{span.file}:{span.line}"


class Material(NamedTuple):
    """What a system is made of: its target, what it may open, the files, and what compiling said."""

    target: str
    view: View
    files: Mapping[str, bytes]
    diagnostics: Sequence[Diagnostic]

    def option(self, name: str) -> Any:
        """Return an option of the target."""
        return self.view.option(name)


Builder = Callable[[Material], System]
"""Makes a system; raises InputError for files that it would reject."""

BUILDERS: dict[str, Builder] = {}
