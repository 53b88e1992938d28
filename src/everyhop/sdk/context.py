# SPDX-License-Identifier: Apache-2.0
"""The service context: what one workload must know to decide for itself, as its agent sends it.

It holds the service's own doors and who may use them, the keys and revocations that tokens are checked with, and
the services that this one may call.  It comes over the attested socket and is trusted as the policy is; a document
that does not parse is refused whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec

from everyhop.anomaly.blocks_codec import BlocksDocument, blocks_of
from everyhop.anomaly.model import Blocks
from everyhop.core.errors import InputError
from everyhop.policy.model import Protocol as Speaks, Route, TokenMode, UserMode
from everyhop.policy.routes import parse_template
from everyhop.spiffe.ids import SpiffeId, TrustDomain
from everyhop.tokens.revocations import Revocations

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT: Final = 1
MAX_DOCUMENT_BYTES: Final = 16 * 1024 * 1024
_NOTHING: Final = msgspec.Raw(b"null")

_TOKEN_MODES: Final = {
    "none": TokenMode.NONE,
    "service": TokenMode.SERVICE,
    "required": TokenMode.SERVICE,
    "operation": TokenMode.OPERATION,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerRule:
    """Why a caller may use an operation (the rule's id), and what it must bring of a user."""

    rule: str | None
    user: UserMode


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationContext:
    """One door of this service; ``callers`` maps the SPIFFE ID (or ``outside``) of everybody who may use it.

    ``deciding`` does so for those about whom facts of the call decide, by the rules of the context.
    ``leaves_resource`` tells that the application checks what rules say of resources.

    ``body`` is the JSON Schema of its request body, a JSON document, or None.
    """

    name: str
    route: Route
    protocol: Speaks
    token: TokenMode
    once: bool
    is_probe: bool
    callers: Mapping[str, CallerRule]
    body: bytes | None = field(default=None, repr=False)
    deciding: Mapping[str, CallerRule] = field(default_factory=lambda: MappingProxyType({}))
    leaves_resource: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of the service's doors, where facts decide: an encoded snapshot, read when it is first needed.

    ``ids`` gives for each rule of it the id in the whole policy.
    """

    policy: bytes = field(repr=False)
    ids: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetOperation:
    """An operation of another service that this one may call."""

    name: str
    route: Route
    token: TokenMode
    once: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A service that this one may call: the only identity to accept there, and where it listens (HOST:PORT)."""

    name: str
    spiffe_id: SpiffeId
    ingress: tuple[str, ...]
    operations: tuple[TargetOperation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceContext:
    """Everything that a :class:`everyhop.sdk.Guard` decides by.  Immutable; a change is a new one."""

    service: str
    spiffe_id: SpiffeId
    trust_domain: TrustDomain
    issuer: str
    snapshot: str
    sequence: int
    jwks: bytes = field(repr=False)
    revoked: Revocations = field(repr=False)
    operations: tuple[OperationContext, ...]
    targets: Mapping[str, Target]
    rules: Rules | None = None
    blocks: Blocks = field(default_factory=Blocks, repr=False)

    @classmethod
    def parse(cls, document: bytes) -> ServiceContext:
        """Read a document (JSON, at most 16 MiB).

        Members that this version does not know are passed over.  Raises InputError for another format, a
        missing or ill-typed member, a route that does not parse, or a service outside its own trust domain.
        """
        if len(document) > MAX_DOCUMENT_BYTES:
            raise InputError(f"a service context has at most {MAX_DOCUMENT_BYTES} bytes")
        try:
            raw = _DECODER.decode(document)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InputError(f"not a service context: {error}") from error
        if raw.format != FORMAT:
            raise InputError(
                f"a service context of format {raw.format}", hint="agent and SDK differ in version"
            )
        spiffe_id, trust_domain = SpiffeId.parse(raw.spiffe_id), TrustDomain.parse(raw.trust_domain)
        if spiffe_id.trust_domain != trust_domain:
            raise InputError("the service context is of another trust domain than its service")
        return cls(
            service=raw.service,
            spiffe_id=spiffe_id,
            trust_domain=trust_domain,
            issuer=raw.issuer,
            snapshot=raw.snapshot,
            sequence=raw.sequence,
            jwks=bytes(raw.jwks),
            revoked=Revocations.from_members(raw.revoked),
            operations=tuple(_operation(one) for one in raw.operations),
            targets=MappingProxyType({name: _target(name, one) for name, one in raw.targets.items()}),
            rules=None if raw.rules is None else Rules(policy=bytes(raw.rules.policy), ids=raw.rules.ids),
            blocks=Blocks() if raw.blocks is None else blocks_of(raw.blocks),
        )

    @property
    def context(self) -> ServiceContext:
        """Return itself, so that a fixed context serves wherever a changing one does."""
        return self


class ContextSource(Protocol):
    """Whatever holds the context of the moment: a :class:`everyhop.sdk.Workload`, or a fixed context."""

    @property
    def context(self) -> ServiceContext:
        """Return the context in force; Unavailable while there is none, or after it was withdrawn."""


class _Caller(msgspec.Struct, frozen=True):
    rule: str | None = None
    user: UserMode = UserMode.NONE


class _Operation(msgspec.Struct, frozen=True):
    name: str
    method: str
    path: str
    callers: dict[str, _Caller]
    protocol: Speaks = Speaks.HTTP
    token: str = "none"  # noqa: S105  # a mode
    once: bool = False
    probe: bool = False
    body: msgspec.Raw = _NOTHING
    deciding: dict[str, _Caller] = {}
    resource: Literal["application"] | None = None


class _TargetOperation(msgspec.Struct, frozen=True):
    name: str
    method: str
    path: str
    token: str = "none"  # noqa: S105  # a mode
    once: bool = False


class _Target(msgspec.Struct, frozen=True):
    spiffe_id: str
    ingress: list[str] = []
    operations: list[_TargetOperation] = []


class _Rules(msgspec.Struct, frozen=True):
    policy: msgspec.Raw
    ids: dict[str, str] = {}


class _Document(msgspec.Struct, frozen=True):
    format: int
    service: str
    spiffe_id: str
    trust_domain: str
    issuer: str
    snapshot: str
    jwks: msgspec.Raw
    operations: list[_Operation]
    sequence: int = 0
    revoked: dict[str, Any] = {}
    targets: dict[str, _Target] = {}
    rules: _Rules | None = None
    blocks: BlocksDocument | None = None


_DECODER: Final = msgspec.json.Decoder(_Document)


def _operation(raw: _Operation) -> OperationContext:
    body = bytes(raw.body)
    return OperationContext(
        name=raw.name,
        route=Route(method=raw.method, segments=parse_template(raw.path)),
        protocol=raw.protocol,
        token=_token_mode(raw.token),
        once=raw.once,
        is_probe=raw.probe,
        callers=_callers(raw.callers),
        deciding=_callers(raw.deciding),
        leaves_resource=raw.resource is not None,
        body=None if body == bytes(_NOTHING) else body,
    )


def _callers(raw: dict[str, _Caller]) -> Mapping[str, CallerRule]:
    return MappingProxyType({who: CallerRule(rule=rule.rule, user=rule.user) for who, rule in raw.items()})


def _target(name: str, raw: _Target) -> Target:
    return Target(
        name=name,
        spiffe_id=SpiffeId.parse(raw.spiffe_id),
        ingress=tuple(raw.ingress),
        operations=tuple(
            TargetOperation(
                name=one.name,
                route=Route(method=one.method, segments=parse_template(one.path)),
                token=_token_mode(one.token),
                once=one.once,
            )
            for one in raw.operations
        ),
    )


def _token_mode(text: str) -> TokenMode:
    mode = _TOKEN_MODES.get(text)
    if mode is None:  # a demand that we do not know must not be taken for none
        raise InputError(f"unknown token mode {text[:20]!r}", hint="agent and SDK differ in version")
    return mode
