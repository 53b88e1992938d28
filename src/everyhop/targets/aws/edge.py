# SPDX-License-Identifier: Apache-2.0
"""The doors that are open to callers from outside, and what none of AWS's systems can hold of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.policy.model import OUTSIDE
from everyhop.policy.routes import overlaps
from everyhop.targets.model import Feature
from everyhop.targets.objects import header
from everyhop.targets.regions import more_specific

if TYPE_CHECKING:
    from collections.abc import Iterable

    from everyhop.policy.model import Operation, Route, Rule
    from everyhop.targets.intents import Door, Grant
    from everyhop.targets.model import Diagnostic
    from everyhop.targets.view import View

_NOWHERE: Final[tuple[Feature, ...]] = (
    Feature.GRPC, Feature.WEBSOCKET, Feature.TCP, Feature.ONCE, Feature.BODY, Feature.RESOURCE, Feature.TOKEN_BINDING,
)  # fmt: skip
_NOTES: Final = {
    Feature.GRPC: "an HTTP API does not carry gRPC",
    Feature.WEBSOCKET: "an HTTP API does not carry WebSockets",
    Feature.TCP: "there are no connections without HTTP here",
    Feature.ONCE: "nothing remembers tokens here",
    Feature.BODY: "nothing looks at bodies here",
    Feature.RESOURCE: "the application decides it",
    Feature.TOKEN_BINDING: "a JWT authorizer does not look at cnf",
    Feature.CONDITION: "conditions are not lowered for AWS",
    Feature.CONDITIONAL_DENY: "conditions are not lowered for AWS",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeDoor:
    """One operation that is open to ``outside``: by which rules, and which more specific routes of its service are none of it."""

    door: Door
    operation: Operation
    rules: tuple[Rule, ...]
    without: tuple[Route, ...]
    needs_user_check: bool

    @property
    def note(self) -> str:
        """Return the rules with their places, for a comment."""
        places = ", ".join(f"{rule.id} at {rule.span.file}:{rule.span.line}" for rule in self.rules)
        return f"{self.door}: {places}"


def is_held_elsewhere(view: View, feature: Feature) -> bool:
    """Tell whether a target behind the edge holds a feature, or the operator accepts that nobody does."""
    return view.held_beside(feature) is not None or feature.value in view.accepted


def edge_doors(view: View) -> tuple[list[EdgeDoor], list[Diagnostic]]:
    """Return the doors that can be opened at the edge, with a diagnostic for each one that cannot."""
    found: list[EdgeDoor] = []
    diagnostics: list[Diagnostic] = []
    inner = 0
    for service in view.intents:
        operations = [door.operation for door in service.doors if door.operation is not None]
        for door in service.doors:
            grant = next((one for one in door.grants if one.caller == OUTSIDE), None)
            inner += any(one.caller != OUTSIDE for one in door.grants)
            if grant is None:
                continue
            rules = _rules(view, door, grant, diagnostics)
            if rules and door.operation is not None:
                without = [one.route for one in more_specific(door.operation, operations)]
                found.append(
                    EdgeDoor(
                        door=door,
                        operation=door.operation,
                        rules=rules,
                        without=tuple(one for one in without if overlaps(one, door.operation.route)),
                        needs_user_check=bool(view.intents.snapshot.roles),
                    )
                )
    if inner:
        message = f"aws is about callers from outside; {inner} doors that services pass are not in its output"
        hint = "compile them for a mesh or for Envoy as well"
        diagnostics.append(view.warning("service-to-service", message, suggestion=hint))
    return found, diagnostics


def _rules(view: View, door: Door, grant: Grant, diagnostics: list[Diagnostic]) -> tuple[Rule, ...]:
    """Return the rules by which the door opens, or none after saying why."""
    lacking = [one for one in _NOWHERE if one in door.features and not is_held_elsewhere(view, one)]
    if grant.denied_if and not is_held_elsewhere(view, Feature.CONDITIONAL_DENY):
        lacking.append(Feature.CONDITIONAL_DENY)
    diagnostics += [refusal(view, feature, door, grant.rules) for feature in lacking]
    rules = [one.rule for one in grant.alternatives if one.rule is not None]
    kept = [one for one in rules if one.when is None or is_held_elsewhere(view, Feature.CONDITION)]
    if len(kept) < len(rules):
        shut = [one.id for one in rules if one not in kept]
        diagnostics.append(refusal(view, Feature.CONDITION, door, shut))
    return () if lacking else tuple(kept)


def refusal(
    view: View, feature: Feature, door: Door, rules: Iterable[str], why: str | None = None
) -> Diagnostic:
    """Return the diagnostic for a feature of a door that nobody holds."""
    message = f"aws cannot hold {feature.value} of {door}: {why or _NOTES[feature]}"
    hint = "name what stands behind the edge in `with`: sdk, authorizer, envoy"
    return view.error(feature.value, message, door=door, rules=rules, suggestion=hint)


def head(view: View) -> str:
    """Return what stands at the head of a document."""
    return " ".join(header(view))
