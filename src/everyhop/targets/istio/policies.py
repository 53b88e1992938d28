# SPDX-License-Identifier: Apache-2.0
"""The objects of Istio's security group, as both modes write them; ``where`` is a selector or targetRefs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.targets.istio.rules import Opened, allow_rules, ask_rules
from everyhop.targets.objects import obj, object_name
from everyhop.targets.yaml import Document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from everyhop.targets.istio.ground import Ground
    from everyhop.targets.view import View

SECURITY: Final = "security.istio.io/v1"
DENY_ALL: Final = "everyhop-deny-all"


def peer_authentication(view: View, namespace: str) -> Document:
    """Return mutual TLS for a whole namespace.

    It has the name that such an object usually has: of two for one namespace Istio takes the older one, so ours replaces it.
    """
    spec = {"mtls": {"mode": "STRICT"}}
    made = obj(view, SECURITY, "PeerAuthentication", "default", namespace, spec)
    return Document(made, ("mutual TLS on every port",))


def deny_all(view: View, namespace: str, where: Mapping[str, Any] | None = None) -> Document:
    """Return the policy without a rule: what no other policy allows is denied."""
    made = obj(view, SECURITY, "AuthorizationPolicy", DENY_ALL, namespace, dict(where or {}))
    return Document(made, ("what no policy below allows is denied",))


def of_service(ground: Ground, found: Opened, where: Mapping[str, Any]) -> Iterator[Document]:
    """Yield the policies of one service: tokens, the authorizer's, and what is allowed; nothing where nothing is opened."""
    yield from _request_authentication(ground, found, where)
    asked = ask_rules(found)
    namespace, name = found.service.place.namespace, found.service.name
    if asked:
        spec = {**where, "action": "CUSTOM", "provider": {"name": ground.authorizer}, "rules": asked}
        made = obj(ground.view, SECURITY, "AuthorizationPolicy", object_name("ask", name), namespace, spec)
        yield Document(made, (f"{name}: everyhop's authorizer has to agree, beside what is allowed below",))
    rules = allow_rules(ground, found)
    if rules:
        spec = {**where, "action": "ALLOW", "rules": rules}
        made = obj(ground.view, SECURITY, "AuthorizationPolicy", object_name("allow", name), namespace, spec)
        yield Document(made, (f"who may call {name}",))


def _request_authentication(ground: Ground, found: Opened, where: Mapping[str, Any]) -> Iterator[Document]:
    tokens, audiences = ground.view.intents.settings.tokens, found.audiences
    if tokens is None or not audiences:
        return
    rule = {
        "issuer": tokens.issuer,
        "audiences": list(audiences),
        "jwksUri": tokens.jwks_uri,
        # Without a place of its own Istio reads a token from the query too, where it ends in logs.
        "fromHeaders": [{"name": "Authorization", "prefix": "Bearer "}],
        "forwardOriginalToken": True,
    }
    name = found.service.name
    made = obj(
        ground.view,
        SECURITY,
        "RequestAuthentication",
        object_name("tokens", name),
        found.service.place.namespace,
        {**where, "jwtRules": [rule]},
    )
    note = (
        f"{name}: a token is verified where there is one; that there must be one is said by the ALLOW policy"
    )
    yield Document(made, (note,))
