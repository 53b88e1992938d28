# SPDX-License-Identifier: Apache-2.0
"""One rule of an AuthorizationPolicy, taken apart: who, for whom, where, and what of it the policy language cannot say.

Over callers the language needs no patterns: the callers of a policy are known, so each pattern is tried on each of them.
Semantics: istio.io, reference of AuthorizationPolicy; a source and an operation are the AND of their fields, a field the OR of its
values, ``notX`` the negation of that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from everyhop.core.errors import InputError
from everyhop.importing.paths import Pattern, matches_text, read_pattern
from everyhop.importing.templates import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from everyhop.importing.templates import Template

LOCAL: Final = "cluster.local"
"""A trust domain that Istio takes for the mesh's own, whatever that is called."""

PRINCIPAL: Final = re.compile(r"([^/*]+)/ns/([^/*]+)/sa/([^/*]+)")
"""A full principal: trust domain, namespace, service account."""

_IDENTITY: Final = ("principals", "namespaces", "serviceAccounts", "trustDomains")
_ADDRESS: Final = ("ipBlocks", "remoteIpBlocks")
_REQUEST: Final = "requestPrincipals"
_CLAIM: Final = re.compile(r"request\.auth\.claims((?:\[[^\[\]]+\])+)")
_HEADER: Final = re.compile(r"request\.headers\[([A-Za-z0-9-]{1,64})\]")


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that the policy language cannot say: a stable word, and a sentence."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Match:
    """The values and the refused values of one field of a rule."""

    values: tuple[str, ...] = ()
    not_values: tuple[str, ...] = ()

    def holds(self, value: str, test: Callable[[str, str], bool] = matches_text) -> bool:
        """Tell whether a value is matched."""
        if self.values and not any(test(pattern, value) for pattern in self.values):
            return False
        return not any(test(pattern, value) for pattern in self.not_values)

    @property
    def is_set(self) -> bool:
        """Tell whether it restricts anything."""
        return bool(self.values or self.not_values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A caller's identity; ``has_alias`` tells that ``cluster.local`` surely means its trust domain too."""

    domain: str
    namespace: str
    account: str
    has_alias: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One ``from``, with what ``when`` adds to it; ``losses`` are what cannot be said of it."""

    principals: Match = Match()
    namespaces: Match = Match()
    accounts: Match = Match()
    domains: Match = Match()
    request: Match = Match()
    losses: tuple[Loss, ...] = ()

    @property
    def is_anybody(self) -> bool:
        """Tell whether it asks for no identity at all."""
        return not any(one.is_set for one in (self.principals, self.namespaces, self.accounts, self.domains))

    @property
    def is_named(self) -> bool:
        """Tell whether it names full identities and nothing else."""
        exact = all("*" not in value for value in (*self.principals.values, *self.accounts.values))
        named = bool(self.principals.values or self.accounts.values)
        negative = (self.principals, self.namespaces, self.accounts, self.domains)
        return named and exact and not any(one.not_values for one in negative)

    def named(self, own: str) -> tuple[tuple[str, str], ...] | None:
        """Return the only accounts (with their namespaces) that can meet it, None where a pattern leaves them open."""
        if self.principals.values and not any("*" in value for value in self.principals.values):
            found = (PRINCIPAL.fullmatch(value) for value in self.principals.values)
            return tuple((one[2], one[3]) for one in found if one is not None)
        if self.accounts.values:
            parts = (value.rpartition("/") for value in self.accounts.values)
            return tuple((head or own, tail) for head, _, tail in parts)
        return None

    def holds(self, caller: Identity, own: str, *, denies: bool) -> bool:
        """Tell whether an identity meets it; ``own`` is the namespace of the rule's object.

        Whether ``cluster.local`` means the mesh's own trust domain need not be known: then a rule that allows matches less, and
        one that ``denies`` more.
        """
        principal = f"{caller.domain}/ns/{caller.namespace}/sa/{caller.account}"

        def matcher(*, is_alias: bool) -> Callable[[str, str], bool]:
            def same(pattern: str, value: str) -> bool:
                head, slash, rest = pattern.partition("/")
                own_domain = is_alias and slash and head == LOCAL
                return matches_text(f"{caller.domain}/{rest}" if own_domain else pattern, value)

            return same

        def is_account(pattern: str, value: str) -> bool:
            return (pattern if "/" in pattern else f"{own}/{pattern}") == value

        named = Match(self.principals.values)
        refused = Match((), self.principals.not_values)
        return (
            named.holds(principal, matcher(is_alias=caller.has_alias or denies))
            and refused.holds(principal, matcher(is_alias=caller.has_alias or not denies))
            and self.namespaces.holds(caller.namespace)
            and self.accounts.holds(f"{caller.namespace}/{caller.account}", is_account)
            and self.domains.holds(caller.domain)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One ``to``; ``is_bare`` tells that it names ports at most.

    ``templates`` are all that it speaks of, inside its patterns; ``losses`` concern a rule that allows.  Of a template that is
    closed under intersection with those, :meth:`surely` and :meth:`maybe` tell whether the rule covers all of it, or any of it.
    """

    methods: frozenset[str]
    templates: tuple[Template, ...]
    paths: tuple[Pattern, ...] = ()
    not_paths: tuple[Pattern, ...] = ()
    ports: Match = Match()
    is_bare: bool = False
    has_hosts: bool = False
    losses: tuple[Loss, ...] = ()

    def surely(self, template: Template) -> bool:
        """Tell whether every path of a template is covered; never wrongly yes."""
        named = not self.paths or any(one.covers(template) for one in self.paths)
        return named and not any(one.touches(template) for one in self.not_paths)

    def maybe(self, template: Template) -> bool:
        """Tell whether some path of a template is covered; never wrongly no."""
        named = not self.paths or any(one.touches(template) for one in self.paths)
        return named and not any(one.covers(template) for one in self.not_paths)

    @property
    def opens(self) -> tuple[Template, ...]:
        """Return the templates which a rule that allows opens, at most."""
        return (
            tuple(dict.fromkeys(t for one in self.paths for t in one.templates))
            if self.paths
            else (EVERYTHING,)
        )

    @property
    def is_exact(self) -> bool:
        """Tell whether :meth:`surely` and :meth:`maybe` are the same."""
        return not any(one.lost for one in (*self.paths, *self.not_paths))


@dataclass(frozen=True, slots=True)
class Condition:
    """One ``when`` which is about the call and not about who calls: of a claim (a path in it) or of a header."""

    kind: str
    name: tuple[str, ...]
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRule:
    """A rule: OR over sources, OR over places, AND of conditions; ``audiences`` are those that a token may name one of."""

    sources: tuple[Source, ...]
    places: tuple[Place, ...]
    conditions: tuple[Condition, ...] = ()
    audiences: tuple[str, ...] = ()
    losses: tuple[Loss, ...] = ()


@dataclass(slots=True)
class _When:
    principals: list[Match] = field(default_factory=list)
    namespaces: list[Match] = field(default_factory=list)
    accounts: list[Match] = field(default_factory=list)
    request: list[Match] = field(default_factory=list)
    ports: list[Match] = field(default_factory=list)
    audiences: tuple[str, ...] = ()
    conditions: list[Condition] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)


