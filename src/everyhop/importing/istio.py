# SPDX-License-Identifier: Apache-2.0
"""AuthorizationPolicies, PeerAuthentications and RequestAuthentications to a draft of a policy that opens nothing more.

What a rule allows is written as far as the language can say it; what a rule denies is written at least as far.  An action that
nobody here can foresee (CUSTOM) counts as one that denies.  Semantics: istio.io, references of AuthorizationPolicy,
PeerAuthentication and RequestAuthentication; field notes on order and scope.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from everyhop.core.errors import InputError
from everyhop.importing.doors import Says, User, build_doors, example_tests
from everyhop.importing.istio_claims import Claims
from everyhop.importing.istio_policies import SECURITY, AuthPolicy, read_jwt_rules, read_policy
from everyhop.importing.istio_rules import LOCAL, PRINCIPAL, Match, Source
from everyhop.importing.istio_users import Users
from everyhop.importing.model import DEFAULT_ROOT, Draft, DraftRule, DraftTest, Fate, Part
from everyhop.importing.notes import Notes, settle_accounts
from everyhop.importing.workloads import Group, Groups, read_pods
from everyhop.policy.model import OUTSIDE

if TYPE_CHECKING:
    from everyhop.importing.doors import Claim
    from everyhop.importing.model import Wishes
    from everyhop.manifests import Manifests


def import_istio(manifests: Manifests, wishes: Wishes) -> Draft:
    """Return the draft.  Raises InputError for objects that Istio would refuse."""
    return _Import(manifests, wishes).run()


class _Import:
    def __init__(self, manifests: Manifests, wishes: Wishes) -> None:
        self._manifests = manifests
        self._wishes = wishes
        self._notes = Notes()
        self._policies = [
            policy
            for one in manifests.of("AuthorizationPolicy", SECURITY)
            if (policy := read_policy(one, wishes, self._notes)) is not None
        ]
        self._users = Users(read_jwt_rules(manifests, wishes, self._notes))
        self._domain = wishes.trust_domain or self._usual_domain()
        self._groups = Groups(read_pods(manifests))

    def run(self) -> Draft:
        self._find_groups()
        self._bind()
        self._groups.name_all()
        if self._policies:
            settle_accounts(self._groups, self._notes, "istio", self._policies[0].manifest.span)
        self._note_peer_authentications()
        if not self._groups.all:
            message = "nothing here names a workload or an identity"
            raise InputError(message, hint="give the manifests of the workloads too")
        self._claims = Claims(self._groups.all, self._users, self._domain, self._wishes, self._notes)
        draft = Draft(trust_domain=self._domain, parts=self._notes.parts)
        services = [group for group in self._groups.all if not self._claims.is_gateway(group)]
        for group in services:
            draft.services[group.name] = group.draft(f"/ns/{group.namespace}/sa/{group.account}")
        for policy in self._policies:
            for group in policy.groups if policy.allows else ():
                self._claims.allowing_at.setdefault(group, []).append(policy)
        for policy in self._policies:
            self._claims.add(policy)
        for group in services:
            self._build(draft, group)
        self._accept_ambiguous_paths(draft)
        self._note_brackets()
        draft.issuers = self._users.entries()
        self._write_attributes(draft)
        if self._wishes.root_namespace != DEFAULT_ROOT:
            draft.targets["istio"] = {
                **draft.targets.get("istio", {}),
                "root_namespace": self._wishes.root_namespace,
            }
        if self._wishes.gateway is not None:
            namespace, account = self._wishes.gateway
            draft.targets["gateway"] = {"namespace": namespace, "service_account": account}
        return draft

    def _bind(self) -> None:
        """Find where each policy applies; a selector that all pods of a group meet tells them no less than their labels do."""
        for policy in self._policies:
            policy.groups = self._groups_of(policy)
            for rule in policy.rules if policy.allows else ():
                self._users.narrow(rule.audiences)
        for policy in self._policies:
            for group in policy.groups if policy.selector else ():
                if policy.selector and group.is_exact and group.has(policy.selector):
                    group.labels |= policy.selector

    def _usual_domain(self) -> str:
        counts = Counter(
            value.partition("/")[0]
            for policy in self._policies
            for rule in policy.rules
            for source in rule.sources
            for value in source.principals.values
            if "/ns/" in value and not value.startswith("*")
        )
        return min(counts, key=lambda domain: (-counts[domain], domain), default=LOCAL)

    # -- who is there

    def _find_groups(self) -> None:
        for policy in self._policies:
            if policy.selector and not policy.is_root:
                self._groups.by_labels(policy.manifest.namespace, policy.selector)
        for policy in self._policies:
            for rule in policy.rules:
                for source in rule.sources:
                    self._find_callers(source, policy.manifest.namespace)

    def _find_callers(self, source: Source, own: str) -> None:
        for value in (*source.principals.values, *source.principals.not_values):
            found = PRINCIPAL.fullmatch(value)
            if found and found[1] in {self._domain, LOCAL}:
                self._groups.by_account(found[2], found[3])
        for value in (*source.accounts.values, *source.accounts.not_values):
            namespace, _, account = value.rpartition("/")
            self._groups.by_account(namespace or own, account)

    def _groups_of(self, policy: AuthPolicy) -> list[Group]:
        namespace = None if policy.is_root else policy.manifest.namespace
        groups = self._groups.of(namespace)
        if policy.selector is None:
            return [] if policy.allows else groups
        if policy.allows:
            return [group for group in groups if group.has(policy.selector)]
        return [group for group in groups if group.may_have(policy.selector)]

    # -- the draft

    def _build(self, draft: Draft, group: Group) -> None:
        claims = self._claims.claims[group]
        service = draft.services[group.name]
        service.port = self._claims.port(group)
        if group not in self._claims.allowing_at:
            if group.is_target:
                pods = f"pods of {group.name} in {group.namespace}"
                first = group.pods[0].span if group.pods else self._policies[0].manifest.span
                message = "no ALLOW policy applies to them, so everybody is let in"
                self._notes.put(
                    Part(fate=Fate.LEFT_OUT, code="istio.open", source=pods, message=message, span=first)
                )
            return
        callers = [self._claims.caller(other) for other in self._groups.all]
        if self._claims.is_tcp(group):
            self._build_tcp(draft, group, claims, callers)
            return
        issuer = next(iter(self._users.at(group, ())), None)
        any_user = None
        if issuer is not None and any(claim.says is Says.NEEDS_USER for claim in claims):
            some = self._users.of(Match(), (), [issuer])
            any_user = some if isinstance(some, User) else None
        if any_user is None:
            for claim in claims:
                if claim.says is Says.NEEDS_USER:
                    self._notes.put(_needless(claim, group))
        draft.rules += build_doors(service, claims, any_user)
        draft.tests += example_tests(
            service, claims, [c for c in callers if c != OUTSIDE], any_user, self._domain
        )

    def _build_tcp(self, draft: Draft, group: Group, claims: list[Claim], callers: list[str]) -> None:
        service = draft.services[group.name]
        if not any(claim.says is Says.ALLOW for claim in claims):
            return
        service.tcp, service.port = service.port, None
        denied: set[str] = set()
        for claim in claims:
            is_allow = claim.says is Says.ALLOW
            if not is_allow:
                denied |= set(callers) if claim.callers is None else claim.callers
            rule = DraftRule(
                effect="allow" if is_allow else "deny",
                callers=_sorted(claim.callers),
                target=service.name,
                operations=None,
                note=claim.note,
            )
            draft.rules.append(rule)
        allowed = {
            caller
            for claim in claims
            if claim.says is Says.ALLOW
            for caller in (callers if claim.callers is None else claim.callers)
        } - {OUTSIDE}
        draft.tests += [
            DraftTest(
                caller=caller,
                target=service.name,
                call=None,
                allows=caller not in denied and caller in allowed,
            )
            for caller in sorted(set(callers) - {OUTSIDE})[:8]
        ]

    def _accept_ambiguous_paths(self, draft: Draft) -> None:
        """Say that Istio may be compiled to as it is: a wildcard of its own takes a%2fb and a;b today."""
        wild = [
            service
            for service in draft.services.values()
            if any("{" in text for text in service.operations.values())
        ]
        if wild:
            draft.targets["istio"] = {"accept": ["ambiguous-paths"]}
            self._notes.put(
                Part(
                    fate=Fate.ASSUMED,
                    code="istio.ambiguous-paths",
                    source=f"paths with wildcards of {len(wild)} services",
                    message="Istio lets a%2fb and a;b through there, as it does today; the policy itself never does",
                    written="targets: istio: accept: [ambiguous-paths]",
                    span=self._policies[0].manifest.span,
                )
            )

    def _note_brackets(self) -> None:
        """Say the one thing that a template of Istio does not take and a parameter of the policy does."""
        for policy in self._policies:
            patterns = [one.text for rule in policy.rules for place in rule.places for one in place.paths]
            if policy.allows and any("{*}" in text or "{**}" in text for text in patterns):
                message = "Istio's {*} takes no bare [ or ], which no path may hold (RFC 3986 section 3.3); a parameter does"
                self._notes.add(
                    Fate.ASSUMED, "istio.brackets", policy.manifest, message, written="a parameter"
                )

    def _write_attributes(self, draft: Draft) -> None:
        if self._users.attributes:
            draft.attributes["user"] = {
                name: kind for name, (kind, _) in sorted(self._users.attributes.items())
            }
        headers = sorted(
            {
                condition.name[0]
                for policy in self._policies
                for rule in policy.rules
                for condition in rule.conditions
                if condition.kind == "header"
            }
        )
        used = [
            header for header in headers if any(f"['{header}']" in (rule.when or "") for rule in draft.rules)
        ]
        if used:
            draft.attributes["request"] = {"headers": used}

    def _note_peer_authentications(self) -> None:
        for one in self._manifests.of("PeerAuthentication", SECURITY):
            mtls = one.spec.get("mtls")
            levels = one.spec.get("portLevelMtls")
            modes = [mtls.get("mode") if isinstance(mtls, dict) else None]
            modes += [level.get("mode") for level in (levels or {}).values() if isinstance(level, dict)]
            weak = sorted({str(mode) for mode in modes if mode in {"PERMISSIVE", "DISABLE"}})
            if weak:
                message = f"mode {', '.join(weak)}: calls without mutual TLS are let in"
                self._notes.add(
                    Fate.NARROWER, "istio.plaintext", one, message, written="mutual TLS is always needed"
                )
            else:
                self._notes.add(Fate.CARRIED, "istio.mtls", one, "mutual TLS is always needed")


def _sorted(callers: frozenset[str] | None) -> tuple[str, ...] | None:
    return None if callers is None else tuple(sorted(callers))


def _needless(claim: Claim, group: Group) -> Part:
    message = (
        f"a user is asked for at {group.name!r}, and no issuer is verified there that the policy can name"
    )
    return Part(
        fate=Fate.LEFT_OUT,
        code="istio.request-principals",
        source=claim.note,
        message=message,
        span=claim.span,
    )
