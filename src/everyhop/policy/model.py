# SPDX-License-Identifier: Apache-2.0
"""The policy as values: what exists, which doors it has, who may use them.

A :class:`Snapshot` is immutable and complete; everything that enforces, explains or displays is derived
from it, and names its ``hash``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.core.problems import Span
    from everyhop.spiffe.ids import SpiffeId, TrustDomain

ANY: Final = "any"


class Protocol(StrEnum):
    """What an operation speaks."""

    HTTP = "http"
    GRPC = "grpc"
    WEBSOCKET = "websocket"


class SegmentKind(StrEnum):
    """What one segment of a path template accepts."""

    LITERAL = "literal"
    PARAMETER = "parameter"  # {id}: exactly one non-empty segment
    REST = "rest"  # {path...}: whatever follows the slash, also nothing; last only


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment; ``text`` is the literal, or the parameter's name."""

    kind: SegmentKind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A method and a path template, e.g. ``GET /orders/{id}``.

    ``segments`` of ``/`` is one empty literal; a trailing slash is an empty last literal.  Literals hold
    only characters that need no percent-encoding in a path.
    """

    method: str
    segments: tuple[Segment, ...]

    @property
    def template(self) -> str:
        """Return the path as written in the policy."""
        shown = {SegmentKind.LITERAL: "{0}", SegmentKind.PARAMETER: "{{{0}}}", SegmentKind.REST: "{{{0}...}}"}
        return "/" + "/".join(shown[s.kind].format(s.text) for s in self.segments)

    @property
    def is_literal(self) -> bool:
        """Tell whether the template is one exact path."""
        return all(s.kind is SegmentKind.LITERAL for s in self.segments)

    def __str__(self) -> str:
        return f"{self.method} {self.template}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One door of a service; a probe is an operation named ``probes[N]`` that every declared service may call."""

    name: str
    route: Route
    protocol: Protocol
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Selector:
    """One fact about a process, e.g. ``unix:user:payments`` or ``run:orders``."""

    type: str
    value: str

    def __str__(self) -> str:
        return f"{self.type}:{self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service: how its instances are recognised, its SPIFFE ID, and its only doors.

    ``workload`` holds alternatives; an instance matches one when all its selectors hold.  ``tcp`` is a port
    for services that do not speak HTTP; they have no operations.
    """

    name: str
    spiffe_id: SpiffeId
    workload: tuple[frozenset[Selector], ...]
    operations: tuple[Operation, ...]
    probes: tuple[Operation, ...]
    tcp: int | None
    span: Span = field(compare=False)


class RuleEffect(StrEnum):
    """What a rule does when it matches."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One entry of ``allow`` or ``deny``.

    ``id`` is ``allow[N]`` or ``deny[N]`` over the whole policy, or the ``id`` that the policy gives it.
    ``callers`` and ``targets`` are service names; ``None`` means any (for ``callers``: any declared
    service).  ``operations`` of ``None`` means every operation of the target: for a deny rule its probes and
    tcp too; for an allow rule tcp only where ``targets`` names the service.
    """

    id: str
    effect: RuleEffect
    callers: frozenset[str] | None
    targets: frozenset[str] | None
    operations: frozenset[str] | None
    reason: str | None
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyTest:
    """One entry of ``tests``; ``method`` and ``path`` are ``None`` for a tcp connection."""

    caller: str
    target: str
    method: str | None
    path: str | None
    expect: RuleEffect
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A whole policy, checked.

    ``services`` is ordered by name, ``rules`` holds the allow rules and then the deny rules, each in the
    policy's order.  ``hash`` is the SHA-256 of ``canonical`` in 64 hex digits.
    """

    trust_domain: TrustDomain
    services: Mapping[str, Service]
    rules: tuple[Rule, ...]
    tests: tuple[PolicyTest, ...]
    canonical: bytes
    hash: str
    _owners: Mapping[str, Service] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "services", MappingProxyType(dict(self.services)))
        object.__setattr__(self, "_owners", {str(s.spiffe_id): s for s in self.services.values()})

    def service_of(self, spiffe_id: str) -> Service | None:
        """Return the service that owns a SPIFFE ID (normal form), or None."""
        return self._owners.get(spiffe_id)