def read_rule(rule: Any, methods: Sequence[str], where: str) -> ReadRule:
    """Read one rule; ``methods`` are what "any method" stands for.  Raises InputError where it has not the shape of one."""
    if not isinstance(rule, dict):
        raise InputError(f"{where}: a rule is no mapping")
    when = _read_when(_list(rule.get("when"), where), where)
    froms, tos = _list(rule.get("from"), where), _list(rule.get("to"), where)
    sources = [_source(_mapping(one, "source", where), when, where) for one in froms] or [
        _source({}, when, where)
    ]
    places = [_place(_mapping(one, "operation", where), methods, when, where) for one in tos]
    unknown = sorted(set(rule) - {"from", "to", "when"})
    losses = [*when.losses, *(Loss("unknown-field", f"{name} is not known here") for name in unknown)]
    return ReadRule(
        sources=tuple(sources),
        places=tuple(places) or (_place({}, methods, when, where),),
        conditions=tuple(when.conditions),
        audiences=when.audiences,
        losses=tuple(losses),
    )


def _list(value: Any, where: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InputError(f"{where}: expected a list")
    return value


def _mapping(value: Any, key: str, where: str) -> Mapping[str, Any]:
    inner = value.get(key) if isinstance(value, dict) else None
    if not isinstance(inner, dict) or set(value) != {key}:
        raise InputError(f"{where}: expected {key}")
    return inner


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InputError(f"{where}: expected a list of texts")
    return tuple(value)


def _match(fields: Mapping[str, Any], name: str, where: str) -> Match:
    negative = f"not{name[0].upper()}{name[1:]}"
    return Match(_texts(fields.get(name), where), _texts(fields.get(negative), where))


def _both(left: Match, further: Iterable[Match], losses: list[Loss], name: str) -> Match:
    """Return the AND of matches of one field, as far as one match can say it."""
    for other in further:
        if left.values and other.values:
            kept = tuple(value for value in left.values if value in other.values)
            if not kept or any("*" in value for value in (*left.values, *other.values)):
                losses.append(Loss("when", f"{name} stands in both source and when"))
                continue
            left = Match(kept, (*left.not_values, *other.not_values))
        else:
            left = Match(left.values or other.values, (*left.not_values, *other.not_values))
    return left


def _known(name: str) -> tuple[str, str]:
    return name, f"not{name[0].upper()}{name[1:]}"


def _source(fields: Mapping[str, Any], when: _When, where: str) -> Source:
    losses: list[Loss] = []
    found = {name: _match(fields, name, where) for name in (*_IDENTITY, *_ADDRESS, _REQUEST)}
    known = {word for name in found for word in _known(name)}
    losses += [
        Loss("unknown-field", f"source.{name} is not known here") for name in sorted(set(fields) - known)
    ]
    losses += [
        Loss("address", f"{name} is about addresses, which say nothing of who calls")
        for name in _ADDRESS
        if found[name].is_set
    ]
    return Source(
        principals=_both(found["principals"], when.principals, losses, "source.principal"),
        namespaces=_both(found["namespaces"], when.namespaces, losses, "source.namespace"),
        accounts=_both(found["serviceAccounts"], when.accounts, losses, "source.serviceAccount"),
        domains=found["trustDomains"],
        request=_both(found[_REQUEST], when.request, losses, "request.auth.principal"),
        losses=tuple(losses),
    )


def _place(fields: Mapping[str, Any], methods: Sequence[str], when: _When, where: str) -> Place:
    losses: list[Loss] = []
    found = {name: _match(fields, name, where) for name in ("methods", "paths", "hosts", "ports")}
    known = {word for name in found for word in _known(name)}
    losses += [
        Loss("unknown-field", f"operation.{name} is not known here") for name in sorted(set(fields) - known)
    ]
    method, path, host = found["methods"], found["paths"], found["hosts"]
    kept = frozenset(one for one in methods if method.holds(one))
    for one in method.values:
        if not any(matches_text(one, known_method) for known_method in methods):
            losses.append(Loss("method", f"no operation has the method {one!r}"))
    paths, not_paths = (tuple(map(read_pattern, values)) for values in (path.values, path.not_values))
    losses += [Loss(one.code, one.lost) for one in (*paths, *not_paths) if one.lost]
    templates = [template for one in (*paths, *not_paths) for template in one.templates]
    ports = _both(found["ports"], when.ports, losses, "destination.port")
    return Place(
        methods=kept,
        templates=tuple(dict.fromkeys([*templates, *(() if paths else (EVERYTHING,))])),
        paths=paths,
        not_paths=not_paths,
        ports=ports,
        is_bare=not (method.is_set or path.is_set or host.is_set),
        has_hosts=bool(host.not_values) or bool(host.values and "*" not in host.values),
        losses=tuple(losses),
    )


def _read_when(entries: Sequence[Any], where: str) -> _When:
    found = _When()
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("key"), str):
            raise InputError(f"{where}: when: expected a key")
        key, match = entry["key"], _match(entry, "values", where)
        _note_when(found, key, match)
    return found


def _note_when(found: _When, key: str, match: Match) -> None:
    plain = {
        "source.principal": found.principals,
        "source.namespace": found.namespaces,
        "source.serviceAccount": found.accounts,
        "request.auth.principal": found.request,
        "destination.port": found.ports,
    }
    claim, header = _CLAIM.fullmatch(key), _HEADER.fullmatch(key)
    is_exact = bool(match.values) and not match.not_values and not any("*" in one for one in match.values)
    if key in plain:
        plain[key].append(match)
    elif key == "request.auth.audiences" and is_exact and not found.audiences:
        found.audiences = match.values
    elif claim is not None and is_exact:
        found.conditions.append(
            Condition("claim", tuple(re.findall(r"\[([^\[\]]+)\]", claim[1])), match.values)
        )
    elif header is not None and is_exact:
        found.conditions.append(Condition("header", (header[1].lower(),), match.values))
    else:
        found.losses.append(Loss("when", f"when {key} cannot be said as it stands"))
