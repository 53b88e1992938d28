# SPDX-License-Identifier: Apache-2.0
"""The doors of one service as rules of an AuthorizationPolicy.

Rules only allow, and name callers by full ``principals``: ``namespaces`` and ``serviceAccounts`` leave the trust domain open, and a
negation matches those who have no identity at all.  A door without a token stands in the one rule of its set of callers.  A door
with a token has a rule for each caller, because the token has to be that caller's own.

``requestPrincipals`` cannot say it: Istio splits it at the last slash, and a SPIFFE ID has slashes.  So the claims are compared one
by one: the issuer, ``client_id`` (who got the token; ``sub`` is somebody else in a delegated one), the audience and the scope.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from everyhop.policy.model import OUTSIDE, TokenMode
from everyhop.targets.istio.paths import excluded, pattern
from everyhop.targets.objects import grant_note
from everyhop.targets.yaml import Noted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from everyhop.policy.model import Operation
    from everyhop.targets.intents import Door, Grant, ServiceIntents
    from everyhop.targets.istio.ground import Ground
    from everyhop.targets.model import Diagnostic

_SHOWN: Final = 5
_STAR: Final = "a path of it holds a * that Istio would read as a wildcard"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDoor:
    """A door that can be written: its operation in Istio's words, and the grants that are written for it."""

    door: Door
    operation: Mapping[str, Any]
    grants: tuple[Grant, ...]
    asks: bool
    needs_token: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The doors of a service that are opened, and what is said of those that stay shut."""

    service: ServiceIntents
    doors: tuple[OpenDoor, ...]
    diagnostics: tuple[Diagnostic, ...]

    @property
    def audiences(self) -> tuple[str, ...]:
        """Return the audiences of tokens that some door takes, sorted."""
        found = {
            audience
            for one in self.doors
            if one.needs_token and one.door.operation is not None
            for audience in _audiences(self.service.name, one.door.operation)
        }
        return tuple(sorted(found))


def opened(ground: Ground, service: ServiceIntents, doors: Iterable[Door], *, with_ports: bool) -> Opened:
    """Return which doors of a service can be opened; ``with_ports`` where rules see the port that the pod listens on.

    Without ports no door of a tcp service may be among them: there would be nothing to say of it.
    """
    found: list[OpenDoor] = []
    diagnostics: list[Diagnostic] = []
    for door in doors:
        grants = [grant for grant in ground.view.grants(door) if ground.principals(grant.caller)]
        needs_token = ground.needs_token(door)
        if needs_token:
            outside = [grant for grant in grants if grant.caller == OUTSIDE]
            if outside:
                diagnostics.append(_outside_token(ground, door, outside[0]))
            has_issuer = ground.view.intents.settings.tokens is not None
            grants = [grant for grant in grants if has_issuer and grant.caller != OUTSIDE]
        if not grants:
            continue
        operation = _operation(service, door, with_ports=with_ports)
        if operation is None:
            diagnostics.append(_unwritable(ground, door, grants))
            continue
        asks = any(ground.view.asks(door, grant) for grant in grants)
        found.append(
            OpenDoor(door=door, operation=operation, grants=tuple(grants), asks=asks, needs_token=needs_token)
        )
    return Opened(service=service, doors=tuple(found), diagnostics=tuple(diagnostics))


def allow_rules(ground: Ground, found: Opened) -> list[Noted]:
    """Return the rules of the ALLOW policy, empty where nothing is opened."""
    return [*_plain_rules(ground, found.doors), *_token_rules(ground, found)]


def ask_rules(found: Opened) -> list[dict[str, Any]]:
    """Return the rules of the CUSTOM policy: exactly the doors at which the authorizer has to be asked."""
    asked = [one for one in found.doors if one.asks]
    return [{"to": [_to(one) for one in asked]}] if asked else []


def callers(found: Opened) -> tuple[str, ...]:
    """Return everybody for whom some door is opened, sorted."""
    return tuple(sorted({grant.caller for one in found.doors for grant in one.grants}))


def principals_of(ground: Ground, names: Iterable[str]) -> list[str]:
    """Return the principals of callers in their order."""
    return [principal for name in names for principal in ground.principals(name)]


def source(principals: list[str]) -> list[dict[str, Any]]:
    """Return the ``from`` of a rule."""
    return [{"source": {"principals": principals}}]


def _plain_rules(ground: Ground, doors: Iterable[OpenDoor]) -> Iterator[Noted]:
    by_callers: dict[tuple[str, ...], list[OpenDoor]] = {}
    for one in doors:
        if not one.needs_token:
            names = tuple(grant.caller for grant in one.grants)
            by_callers.setdefault(names, []).append(one)
    for names, group in by_callers.items():
        rule = {"from": source(principals_of(ground, names)), "to": [_to(one) for one in group]}
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        yield Noted(rule, f"callers: {', '.join(names[:_SHOWN])}{more}")


def _token_rules(ground: Ground, found: Opened) -> Iterator[Noted]:
    tokens = ground.view.intents.settings.tokens
    for one in found.doors:
        operation = one.door.operation
        if tokens is None or operation is None or not one.needs_token:
            continue
        for grant in one.grants:
            client = str(ground.view.intents.snapshot.services[grant.caller].spiffe_id)
            audiences = _audiences(found.service.name, operation)
            scopes = (f"{found.service.name}.{operation.name}", operation.name)
            rule = {
                "from": source(list(ground.principals(grant.caller))),
                "to": [{"operation": dict(one.operation)}],
                "when": [
                    _claim("iss", tokens.issuer),
                    _claim("client_id", client),
                    {"key": "request.auth.audiences", "values": list(audiences)},
                    _claim("scope", *scopes),
                ],
            }
            yield Noted(rule, grant_note(one.door, grant))


def _claim(name: str, *values: str) -> dict[str, Any]:
    return {"key": f"request.auth.claims[{name}]", "values": list(values)}


def _audiences(service: str, operation: Operation) -> tuple[str, ...]:
    own = f"{service}#{operation.name}"
    return (own,) if operation.token is TokenMode.OPERATION else (service, own)


def _to(one: OpenDoor) -> Noted:
    return Noted({"operation": dict(one.operation)}, _note(one))


def _note(one: OpenDoor) -> str:
    return grant_note(one.door, *one.grants)


def _operation(service: ServiceIntents, door: Door, *, with_ports: bool) -> dict[str, Any] | None:
    """Return the operation of a door, None where Istio cannot say it."""
    ports = {"ports": [str(service.port)]} if with_ports else {}
    if door.operation is None:
        return ports or None
    path, other = pattern(door.operation.route), excluded(door, service.doors)
    if path is None or other is None:
        return None
    shown: dict[str, Any] = {"methods": [door.operation.route.method], "paths": [path]}
    return shown | ({"notPaths": list(other)} if other else {}) | ports


def _unwritable(ground: Ground, door: Door, grants: list[Grant]) -> Diagnostic:
    rules = tuple(dict.fromkeys(rule for grant in grants for rule in grant.rules))
    message = f"{ground.view.target} cannot write {door}: {_STAR}, or so does a narrower path of the service"
    hint = "rename the route, or compile the service to envoy"
    return ground.view.error("path", message, door=door, rules=rules, suggestion=hint)


def _outside_token(ground: Ground, door: Door, grant: Grant) -> Diagnostic:
    message = (
        f"{door} takes a token and is open to the outside: behind the gateway {ground.view.target} "
        "cannot see whose token it is"
    )
    hint = "let the gateway's service call it with a token of its own"
    return ground.view.error("outside-token", message, door=door, rules=grant.rules, suggestion=hint)
