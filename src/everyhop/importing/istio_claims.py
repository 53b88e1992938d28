# SPDX-License-Identifier: Apache-2.0
"""What each AuthorizationPolicy claims about each service: for a rule that allows no more than it says, for one that denies no less."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from everyhop.importing.doors import Claim, Says, User
from everyhop.importing.istio_rules import LOCAL, Identity, Match, ReadRule, Source
from everyhop.importing.model import Fate
from everyhop.policy import _grammar as g
from everyhop.policy.model import OUTSIDE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from everyhop.importing.istio_policies import AuthPolicy
    from everyhop.importing.istio_rules import Condition, Place
    from everyhop.importing.istio_users import Users
    from everyhop.importing.model import Wishes
    from everyhop.importing.notes import Notes
    from everyhop.importing.workloads import Group
    from everyhop.manifests import Manifest


class Claims:
    """The claims by group; ``allowing_at`` has the ALLOW policies that apply to all of a group."""

    def __init__(
        self, groups: Sequence[Group], users: Users, domain: str, wishes: Wishes, notes: Notes
    ) -> None:
        self._groups: Final = groups
        self._by_account: Final = {(group.namespace, group.account or ""): group for group in groups}
        self._users: Final = users
        self._domain: Final = domain
        self._has_alias: Final = wishes.trust_domain is not None or domain == LOCAL
        self._methods: Final = wishes.methods
        self._gateway: Final = wishes.gateway
        self._notes: Final = notes
        self.claims: Final[dict[Group, list[Claim]]] = {group: [] for group in groups}
        self.allowing_at: Final[dict[Group, list[AuthPolicy]]] = {}
        self._ports: dict[Group, int | None] = {}

    def add(self, policy: AuthPolicy) -> None:
        """Take down what a policy says at each of its groups."""
        one = policy.manifest
        if policy.selector is None and policy.allows:
            self._notes.add(
                Fate.LEFT_OUT, "istio.target-refs", one, "what is bound by targetRefs is not resolved"
            )
            return
        if policy.allows and not policy.rules:
            self._notes.add(
                Fate.CARRIED, "istio.deny-all", one, "nothing is open that the policy does not open"
            )
        if policy.rules and not policy.groups:
            fate = Fate.LEFT_OUT if policy.allows else Fate.CARRIED
            message = "no known workload surely has the labels that it selects"
            self._notes.add(fate, "istio.no-workload", one, message)
            return
        for index, rule in enumerate(policy.rules):
            where = f"{one} rules[{index}]"
            before = len(self._notes.parts)
            written = [self._claim_at(policy, rule, group, where) for group in policy.groups]
            if len(self._notes.parts) == before:
                self._notes.add(Fate.CARRIED, "istio.rule", one, f"{policy.action} is written", where)
            elif (
                not any(written)
                and policy.allows
                and not any(part.is_lost for part in self._notes.parts[before:])
            ):
                self._notes.add(Fate.LEFT_OUT, "istio.rule", one, "nothing of it could be written", where)

    def _claim_at(self, policy: AuthPolicy, rule: ReadRule, group: Group, where: str) -> bool:
        if self.is_gateway(group):
            return False
        found = self.claims[group]
        before = len(found)
        for source in rule.sources:
            for place in rule.places:
                if policy.allows:
                    found += self._allowing(policy, rule, source, place, group, where)
                else:
                    found += self._denying(policy, rule, source, place, group, where)
        return len(found) > before

    def _callers(self, source: Source, own: str, *, denies: bool = False) -> frozenset[str]:
        named = source.named(own)
        found = (
            self._groups
            if named is None
            else [self._by_account[one] for one in named if one in self._by_account]
        )
        return frozenset(
            self.caller(group)
            for group in found
            if source.holds(
                Identity(
                    domain=self._domain,
                    namespace=group.namespace,
                    account=group.account or "",
                    has_alias=self._has_alias,
                ),
                own,
                denies=denies,
            )
        )

    def _allowing(
        self, policy: AuthPolicy, rule: ReadRule, source: Source, place: Place, group: Group, where: str
    ) -> Iterator[Claim]:
        one = policy.manifest
        stopping = [*rule.losses, *source.losses]
        if place.has_hosts:
            self._notes.add(
                Fate.LEFT_OUT, "istio.hosts", one, "hosts: a policy knows services, not host names", where
            )
            return
        for loss in stopping:
            self._notes.add(Fate.LEFT_OUT, f"istio.{loss.code}", one, loss.message, where)
        if stopping or not self._port_fits(place, group, one, where):
            return
        for loss in place.losses:
            fate = Fate.NARROWER if place.opens and place.methods else Fate.LEFT_OUT
            written = "what lies inside of it" if fate is Fate.NARROWER else ""
            self._notes.add(fate, f"istio.{loss.code}", one, loss.message, where, written)
        callers = self._open_callers(source, one, where)
        user, whens, headers = self._facts(rule, source, group, one, where)
        if user is _UNSAYABLE or whens is None or callers == frozenset():
            return
        yield Claim(
            says=Says.ALLOW,
            callers=callers,
            methods=place.methods,
            templates=place.templates,
            opens=place.opens,
            covers=place.surely,
            note=_note_of(one, where),
            span=one.span,
            user=user,
            when=" && ".join(whens) or None,
            headers=headers or None,
        )

    def _open_callers(self, source: Source, one: Manifest, where: str) -> frozenset[str] | None:
        if source.is_anybody:
            message = "it names no caller, so strangers are let in too"
            self._notes.add(
                Fate.NARROWER, "istio.anybody", one, message, where, "every service of the policy"
            )
            return None
        callers = self._callers(source, one.namespace)
        if source.is_named:
            foreign = [
                value
                for value in source.principals.values
                if value.partition("/")[0] not in {self._domain, *([LOCAL] if self._has_alias else [])}
            ]
            if foreign:
                message = f"{foreign[0]!r} is of another trust domain than {self._domain!r}"
                self._notes.add(Fate.NARROWER, "istio.trust-domain", one, message, where, "nothing for it")
            if source.accounts.is_set:
                message = "serviceAccounts name accounts of any trust domain"
                written = f"those of {self._domain!r}"
                self._notes.add(Fate.NARROWER, "istio.any-trust-domain", one, message, where, written)
            return callers
        if source.principals == Match(("*",)) and not (source.namespaces.is_set or source.accounts.is_set):
            message = "any identity is let in, declared or not"
            self._notes.add(
                Fate.NARROWER, "istio.any-identity", one, message, where, "every service of the policy"
            )
            return None if not source.domains.is_set else callers
        message = "callers are named by a pattern, a namespace or what they are not"
        written = f"the callers known here: {', '.join(sorted(callers)) or 'none'}"
        self._notes.add(Fate.NARROWER, "istio.caller-pattern", one, message, where, written)
        return callers

    def _port_fits(self, place: Place, group: Group, one: Manifest, where: str) -> bool:
        if not place.ports.is_set:
            return True
        port = self.port(group)
        if port is not None and place.ports.holds(str(port)):
            further = [value for value in place.ports.values if value != str(port)]
            if further:
                message = f"port {further[0]}: a service has one port, here {port}"
                self._notes.add(Fate.NARROWER, "istio.port", one, message, where, f"port {port}")
            return True
        message = (
            f"ports {', '.join(place.ports.values) or 'but some'}: the service {group.name!r} has port {port}"
        )
        self._notes.add(Fate.LEFT_OUT, "istio.port", one, message, where)
        return False

    def port(self, group: Group) -> int | None:
        """Return the one port of a service: that which rules name most, else the only one of its containers."""
        if group not in self._ports:
            self._ports[group] = self._find_port(group)
        return self._ports[group]

    def _find_port(self, group: Group) -> int | None:
        counts = Counter(
            value
            for policy in self.allowing_at.get(group, ())
            for rule in policy.rules
            for place in rule.places
            for value in place.ports.values
            if value.isdecimal()
        )
        if counts:
            return int(min(counts, key=lambda value: (-counts[value], int(value))))
        ports = set(group.ports.values())
        return ports.pop() if len(ports) == 1 else None

    def _facts(
        self, rule: ReadRule, source: Source, group: Group, one: Manifest, where: str
    ) -> tuple[User | None, list[str] | None, dict[str, str]]:
        """Return the user, the conditions on the call (None where one cannot be said) and headers that meet them."""
        claims = [condition for condition in rule.conditions if condition.kind == "claim"]
        whens, headers = _headers(rule.conditions)
        if whens is None:
            self._notes.add(
                Fate.LEFT_OUT, "istio.when", one, "a header's name or value cannot be written", where
            )
        if not (source.request.is_set or claims or rule.audiences):
            return None, whens, headers
        user = self._users.of(source.request, claims, self._users.at(group, rule.audiences))
        if isinstance(user, str):
            self._notes.add(Fate.LEFT_OUT, "istio.request-principals", one, user, where)
            return _UNSAYABLE, whens, headers
        if claims:
            message = "a claim counts where it is a text, or a list for groups, roles, scopes and permissions"
            self._notes.add(Fate.NARROWER, "istio.claim", one, message, where, "a condition on that type")
        return user, whens, headers

    def _denying(
        self, policy: AuthPolicy, rule: ReadRule, source: Source, place: Place, group: Group, where: str
    ) -> Iterator[Claim]:
        one = policy.manifest
        port = self.port(group)
        if place.ports.is_set and port is not None and not place.ports.holds(str(port)):
            return  # the policy opens no other port
        callers = None if source.is_anybody else self._callers(source, one.namespace, denies=True)
        if callers == frozenset():
            return  # strangers are let in nowhere
        wider = [*rule.losses, *source.losses, *(loss for loss in place.losses if loss.code in _UNREAD)]
        needs_user = (
            policy.action == "DENY"
            and source.request == Match((), ("*",))
            and not wider
            and not rule.conditions
        )
        if self.is_tcp(group) and not place.is_bare:
            message = f"on the raw port of {group.name!r} its layer 7 part falls away"
            self._notes.add(Fate.NARROWER, "istio.deny-port", one, message, where, "deny of the port")
        if policy.action == "CUSTOM":
            self._notes.add(
                Fate.NARROWER, "istio.custom", one, "an authorizer of its own decides", where, "deny"
            )
        elif policy.selector is None:
            self._notes.add(
                Fate.NARROWER, "istio.target-refs", one, "targetRefs are not resolved", where, "deny at all"
            )
        elif (
            wider
            or rule.conditions
            or rule.audiences
            or place.has_hosts
            or (source.request.is_set and not needs_user)
        ):
            message = "what it denies under conditions is denied without them"
            self._notes.add(Fate.NARROWER, "istio.deny", one, message, where, "deny, wherever it might apply")
        elif not group.has(policy.selector):
            message = f"not all pods of {group.name!r} need have the labels that it selects"
            self._notes.add(Fate.NARROWER, "istio.deny-some", one, message, where, "deny at all of them")
        elif not place.is_exact:
            message = "its paths cannot be told from others in the policy's words"
            self._notes.add(
                Fate.NARROWER,
                "istio.deny-paths",
                one,
                message,
                where,
                "deny of each operation that may have one",
            )
        yield Claim(
            says=Says.NEEDS_USER if needs_user else Says.DENY,
            callers=callers,
            methods=frozenset(self._methods) if wider else place.methods,
            templates=place.templates,
            covers=_always if wider else place.maybe,
            note=_note_of(one, where),
            span=one.span,
        )

    def is_gateway(self, group: Group) -> bool:
        """Tell whether a group is the gateway, whose calls are those of ``outside``."""
        return (group.namespace, group.account) == self._gateway

    def caller(self, group: Group) -> str:
        """Return the name by which rules know a group."""
        return OUTSIDE if self.is_gateway(group) else group.name

    def is_tcp(self, group: Group) -> bool:
        """Tell whether all that is allowed there is about ports as a whole."""
        places = [
            (rule, place)
            for policy in self.allowing_at.get(group, ())
            for rule in policy.rules
            for place in rule.places
        ]
        return bool(places) and all(
            place.is_bare
            and place.ports.values
            and not rule.conditions
            and not any(source.request.is_set for source in rule.sources)
            for rule, place in places
        )


_UNSAYABLE: Final = User()


_UNREAD: Final = frozenset({"unknown-field", "when"})
"""Losses of a place that leave open what it is about."""


def _always(_: object) -> bool:
    return True


def _note_of(one: Manifest, where: str) -> str:
    return f"{where} ({one.span.file}:{one.span.line})"


def _headers(conditions: tuple[Condition, ...]) -> tuple[list[str] | None, dict[str, str]]:
    whens: list[str] = []
    example: dict[str, str] = {}
    for condition in conditions:
        if condition.kind != "header":
            continue
        name = condition.name[0]
        plain = all(re.fullmatch(r"[A-Za-z0-9 _.:/@+-]{1,200}", value) for value in condition.values)
        reserved = name in g.RESERVED_HEADERS or name.startswith(g.RESERVED_HEADER_PREFIXES)
        if not plain or reserved or not re.fullmatch(g.HEADER_NAME, name):
            return None, {}
        tests = [f"request.headers['{name}'] == '{value}'" for value in condition.values]
        whens.append(" || ".join(tests) if len(tests) == 1 else f"({' || '.join(tests)})")
        example[name] = condition.values[0]
    return whens, example
