# SPDX-License-Identifier: Apache-2.0
"""AuthorizationPolicy as values that can be asked.

A policy matches if a rule does; a rule, if one of ``from`` and one of ``to`` and all of ``when`` do; a source or an operation, if
all its fields do; a field, if one of its values does, and its ``not`` twin, if none does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError
from everyhop.evaluators.istio import attributes
from everyhop.evaluators.istio.attachment import Attachment, attachment_of
from everyhop.evaluators.istio.strict import Part, spec_of
from everyhop.evaluators.istio.trust import with_aliases, with_domains

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from everyhop.evaluators.istio.attributes import Maker, Test
    from everyhop.evaluators.istio.facts import Facts
    from everyhop.manifests import Manifest

DRY_RUN: Final = "istio.io/dry-run"
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})
SOURCE: Final[Mapping[str, tuple[Maker, bool]]] = {
    "principals": (attributes.principals, False),
    "requestPrincipals": (attributes.request_principals, True),
    "namespaces": (attributes.namespaces, False),
    "serviceAccounts": (attributes.service_accounts, False),
    "trustDomains": (attributes.trust_domains, False),
    "ipBlocks": (attributes.source_ips, False),
    "remoteIpBlocks": (attributes.remote_ips, False),
}
"""Fields of a source, what they look at and whether they exist on HTTP alone; each has a twin ``notX``."""
OPERATION: Final[Mapping[str, tuple[Maker, bool]]] = {
    "hosts": (attributes.hosts, True),
    "ports": (attributes.ports, False),
    "methods": (attributes.methods, True),
    "paths": (attributes.paths, True),
}
"""Fields of an operation, likewise."""
_CUSTOM_REFUSES: Final = ("principals", "requestPrincipals", "namespaces", "serviceAccounts", "trustDomains")
_CUSTOM_REFUSES_KEYS: Final = (
    "source.namespace",
    "source.serviceAccount",
    "source.trustDomain",
    "source.principal",
)


class Action(StrEnum):
    """What a policy does with what it matches."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    AUDIT = "AUDIT"
    CUSTOM = "CUSTOM"


@dataclass(frozen=True, slots=True)
class Condition:
    """One field with its twin; ``is_http_only``: it does not exist on a connection of bare TCP."""

    is_http_only: bool
    values: Test | None
    not_values: Test | None

    def holds(self, facts: Facts) -> bool:
        """Tell whether one of the values holds and none of the others."""
        if self.values is not None and not self.values(facts):
            return False
        return self.not_values is None or not self.not_values(facts)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: alternatives of conditions for ``from`` and ``to`` (None: any), and the conditions of ``when``."""

    sources: tuple[tuple[Condition, ...], ...] | None
    operations: tuple[tuple[Condition, ...], ...] | None
    when: tuple[Condition, ...]

    def matches(self, facts: Facts, action: Action) -> bool:
        """Tell whether the rule matches.

        Where there is no HTTP, a rule of ALLOW with anything of HTTP in it does not exist; of any other action only that field
        does not, so that it may come to match all.
        """
        if not facts.is_http and action is Action.ALLOW and self._has_http:
            return False
        return (
            _some(self.sources, facts)
            and _some(self.operations, facts)
            and all(one.holds(facts) for one in self.when if facts.is_http or not one.is_http_only)
        )

    @property
    def _has_http(self) -> bool:
        groups = (*(self.sources or ()), *(self.operations or ()), self.when)
        return any(one.is_http_only for group in groups for one in group)


def _some(alternatives: tuple[tuple[Condition, ...], ...] | None, facts: Facts) -> bool:
    if alternatives is None:
        return True
    return any(
        all(one.holds(facts) for one in group if facts.is_http or not one.is_http_only)
        for group in alternatives
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One AuthorizationPolicy; ``provider`` is that of CUSTOM."""

    manifest: Manifest
    attachment: Attachment
    action: Action
    is_dry_run: bool
    provider: str
    rules: tuple[Rule, ...]
    parts: tuple[Part, ...]

    def matches(self, facts: Facts) -> bool:
        """Tell whether some rule matches; a policy without rules matches nothing."""
        return any(rule.matches(facts, self.action) for rule in self.rules)

    def __str__(self) -> str:
        return str(self.manifest)


