# SPDX-License-Identifier: Apache-2.0
"""How a call leaves: which cluster carries it, under which certificate and with which token.

A token is bound to a certificate, so the two must change together.  A cluster that carries a token therefore has a
*generation* in its name, the start of the certificate's thumbprint, and asks the agent for that certificate and for
the token that belongs to it.  A new certificate means new clusters beside the old ones; the routes turn to them once
they are ready, and what is under way on the old connections ends there.  A token that is merely renewed arrives in
the cluster that carries it.

What an operation needs is known from its method and path, so the route of a call names its lane.  The lane that most
operations of a service take is the one of everything that no route names.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.dataplane import _names as names
from everyhop.policy.model import TokenMode
from everyhop.policy.routes import overlaps, specificity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from everyhop.dataplane.ports import TokenSecrets
    from everyhop.policy.model import Operation
    from everyhop.spiffe.ids import SpiffeId

Audience = tuple[str, str | None]
"""A service, and one of its operations where the token is for that one alone."""

_LABEL_LENGTH: Final = 12
_SECRET: Final = re.compile(r"token@([\w-]{12})/([a-z0-9-]+)(?:#(\S+))?", re.ASCII)
_SVID: Final = re.compile(rf"{names.SDS_SVID}@([\w-]{{12}})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What a sidecar can carry now: the generation in use, and the audiences for which a token is held."""

    generation: str
    tokens: frozenset[Audience]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One way to one service.

    ``generation`` is None where no token is carried.  ``audience`` is the token of every call, None where each call
    gets a token of its own (``fetched`` for that operation) or none.
    """

    target: str
    generation: str | None = None
    audience: Audience | None = None
    fetched: str | None = None

    @property
    def cluster(self) -> str:
        """Return the name of its cluster; operations whose calls fetch their token share one."""
        name = names.upstream(self.target)
        if self.generation is None:
            return name
        mark = "!" if self.audience is None else f"#{self.audience[1]}" if self.audience[1] else ""
        return f"{name}{mark}@{self.generation}"

    @property
    def svid(self) -> str:
        """Return the name of the secret that holds its certificate."""
        return names.SDS_SVID if self.generation is None else f"{names.SDS_SVID}@{self.generation}"

    @property
    def token(self) -> str | None:
        """Return the name of the secret that holds its token."""
        if self.audience is None:
            return None
        target, operation = self.audience
        return f"token@{self.generation}/{target}{f'#{operation}' if operation else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """All ways to one service: the one of everything else, and routes with theirs, the most specific first.

    A lane of None means that the token is not there now.
    """

    default: Lane
    routes: tuple[tuple[Operation, Lane | None], ...] = ()

    @property
    def distinct(self) -> list[Lane]:
        """Return one lane for each cluster."""
        found = {lane.cluster: lane for _, lane in self.routes if lane is not None}
        found[self.default.cluster] = self.default
        return [found[name] for name in sorted(found)]


def carried_by(source: TokenSecrets, spiffe_id: SpiffeId, audiences: Iterable[Audience]) -> Carried | None:
    """Return what a service's sidecars can carry now, None while the service has no certificate."""
    identity = source.generation(spiffe_id)
    if identity is None:
        return None
    held = frozenset(
        audience for audience in audiences if source.token_for(spiffe_id, *audience, identity.x5t) is not None
    )
    return Carried(generation=label(identity.x5t), tokens=held)


def label(x5t: str) -> str:
    """Return the name of the generation of a certificate."""
    return x5t[:_LABEL_LENGTH]


def generation_of_svid(secret: str) -> str | None:
    """Return the generation whose certificate a secret is, None for another secret."""
    match = _SVID.fullmatch(secret)
    return None if match is None else match[1]


def token_of_secret(secret: str) -> tuple[str, Audience] | None:
    """Return generation and audience of the token that a secret is, None for another secret."""
    match = _SECRET.fullmatch(secret)
    return None if match is None else (match[1], (match[2], match[3]))


def secrets_of_cluster(cluster: str) -> tuple[str, ...]:
    """Return the secrets that a cluster needs besides what all need; empty where it carries no token."""
    name, found, generation = cluster.rpartition("@")
    if not found:
        return ()
    svid = f"{names.SDS_SVID}@{generation}"
    return (
        (svid,) if name.endswith("!") else (svid, f"token@{generation}/{name.removeprefix(names.UPSTREAM)}")
    )


def lanes_to(target: str, operations: Sequence[Operation], carried: Carried | None) -> Lanes:
    """Return the ways to a service for a caller that may call ``operations`` of it (its probes among them)."""
    chosen = [(operation, _lane(target, operation, carried)) for operation in operations]
    plain, common = Lane(target=target), Counter(lane for _, lane in chosen if lane and not lane.fetched)
    common[plain] += 0
    default = max(common, key=lambda lane: (common[lane], lane == plain, lane.cluster))
    named = [(operation, lane) for operation, lane in chosen if lane != default]
    templates = [operation for operation, _ in named if not operation.route.is_literal]
    named += [
        (operation, lane)
        for operation, lane in chosen
        if lane == default and any(_comes_first(operation, template) for template in templates)
    ]
    named.sort(key=lambda entry: (specificity(entry[0].route), entry[0].route.template, entry[0].name))
    return Lanes(default=default, routes=tuple(named))


def _comes_first(operation: Operation, template: Operation) -> bool:
    """Tell whether an operation takes requests away from a template."""
    return operation.route.method == template.route.method and overlaps(operation.route, template.route)


def _lane(target: str, operation: Operation, carried: Carried | None) -> Lane | None:
    if operation.token is TokenMode.NONE:
        return Lane(target=target)
    if carried is None:
        return None
    if operation.once:
        return Lane(target=target, generation=carried.generation, fetched=operation.name)
    audience = (target, operation.name if operation.token is TokenMode.OPERATION else None)
    if audience not in carried.tokens:
        return None
    return Lane(target=target, generation=carried.generation, audience=audience)
