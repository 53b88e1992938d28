# SPDX-License-Identifier: Apache-2.0
"""An HTTP API of API Gateway: a route for each operation that is open to ``outside``, and a JWT authorizer where one is asked for.

A route of which nothing is written is refused by the API (404).  A greedy parameter takes one segment or more, never none.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from everyhop.policy.model import SegmentKind, TokenMode, UserMode
from everyhop.targets.aws.edge import EdgeDoor, head, is_held_elsewhere, refusal
from everyhop.targets.model import Feature

if TYPE_CHECKING:
    from collections.abc import Sequence

    from everyhop.policy.model import Route
    from everyhop.targets.model import Diagnostic
    from everyhop.targets.view import View

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_API: Final = "${aws_apigatewayv2_api.everyhop.id}"


def gateway_document(view: View, doors: Sequence[EdgeDoor], found: list[Diagnostic]) -> dict[str, Any] | None:
    """Return the document, or None where no route is left; what is refused is added to ``found``."""
    routes: dict[str, Any] = {}
    authorizers: dict[str, Any] = {}
    services: set[str] = set()
    for door in doors:
        authorizer = _authorizer(view, door, found)
        if authorizer is None or not _has_method(view, door, found):
            continue
        route: dict[str, Any] = {
            "//": door.note,
            "api_id": _API,
            "route_key": f"{door.operation.route.method} {_path(door.operation.route)}",
            "target": f"integrations/${{aws_apigatewayv2_integration.{_label(door.door.service)}.id}}",
            "authorization_type": "JWT" if authorizer else "NONE",
        }
        if authorizer:
            name = _label("jwt", authorizer["issuer"], *authorizer["audience"])
            authorizers[name] = {
                "api_id": _API,
                "name": name,
                "authorizer_type": "JWT",
                "identity_sources": ["$request.header.Authorization"],
                "jwt_configuration": authorizer,
            }
            route["authorizer_id"] = f"${{aws_apigatewayv2_authorizer.{name}.id}}"
        routes[_label(door.door.service, door.door.name)] = route
        services.add(door.door.service)
    if not routes:
        return None
    return _document(view, routes, authorizers, sorted(services))


def _document(
    view: View, routes: dict[str, Any], authorizers: dict[str, Any], services: list[str]
) -> dict[str, Any]:
    resources: dict[str, Any] = {
        "aws_apigatewayv2_api": {"everyhop": {"name": "everyhop", "protocol_type": "HTTP"}},
        "aws_apigatewayv2_stage": {"everyhop": {"api_id": _API, "name": "$default", "auto_deploy": True}},
        "aws_apigatewayv2_integration": {
            _label(name): {
                "api_id": _API,
                "integration_type": "HTTP_PROXY",
                "integration_method": "ANY",
                "integration_uri": f'${{var.gateway_integration_uris["{name}"]}}',
                "connection_type": "VPC_LINK",
                "connection_id": "${var.gateway_vpc_link_id}",
            }
            for name in services
        },
        "aws_apigatewayv2_route": routes,
    }
    if authorizers:
        resources["aws_apigatewayv2_authorizer"] = authorizers
    variables = {
        "gateway_vpc_link_id": {"type": "string", "description": "the VPC link to the back ends"},
        "gateway_integration_uris": {
            "type": "map(string)",
            "description": "the listener's ARN by service: " + ", ".join(services),
        },
    }
    return {"//": head(view), "variable": variables, "resource": resources}


def _authorizer(view: View, door: EdgeDoor, found: list[Diagnostic]) -> dict[str, Any] | None:
    """Return what the route's authorizer checks, {} for nothing, or None where it cannot check what is asked for."""
    ids = [rule.id for rule in door.rules]
    wants_token = door.operation.token is not TokenMode.NONE
    if wants_token and not is_held_elsewhere(view, Feature.TOKEN):
        issuer = view.intents.settings.tokens
        if issuer is None:
            why = "no issuer is named in targets: tokens"
            found.append(refusal(view, Feature.TOKEN, door.door, ids, why))
            return None
        return _with_user(view, door, found, {"issuer": issuer.issuer, "audience": [_audience(door)]})
    return _with_user(view, door, found, {})


def _with_user(
    view: View, door: EdgeDoor, found: list[Diagnostic], token: dict[str, Any]
) -> dict[str, Any] | None:
    ids = [rule.id for rule in door.rules]
    if any(rule.user is UserMode.NONE for rule in door.rules):
        return token
    if door.needs_user_check and not is_held_elsewhere(view, Feature.ROLES):
        why = "a JWT authorizer does not look at roles"
        found.append(refusal(view, Feature.ROLES, door.door, ids, why))
        return None
    is_optional = any(rule.user is UserMode.OPTIONAL for rule in door.rules)
    if is_optional or is_held_elsewhere(view, Feature.USER):
        return token
    issuers = view.intents.snapshot.user_issuers
    if token or len(issuers) != 1:
        why = (
            "a route has one JWT authorizer"
            if token
            else f"the policy names {len(issuers)} issuers of users, not one"
        )
        found.append(refusal(view, Feature.USER, door.door, ids, why))
        return None
    return {"issuer": issuers[0].issuer, "audience": list(issuers[0].audiences)}


def _has_method(view: View, door: EdgeDoor, found: list[Diagnostic]) -> bool:
    if door.operation.route.method in METHODS:
        return True
    why = f"an HTTP API has no method {door.operation.route.method}"
    found.append(refusal(view, Feature.ROUTE, door.door, [rule.id for rule in door.rules], why))
    return False


def _audience(door: EdgeDoor) -> str:
    service = door.door.service
    return f"{service}#{door.door.name}" if door.operation.token is TokenMode.OPERATION else service


def _path(route: Route) -> str:
    written = {SegmentKind.LITERAL: "{0}", SegmentKind.PARAMETER: "{{{0}}}", SegmentKind.REST: "{{{0}+}}"}
    return "/" + "/".join(written[s.kind].format(s.text) for s in route.segments)


def _label(*words: str) -> str:
    """Return a name for a block of Terraform: the words, and a digest where they are not a plain one."""
    text = "_".join(words)
    plain = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in text)
    digest = hashlib.sha256("\0".join(words).encode()).hexdigest()[:10]
    return f"e_{plain[:40]}_{digest}"
