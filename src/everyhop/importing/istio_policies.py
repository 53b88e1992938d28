# SPDX-License-Identifier: Apache-2.0
"""Objects of ``security.istio.io`` as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from everyhop.core.errors import InputError
from everyhop.importing.istio_rules import ReadRule, read_rule
from everyhop.importing.istio_users import JwtRule
from everyhop.importing.model import Fate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from everyhop.importing.model import Wishes
    from everyhop.importing.notes import Notes
    from everyhop.importing.workloads import Group
    from everyhop.manifests import Manifest, Manifests

SECURITY: Final = "security.istio.io"
_DRY_RUN: Final = "istio.io/dry-run"
_DENYING: Final = frozenset({"DENY", "CUSTOM"})


@dataclass(slots=True, kw_only=True, eq=False)
class AuthPolicy:
    """One AuthorizationPolicy; ``selector`` of None: it is bound by targetRefs, which are not resolved here."""

    manifest: Manifest
    action: str
    selector: Mapping[str, str] | None
    rules: list[ReadRule]
    is_root: bool
    groups: list[Group] = field(default_factory=list)

    @property
    def allows(self) -> bool:
        """Tell whether it is an ALLOW."""
        return self.action == "ALLOW"


def read_policy(one: Manifest, wishes: Wishes, notes: Notes) -> AuthPolicy | None:
    """Read one AuthorizationPolicy; None for one that decides nothing.  Raises InputError for what Istio would refuse."""
    spec = one.spec
    action = spec.get("action", "ALLOW")
    if one.annotations.get(_DRY_RUN) == "true":
        notes.add(Fate.CARRIED, "istio.dry-run", one, "a dry run decides nothing, so nothing is written")
        return None
    if action == "AUDIT":
        notes.add(Fate.CARRIED, "istio.audit", one, "AUDIT decides nothing, so nothing is written")
        return None
    if action not in {"ALLOW", *_DENYING}:
        raise InputError(f"{one.span}: {one}: there is no action {action!r}")
    rules = spec.get("rules") or []
    if not isinstance(rules, list) or (action in _DENYING and not rules):
        raise InputError(f"{one.span}: {one}: {action} needs a list of rules")
    known = {"selector", "targetRef", "targetRefs", "action", "rules", "provider"}
    unknown = sorted(set(spec) - known)
    if unknown:
        raise InputError(f"{one.span}: {one}: the field {unknown[0]!r} is not known")
    bound = "targetRef" in spec or "targetRefs" in spec
    read = [read_rule(rule, wishes.methods, f"{one.span}: {one} rules[{n}]") for n, rule in enumerate(rules)]
    return AuthPolicy(
        manifest=one,
        action=action,
        selector=None if bound else _labels(spec, one),
        rules=read,
        is_root=one.namespace == wishes.root_namespace,
    )


def read_jwt_rules(manifests: Manifests, wishes: Wishes, notes: Notes) -> Iterator[JwtRule]:
    """Yield every jwtRule of every RequestAuthentication.  Raises InputError for one without an issuer."""
    for one in manifests.of("RequestAuthentication", SECURITY):
        if "targetRef" in one.spec or "targetRefs" in one.spec:
            notes.add(Fate.LEFT_OUT, "istio.target-refs", one, "what is bound by targetRefs is not resolved")
            continue
        for rule in one.spec.get("jwtRules") or ():
            if not isinstance(rule, dict) or not isinstance(rule.get("issuer"), str):
                raise InputError(f"{one.span}: {one}: a jwtRule has no issuer")
            audiences = rule.get("audiences") or []
            uri = rule.get("jwksUri") or rule.get("jwks_uri")
            yield JwtRule(
                issuer=rule["issuer"],
                audiences=frozenset(map(str, audiences)),
                jwks=uri if isinstance(uri, str) else None,
                namespace=one.namespace,
                selector=_labels(one.spec, one),
                is_root=one.namespace == wishes.root_namespace,
                manifest=one,
            )


def _labels(spec: Mapping[str, Any], one: Manifest) -> Mapping[str, str]:
    selector = spec.get("selector") or {}
    if not isinstance(selector, dict) or set(selector) - {"matchLabels"}:
        raise InputError(f"{one.span}: {one}: a selector has matchLabels only")
    labels = selector.get("matchLabels") or {}
    if not isinstance(labels, dict):
        raise InputError(f"{one.span}: {one}: matchLabels is no mapping")
    return {str(key): str(value) for key, value in labels.items()}
