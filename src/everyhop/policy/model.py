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

from everyhop.policy.detect import DEFAULTS, Detection
from everyhop.policy.facts import NOTHING_KNOWN, Context, Value
from everyhop.policy.targets import TargetSettings
from everyhop.policy.vocabulary import Attributes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.conditions import Condition, ValueType
    from everyhop.core.problems import Span
    from everyhop.spiffe.ids import SpiffeId, TrustDomain

ANY: Final = "any"
OUTSIDE: Final = "outside"
"""Who calls at the edge: a client without an identity of the trust domain.  ``any`` does not mean it."""


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


class TokenMode(StrEnum):
    """Which access token a call of an operation carries."""

    NONE = "none"
    SERVICE = "required"  # its audience is the service
    OPERATION = "operation"  # its audience is this operation alone


class UserMode(StrEnum):
    """Whether a call is made on behalf of a user."""

    NONE = "none"  # no user's claims are believed, and none reach the application
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class BodySchema:
    """The JSON Schema (draft 2020-12, without references to other documents) of an operation's request body.

    ``document`` is a JSON object in UTF-8, keys sorted, without white space.
    """

    document: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One door of a service; a probe is an operation named ``probes[N]`` that every declared service may call.

    ``once`` means that a token is good for one call; it needs a ``token``.  ``leaves_resource`` means that the
    application checks what conditions say of resources: the decision point lets a call pass that some resource allows.
    """

    name: str
    route: Route
    protocol: Protocol
    token: TokenMode = TokenMode.NONE
    once: bool = False
    body: BodySchema | None = None
    leaves_resource: bool = False
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
    for services that do not speak HTTP; they have no operations.  ``is_canary``: it does not exist and nobody has a reason to
    call it; it has no door that a rule could open.
    """

    name: str
    spiffe_id: SpiffeId
    workload: tuple[frozenset[Selector], ...]
    operations: tuple[Operation, ...]
    probes: tuple[Operation, ...]
    tcp: int | None
    attributes: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))
    is_canary: bool = False
    span: Span = field(compare=False)


class Mode(StrEnum):
    """Whether a rule, or a whole policy, counts."""

    ENFORCE = "enforce"
    SHADOW = "shadow"  # it is only watched: what it would decide is recorded


class RuleEffect(StrEnum):
    """What a rule does when it matches."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One entry of ``allow`` or ``deny``.

    ``id`` is ``allow[N]`` or ``deny[N]`` over the whole policy, or the ``id`` that the policy gives it.
    ``callers`` and ``targets`` are service names (among callers also ``outside``); ``None`` means any (for
    ``callers``: any declared service, and in a deny rule the outside too).  ``operations`` of ``None`` means every operation of the target: for a deny rule its probes and
    tcp too; for an allow rule tcp only where ``targets`` names the service.  ``when`` is the condition under which the
    rule matches (``condition`` the same, compiled), None for always.
    """

    id: str
    effect: RuleEffect
    callers: frozenset[str] | None
    targets: frozenset[str] | None
    operations: frozenset[str] | None
    reason: str | None
    user: UserMode = UserMode.NONE
    when: str | None = None
    mode: Mode = Mode.ENFORCE
    condition: Condition | None = field(default=None, compare=False, repr=False)
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """Calls from services to services (None: any), on which the policy is only watched."""

    callers: frozenset[str] | None
    targets: frozenset[str] | None
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What people of a role may do.

    ``grants`` holds pairs of service and operation (None: every operation), ``includes`` names roles whose grants it
    has too, ``groups`` the names by which an identity provider means this role.
    """

    name: str
    grants: frozenset[tuple[str, str | None]]
    includes: frozenset[str]
    groups: frozenset[str]
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceType:
    """One type of the directory: the service that holds such resources, and the known ones by id.

    ``parameter`` names the path parameter of that service's routes that holds the id, None where no path does.
    """

    name: str
    service: str
    parameter: str | None
    items: Mapping[str, Mapping[str, Value]]
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryUser:
    """A user whom the decision point knows by itself."""

    id: str
    roles: tuple[str, ...]
    attributes: Mapping[str, Value]
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """Subjects and resources that the decision point knows by itself, by id and by type."""

    users: Mapping[str, DirectoryUser] = field(default_factory=lambda: MappingProxyType({}))
    resources: Mapping[str, ResourceType] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimAttribute:
    """Where an issuer's tokens say a declared attribute of a user: the path of a claim."""

    name: str
    type: ValueType
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserIssuer:
    """An OpenID provider whose users may be acted for.

    ``issuer`` is its exact ``iss``; ``audiences`` are those of which a token must name one; ``jwks`` is the URL of
    its keys (None: by discovery); ``roles`` is the path of the claim that holds them; ``attributes`` are those that
    its tokens state, by name; ``algorithms`` are the only ones taken.
    """

    issuer: str
    audiences: tuple[str, ...]
    jwks: str | None
    roles: tuple[str, ...]
    algorithms: tuple[str, ...]
    attributes: tuple[ClaimAttribute, ...] = ()
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyTest:
    """One entry of ``tests``; ``method`` and ``path`` are ``None`` for a tcp connection."""

    caller: str
    target: str
    method: str | None
    path: str | None
    expect: RuleEffect
    context: Context = NOTHING_KNOWN
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A whole policy, checked.

    ``services`` is ordered by name, ``rules`` holds the allow rules and then the deny rules, each in the
    policy's order.  ``readers`` are the services that may read the audit log, ``targets`` says where services stand in other
    systems.  ``hash`` is the SHA-256 of
    ``canonical`` in 64 hex digits.
    """

    trust_domain: TrustDomain
    services: Mapping[str, Service]
    rules: tuple[Rule, ...]
    tests: tuple[PolicyTest, ...]
    user_issuers: tuple[UserIssuer, ...] = ()
    mode: Mode = Mode.ENFORCE
    roles: Mapping[str, Role] = field(default_factory=lambda: MappingProxyType({}))
    attributes: Attributes = field(default_factory=Attributes)
    shadow_edges: tuple[Edge, ...] = ()
    directory: Directory = field(default_factory=Directory)
    detection: Detection = DEFAULTS
    readers: frozenset[str] = frozenset()
    targets: TargetSettings = field(default_factory=TargetSettings)
    canonical: bytes
    hash: str
    _owners: Mapping[str, Service] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "services", MappingProxyType(dict(self.services)))
        object.__setattr__(self, "_owners", {str(s.spiffe_id): s for s in self.services.values()})

    def service_of(self, spiffe_id: str) -> Service | None:
        """Return the service that owns a SPIFFE ID (normal form), or None."""
        return self._owners.get(spiffe_id)

    @property
    def has_shadow(self) -> bool:
        """Tell whether anything of it is only watched."""
        return (
            self.mode is Mode.SHADOW
            or bool(self.shadow_edges)
            or any(rule.mode is Mode.SHADOW for rule in self.rules)
        )

    def is_watched(self, caller: str, target: str) -> bool:
        """Tell whether the policy is only watched between two declared services; never for ``outside`` or a canary."""
        if caller == OUTSIDE or (target in self.services and self.services[target].is_canary):
            return False
        return self.mode is Mode.SHADOW or any(
            (edge.callers is None or caller in edge.callers)
            and (edge.targets is None or target in edge.targets)
            for edge in self.shadow_edges
        )
