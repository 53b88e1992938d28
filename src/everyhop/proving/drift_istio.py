# SPDX-License-Identifier: Apache-2.0
"""Objects of Istio that widen, or do nothing, beside the compiled ones.

Semantics: allow policies add up and deny comes first; PeerAuthentication of the workload before the namespace's before the root's;
RequestAuthentication alone lets calls without a token pass; a dry run decides nothing; ztunnel has no layer 7 (istio.io,
references of the kinds; field notes section 2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.proving.drift_model import Finding, Severity
from everyhop.proving.drift_scope import SECURITY, Scope, finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from everyhop.manifests import Manifest

_SHOWN: Final = 5
_DRY_RUN: Final = "istio.io/dry-run"
_WEAK: Final = frozenset({"PERMISSIVE", "DISABLE"})
_LAYER_7: Final = frozenset({"methods", "notMethods", "paths", "notPaths", "hosts", "notHosts"})
_REQUEST: Final = frozenset({"requestPrincipals", "notRequestPrincipals"})
_LAYER_4_KEYS: Final = frozenset(
    {
        "source.ip",
        "source.namespace",
        "source.principal",
        "source.serviceAccount",
        "destination.ip",
        "destination.port",
    }
)


def look(scope: Scope, others: Sequence[Manifest], in_force: Sequence[Manifest]) -> Iterator[Finding]:
    """Yield what is to be said of ``others`` (foreign or changed objects) among all that are in force."""
    for one in others:
        if one.group != SECURITY:
            continue
        if one.kind == "AuthorizationPolicy":
            yield from _authorization(scope, one)
        elif one.kind == "PeerAuthentication":
            yield from _peer(scope, one)
        elif one.kind == "RequestAuthentication":
            yield from _request(scope, one, in_force)
    yield from _open(scope, in_force)


def _authorization(scope: Scope, one: Manifest) -> Iterator[Finding]:
    action = one.spec.get("action", "ALLOW")
    rules = one.spec.get("rules") or []
    services = _services(scope, one)
    if one.annotations.get(_DRY_RUN) == "true":
        yield finding(one, "istio.dry-run", Severity.DRIFTS, "it is a dry run: it decides nothing", services)
        return
    if not services:
        message = "it selects no service of the policy: it does nothing for them, or guards what the policy does not know"
        yield finding(one, "istio.unknown-workload", Severity.DRIFTS, message)
        return
    if action == "ALLOW" and rules:
        everybody = any(
            not rule or not rule.get("from") for rule in rules if isinstance(rule, dict) or rule is None
        )
        code = "istio.allow-all" if everybody else "istio.extra-allow"
        words = "it lets everybody in" if everybody else "what it allows is added to the policy"
        yield finding(one, code, Severity.WIDENS, words, services)
    elif action in {"DENY", "CUSTOM"}:
        yield finding(
            one,
            "istio.extra-deny",
            Severity.DRIFTS,
            f"its {action} takes from what the policy allows",
            services,
        )
    if scope.target == "ambient" and "targetRefs" not in one.spec and "targetRef" not in one.spec:
        yield from _ztunnel(one, action, rules, services)


def _ztunnel(one: Manifest, action: str, rules: Iterable[Any], services: Sequence[str]) -> Iterator[Finding]:
    if not any(_has_layer_7(rule) for rule in rules):
        return
    if action == "DENY":
        message = "ztunnel has no layer 7: this DENY is ignored or denies more than it says"
        yield finding(one, "istio.ambient-deny-l7", Severity.DRIFTS, message, services)
    else:
        message = "ztunnel has no layer 7: rules with it are dropped"
        yield finding(one, "istio.ambient-l7", Severity.DRIFTS, message, services)


def _has_layer_7(rule: Any) -> bool:
    if not isinstance(rule, dict):
        return False
    operations = [item.get("operation") or {} for item in rule.get("to") or () if isinstance(item, dict)]
    sources = [item.get("source") or {} for item in rule.get("from") or () if isinstance(item, dict)]
    keys = [item.get("key") for item in rule.get("when") or () if isinstance(item, dict)]
    return (
        any(_LAYER_7 & set(operation) for operation in operations)
        or any(_REQUEST & set(source) for source in sources)
        or any(key not in _LAYER_4_KEYS for key in keys)
    )


def _peer(scope: Scope, one: Manifest) -> Iterator[Finding]:
    services = _services(scope, one)
    mode = _mode(one.spec.get("mtls"))
    if not services:
        message = "it selects no service of the policy"
        yield finding(one, "istio.unknown-workload", Severity.DRIFTS, message)
        return
    if mode in _WEAK:
        message = f"mode {mode}: callers without mutual TLS are let in, and have no identity"
        yield finding(one, "istio.permissive", Severity.WIDENS, message, services)
    levels = one.spec.get("portLevelMtls")
    for port, level in sorted((levels if isinstance(levels, dict) else {}).items(), key=str):
        found = _mode(level)
        if found in _WEAK:
            message = f"mode {found} on port {port}: callers without mutual TLS are let in there"
            yield finding(one, "istio.permissive-port", Severity.WIDENS, message, services)


def _mode(value: Any) -> str | None:
    return value.get("mode") if isinstance(value, dict) else None


def _request(scope: Scope, one: Manifest, in_force: Sequence[Manifest]) -> Iterator[Finding]:
    services = _services(scope, one)
    asked = {
        name
        for policy in in_force
        if (policy.group, policy.kind) == (SECURITY, "AuthorizationPolicy") and _asks_for_token(policy.spec)
        for name in _services(scope, policy)
    }
    lone = [name for name in services if name not in asked]
    if lone:
        message = "no AuthorizationPolicy asks for its tokens: a call without one passes it"
        yield finding(one, "istio.request-authentication-alone", Severity.DRIFTS, message, lone)
    elif not services:
        yield finding(one, "istio.unknown-workload", Severity.DRIFTS, "it selects no service of the policy")


def _asks_for_token(spec: Mapping[str, Any]) -> bool:
    for rule in spec.get("rules") or ():
        if not isinstance(rule, dict):
            continue
        sources = [item.get("source") or {} for item in rule.get("from") or () if isinstance(item, dict)]
        keys = [str(item.get("key")) for item in rule.get("when") or () if isinstance(item, dict)]
        if any(_REQUEST & set(source) for source in sources) or any(
            key.startswith("request.auth.") for key in keys
        ):
            return True
    return False


def _open(scope: Scope, in_force: Sequence[Manifest]) -> Iterator[Finding]:
    """Yield the services at which no ALLOW policy applies, so that Istio lets everybody in, and those without mutual TLS."""
    allowed: set[str] = set()
    strict: set[str] = set()
    for one in in_force:
        if one.group != SECURITY or one.annotations.get(_DRY_RUN) == "true":
            continue
        if one.kind == "AuthorizationPolicy" and one.spec.get("action", "ALLOW") == "ALLOW":
            allowed |= set(_surely(scope, one))
        elif one.kind == "PeerAuthentication" and _mode(one.spec.get("mtls")) == "STRICT":
            strict |= set(_surely(scope, one))
    bare = [name for name in scope.intents.names if name not in allowed]
    if bare:
        yield Finding(
            code="istio.no-deny-all",
            severity=Severity.WIDENS,
            subject=_in_a_line(bare),
            message="no ALLOW policy is in force there, so Istio lets everybody in",
        )
    loose = [name for name in scope.intents.names if name not in strict]
    if loose:
        yield Finding(
            code="istio.no-strict",
            severity=Severity.WIDENS,
            subject=_in_a_line(loose),
            message="no PeerAuthentication asks for mutual TLS there, and without one Istio takes plaintext",
        )


def _in_a_line(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _services(scope: Scope, one: Manifest) -> tuple[str, ...]:
    """Return the services that an object may select; by targetRefs: all of its namespace."""
    if "targetRef" in one.spec or "targetRefs" in one.spec:
        return scope.selected(one, None)
    return scope.selected(one, _selector(one))


def _surely(scope: Scope, one: Manifest) -> Iterator[str]:
    labels = _selector(one)
    if "targetRef" in one.spec or "targetRefs" in one.spec:
        labels = {}
    for name in scope.selected(one, labels):
        place = scope.intents.settings.place(name)
        if all(place.labels.get(key) == value for key, value in labels.items()):
            yield name


def _selector(one: Manifest) -> Mapping[str, Any]:
    selector = one.spec.get("selector")
    labels = selector.get("matchLabels") if isinstance(selector, dict) else None
    return labels if isinstance(labels, dict) else {}
