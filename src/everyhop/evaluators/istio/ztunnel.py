# SPDX-License-Identifier: Apache-2.0
"""What ztunnel enforces of AuthorizationPolicies: layer 4 alone.

Istio turns policies without targetRefs into groups of clauses of matches (pilot/pkg/serviceregistry/ambient/authorization.go), and
ztunnel asks them (ztunnel src/rbac.rs): a policy matches if a group does; a group, if all its clauses do, so one without clauses
matches everything; a clause, if one of its matches does; an **empty** match matches nothing.  What layer 7 needs is left out on the
way: of ALLOW the whole rule, of DENY only that field, after which the match may be empty and the policy without effect.
``source.trustDomains`` is left out without a word, and aliases of the trust domain are not known to ztunnel.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.evaluators.istio import matching
from everyhop.evaluators.istio.rules import Action, Policy
from everyhop.evaluators.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from everyhop.evaluators.istio.attachment import Attachment
    from everyhop.evaluators.istio.matching import Address
    from everyhop.evaluators.istio.strict import Part

_IDENTITY: Final = re.compile(r"spiffe://[^/]+/ns/([^/]+)/sa/([^/]+)")
_SOURCE_L7: Final = ("remoteIpBlocks", "notRemoteIpBlocks", "requestPrincipals", "notRequestPrincipals")
_OPERATION_L7: Final = ("hosts", "notHosts", "methods", "notMethods", "paths", "notPaths")
_SOURCE_L4: Final = ("ipBlocks", "namespaces", "serviceAccounts", "principals")
_WHEN_L4: Final[Mapping[str, str]] = {
    "source.ip": "ipBlocks",
    "source.namespace": "namespaces",
    "source.principal": "principals",
    "destination.ip": "destinationIps",
    "destination.port": "ports",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What ztunnel sees; ``peer`` is "" for plaintext and for an identity that is not of Kubernetes' form."""

    peer: str
    source_ip: Address
    destination_ip: Address
    port: int

    @property
    def identity(self) -> tuple[str, str]:
        """Return namespace and service account, both "" without an identity."""
        found = _IDENTITY.fullmatch(self.peer)
        return ("", "") if found is None else (found[1], found[2])


Match = tuple[Callable[[Connection], bool], ...]
"""Fields that all have to hold; none at all hold for nothing."""
Group = tuple[tuple[Match, ...], ...]


def peer_of(peer: str | None) -> str:
    """Return an identity as ztunnel reads it, "" for one that it cannot read."""
    return peer if peer is not None and _IDENTITY.fullmatch(peer) else ""


@dataclass(frozen=True, slots=True)
class L4Policy:
    """A policy as ztunnel has it."""

    policy: Policy
    groups: tuple[Group, ...]

    @property
    def attachment(self) -> Attachment:
        """Return that of the policy."""
        return self.policy.attachment

    def matches(self, connection: Connection) -> bool:
        """Tell whether some group matches."""
        return any(
            all(any(_match(match, connection) for match in clause) for clause in group)
            for group in self.groups
        )


def l4_policy_of(policy: Policy) -> L4Policy | None:
    """Return what ztunnel gets of a policy: nothing of one with targetRefs, of AUDIT, of CUSTOM and of a dry run."""
    if policy.attachment.references or policy.is_dry_run or policy.action not in {Action.ALLOW, Action.DENY}:
        return None
    groups = (_group(part, policy.action) for part in policy.parts)
    return L4Policy(policy, tuple(group for group in groups if group is not None))


def decide_l4(policies: Sequence[L4Policy], connection: Connection) -> Outcome:
    """Return what ztunnel does under the policies that apply: DENY first, then one ALLOW has to match where there is any."""
    for one in policies:
        if one.policy.action is Action.DENY and one.matches(connection):
            return Outcome(allowed=False, why="ztunnel: a DENY policy matches", by=str(one.policy))
    allows = [one for one in policies if one.policy.action is Action.ALLOW]
    if not allows:
        return Outcome(allowed=True, why="ztunnel: no ALLOW policy applies")
    for one in allows:
        if one.matches(connection):
            return Outcome(allowed=True, why="ztunnel: an ALLOW policy matches", by=str(one.policy))
    return Outcome(allowed=False, why="ztunnel: no ALLOW policy matches", by=str(allows[0].policy))


def _match(match: Match, connection: Connection) -> bool:
    return bool(match) and all(holds(connection) for holds in match)


def _group(part: Part, action: Action) -> Group | None:
    clauses: list[tuple[Match, ...]] = []
    has_l7 = False
    for name, inner, fields, l7 in (
        ("to", "operation", ("ports",), _OPERATION_L7),
        ("from", "source", _SOURCE_L4, _SOURCE_L7),
    ):
        held = [found for one in part.parts(name) or () if (found := one.part(inner)) is not None]
        has_l7 = has_l7 or any(one.value.get(field) for one in held for field in l7)
        if held:
            clauses.append(tuple(_fields(one, fields) for one in held))
    for one in part.parts("when") or ():
        field = _WHEN_L4.get(one.text("key"))
        has_l7 = has_l7 or field is None
        tests = () if field is None else _tests(field, one.texts("values"), one.texts("notValues"), one)
        clauses.append((tuple(tests),))
    return None if has_l7 and action is Action.ALLOW else tuple(clauses)


def _fields(part: Part, names: Iterable[str]) -> Match:
    found: list[Callable[[Connection], bool]] = []
    for name in names:
        found += _tests(name, part.texts(name), part.texts(f"not{name[0].upper()}{name[1:]}"), part)
    return tuple(found)


def _tests(
    field: str, values: Sequence[str], not_values: Sequence[str], part: Part
) -> list[Callable[[Connection], bool]]:
    own = part.manifest.namespace
    found: list[Callable[[Connection], bool]] = []
    if values:
        found.append(_test(field, values, own))
    if not_values:
        refused = _test(field, not_values, own)
        found.append(lambda connection: not refused(connection))
    return found


def _test(field: str, values: Sequence[str], own: str) -> Callable[[Connection], bool]:
    if field in {"ipBlocks", "destinationIps"}:
        inside = matching.addresses(values)
        if field == "ipBlocks":
            return lambda connection: inside(connection.source_ip)
        return lambda connection: inside(connection.destination_ip)
    if field == "ports":
        wanted = {int(value) for value in values}
        return lambda connection: connection.port in wanted
    if field == "serviceAccounts":
        accounts = {tuple(value.split("/")) if "/" in value else (own, value) for value in values}
        return lambda connection: connection.identity in accounts
    if field == "namespaces":
        of_namespace = [matching.text(value) for value in values]
        return lambda connection: any(matches(connection.identity[0]) for matches in of_namespace)
    matchers = [matching.text(value) for value in values]

    def is_principal(connection: Connection) -> bool:
        if not connection.peer.startswith(matching.SCHEME):
            return False
        name = connection.peer[len(matching.SCHEME) :]
        return any(matches(name) for matches in matchers)

    return is_principal
