# SPDX-License-Identifier: Apache-2.0
"""What one target may open of the policy, given what stands on the same hops beside it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from everyhop.policy.model import OUTSIDE
from everyhop.policy.targets import ACCEPT, OPTIONS, WITH
from everyhop.targets.matrix import MATRIX, Cell, cell
from everyhop.targets.model import Diagnostic, Feature, Fidelity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from everyhop.targets.intents import Door, Grant, Intents

AUTHORIZER: Final = "authorizer"


class View:
    """The intents as one target sees them.

    ``beside`` are the targets on the same hops: those that are compiled together and those of the option ``with``.
    """

    def __init__(self, intents: Intents, target: str, beside: Iterable[str] = ()) -> None:
        self.intents: Final = intents
        self.target: Final = target
        declared = OPTIONS[target]
        self.accepted: Final = frozenset(self.option(ACCEPT)) if ACCEPT in declared else frozenset[str]()
        written: tuple[str, ...] = self.option(WITH) if WITH in declared else ()
        self.beside: Final[tuple[str, ...]] = tuple(sorted({*written, *beside} - {target}))
        self._holders: dict[Feature, str | None] = {}

    def option(self, name: str) -> Any:
        """Return an option of the target."""
        return self.intents.settings.option(self.target, name)

    @property
    def has_authorizer(self) -> bool:
        """Tell whether the target is told of an authorizer."""
        return AUTHORIZER in OPTIONS[self.target] and bool(self.option(AUTHORIZER))

    def fidelity(self, feature: Feature) -> Cell:
        """Return how this target itself holds a feature; refused without the option or the authorizer that it needs."""
        found = cell(self.target, feature)
        if found.needs is not None and not self.option(found.needs):
            place = f"targets: {self.target}: {found.needs}"
            return Cell(Fidelity.REFUSED, f"that needs a {found.needs}, and none is named ({place})")
        if found.fidelity is Fidelity.ASKS and not self.has_authorizer:
            return Cell(
                Fidelity.REFUSED, f"{found.note}, and none is named (targets: {self.target}: authorizer)"
            )
        return found

    def holder(self, feature: Feature) -> str | None:
        """Return who holds a feature on these hops: this target, one beside it, ``accepted``, or None for nobody."""
        if feature not in self._holders:  # asked for every grant of every door
            self._holders[feature] = self._find_holder(feature)
        return self._holders[feature]

    def _find_holder(self, feature: Feature) -> str | None:
        if self.fidelity(feature).fidelity is not Fidelity.REFUSED:
            return self.target
        other = self.held_beside(feature)
        if other is not None:
            return other
        return "accepted" if feature.value in self.accepted else None

    def held_beside(self, feature: Feature) -> str | None:
        """Return the first that stands beside this target and holds a feature, or None."""
        return next((one for one in self.beside if one in MATRIX and self._other(one, feature)), None)

    def _other(self, other: str, feature: Feature) -> bool:
        found = cell(other, feature)
        option = self.intents.settings.option
        if found.needs is not None and not option(other, found.needs):
            return False
        if found.fidelity is Fidelity.ASKS:
            return bool(AUTHORIZER in OPTIONS[other] and option(other, AUTHORIZER))
        return found.fidelity is not Fidelity.REFUSED

    def asks(self, door: Door, grant: Grant) -> bool:
        """Tell whether the authorizer of this target has to be asked for calls of a grant; it never is about bytes."""
        if door.operation is None:
            return False
        alternatives = (one.needs for one in grant.alternatives)
        needs = {*door.features, *(feature for needs in alternatives for feature in needs)}
        if grant.denied_if:
            needs.add(Feature.CONDITIONAL_DENY)
        return any(self.fidelity(feature).fidelity is Fidelity.ASKS for feature in needs)

    def opens(self, door: Door, grant: Grant) -> bool:
        """Tell whether a door may be opened to a caller: everything that the call needs is held by somebody on the hop."""
        return not self.missing(door, grant)

    def missing(self, door: Door, grant: Grant) -> frozenset[Feature]:
        """Return what nobody holds, of the alternative that misses least; empty where the door may be opened."""
        always = set(door.features)
        if grant.denied_if:
            always.add(Feature.CONDITIONAL_DENY)
        if grant.caller == OUTSIDE:
            always.add(Feature.OUTSIDE)
        lacking = {feature for feature in always if not self._is_held(feature, door)}
        best = min(
            (
                {feature for feature in one.needs if not self._is_held(feature, door)}
                for one in grant.alternatives
            ),
            key=len,
        )
        return frozenset(lacking | best)

    def _is_held(self, feature: Feature, door: Door) -> bool:
        """Tell whether somebody holds a feature at a door; of bytes an authorizer is never asked, it answers for HTTP."""
        if door.operation is not None:
            return self.holder(feature) is not None
        own = self.fidelity(feature).fidelity not in {Fidelity.REFUSED, Fidelity.ASKS}
        return (
            own
            or feature.value in self.accepted
            or any(map(partial(self._holds_bytes, feature), self.beside))
        )

    def _holds_bytes(self, feature: Feature, other: str) -> bool:
        if other not in MATRIX or other == AUTHORIZER or cell(other, feature).fidelity is Fidelity.ASKS:
            return False
        return self._other(other, feature)

    def grants(self, door: Door) -> tuple[Grant, ...]:
        """Return the grants of a door that may be opened."""
        return tuple(grant for grant in door.grants if self.opens(door, grant))

    def error(
        self,
        code: str,
        message: str,
        *,
        door: Door | None = None,
        rules: Iterable[str] = (),
        suggestion: str | None = None,
    ) -> Diagnostic:
        """Return a diagnostic that ends compiling with a failure; ``code`` without the target's name."""
        span = None if door is None or door.operation is None else door.operation.span
        return Diagnostic(
            target=self.target,
            code=f"{self.target}.{code}",
            message=message,
            is_error=True,
            rules=tuple(rules),
            span=span,
            suggestion=suggestion,
        )

    def warning(
        self,
        code: str,
        message: str,
        *,
        door: Door | None = None,
        rules: Iterable[str] = (),
        suggestion: str | None = None,
    ) -> Diagnostic:
        """Return a diagnostic that only warns."""
        said = self.error(code, message, door=door, rules=rules, suggestion=suggestion)
        return replace(said, is_error=False)