def policy_of(manifest: Manifest, trust_domains: Sequence[str]) -> Policy:
    """Read an AuthorizationPolicy; ``trust_domains`` is the mesh's own with its aliases.

    Raises InputError, with file and line, for unknown fields and for what Istio's validation refuses.
    """
    spec = spec_of(manifest)
    spec.only("action", "provider", "rules", "selector", "targetRef", "targetRefs")
    action = Action(spec.one_of("action", tuple(Action), Action.ALLOW.value))
    parts = spec.parts("rules") or ()
    if not parts and action in {Action.DENY, Action.CUSTOM}:
        raise spec.wrong(f"{action} without rules would never match")
    provider = _provider(spec, action)
    is_dry_run = _dry_run(spec)
    if is_dry_run and action is Action.CUSTOM:
        raise spec.wrong("a dry run of CUSTOM has no settled meaning in Istio")
    return Policy(
        manifest=manifest,
        attachment=attachment_of(spec),
        action=action,
        is_dry_run=is_dry_run,
        provider=provider,
        rules=tuple(_rule(part, action, trust_domains) for part in parts),
        parts=parts,
    )


def _provider(spec: Part, action: Action) -> str:
    found = spec.part("provider")
    if found is None and action is not Action.CUSTOM:
        return ""
    if action is not Action.CUSTOM:
        raise spec.wrong("a provider belongs to CUSTOM alone")
    name = "" if found is None else found.text("name")
    if found is not None:
        found.only("name")
    if not name:
        raise spec.wrong("CUSTOM has a provider with a name")
    return name


def _dry_run(spec: Part) -> bool:
    written = spec.manifest.annotations.get(DRY_RUN)
    if written is None or written in _FALSE:
        return False
    if written in _TRUE:
        return True
    raise spec.wrong(f"{DRY_RUN} is neither true nor false")


def _rule(part: Part, action: Action, trust_domains: Sequence[str]) -> Rule:
    part.only("from", "to", "when")
    sources, operations, conditions = part.parts("from"), part.parts("to"), part.parts("when")
    for name, found in (("from", sources), ("to", operations)):
        if found == ():
            raise part.wrong(f"{name} is empty: leave it out for any")
    return Rule(
        None if sources is None else tuple(_source(one, action, trust_domains) for one in sources),
        None if operations is None else tuple(_inner(one, "operation", OPERATION) for one in operations),
        tuple(_when(one, action, trust_domains) for one in conditions or ()),
    )


def _source(part: Part, action: Action, trust_domains: Sequence[str]) -> tuple[Condition, ...]:
    source = part.part("source")
    if source is not None:
        written = {name for name in SOURCE if source.value.get(name) or source.value.get(_not(name))}
        if "serviceAccounts" in written and written & {"principals", "namespaces"}:
            raise source.wrong("serviceAccounts cannot stand beside principals or namespaces")
        refused = written & set(_CUSTOM_REFUSES)
        if action is Action.CUSTOM and refused:
            raise source.wrong(f"CUSTOM cannot look at {min(refused)}")
    return _inner(part, "source", SOURCE, trust_domains)


def _inner(
    part: Part, name: str, fields: Mapping[str, tuple[Maker, bool]], trust_domains: Sequence[str] = ()
) -> tuple[Condition, ...]:
    part.only(name)
    found = part.part(name)
    if found is None:
        raise part.wrong(f"{name} is missing")
    found.only(*fields, *(_not(field) for field in fields))
    made = [
        _condition(found, found.texts(field), found.texts(_not(field)), maker, is_http, field, trust_domains)
        for field, (maker, is_http) in fields.items()
    ]
    conditions = tuple(one for one in made if one.values is not None or one.not_values is not None)
    if not conditions:
        raise found.wrong(f"{name} is empty")
    return conditions


def _not(field: str) -> str:
    return f"not{field[0].upper()}{field[1:]}"


def _when(part: Part, action: Action, trust_domains: Sequence[str]) -> Condition:
    part.only("key", "values", "notValues")
    key = part.text("key")
    if action is Action.CUSTOM and (key in _CUSTOM_REFUSES_KEYS or key.startswith("request.auth.")):
        raise part.wrong(f"CUSTOM cannot look at {key[:60]}")
    values, not_values = part.texts("values"), part.texts("notValues")
    if not values and not not_values:
        raise part.wrong("a condition has values or notValues")
    try:
        maker, is_http_only = attributes.when(key)
    except InputError as error:
        raise part.wrong(error.message) from error
    return _condition(part, values, not_values, maker, is_http_only, key, trust_domains)


def _condition(
    part: Part,
    values: tuple[str, ...],
    not_values: tuple[str, ...],
    maker: Maker,
    is_http_only: bool,  # noqa: FBT001  # of the table
    name: str,
    trust_domains: Sequence[str],
) -> Condition:
    expand = {"principals": with_aliases, "source.principal": with_aliases}.get(name)
    expand = expand or {"trustDomains": with_domains, "source.trustDomain": with_domains}.get(name)

    def made(written: tuple[str, ...]) -> Test | None:
        if not written:
            return None
        meant = written if expand is None else expand(written, trust_domains)
        return maker(meant, part.manifest.namespace)

    try:
        return Condition(is_http_only, made(values), made(not_values))
    except InputError as error:
        raise part.wrong(f"{name}: {error.message}") from error
