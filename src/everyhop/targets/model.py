# SPDX-License-Identifier: Apache-2.0
"""What compiling gives: files, and what has to be said of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from everyhop.core.problems import Span
    from everyhop.targets.view import View


class Fidelity(StrEnum):
    """How well a target holds a feature of the policy."""

    EXACT = "E"
    NARROWER = "N"  # it refuses more than the policy does; said as a warning
    REFUSED = "X"  # it cannot hold it; an error unless another target on the same hop does
    ASKS = "A"  # exact when it is told of an authorizer, else refused


class Feature(StrEnum):
    """What a policy may ask of an enforcement point."""

    IDENTITY = "identity"  # the caller by its exact workload identity
    MTLS = "mtls"  # mutual TLS on every connection
    ROUTE = "route"  # method and exact path
    PARAMETER = "parameter"  # {x}: one segment
    REST = "rest"  # {x...}: what follows
    AMBIGUOUS_PATHS = (
        "ambiguous-paths"  # where a path has parameters: //, encoded slashes, ; and the like are refused
    )
    GRPC = "grpc"
    WEBSOCKET = "websocket"
    TCP = "tcp"
    PROBES = "probes"  # a probe is open to every declared service
    OUTSIDE = "outside"  # callers without an identity of the trust domain, through the gateway
    TOKEN = "token"  # noqa: S105  # an access token for the service
    TOKEN_OPERATION = "token-operation"  # noqa: S105  # an access token for this operation alone
    TOKEN_BINDING = "token-binding"  # noqa: S105  # the token is bound to the caller's certificate
    ONCE = "once"  # a token is good for one call
    USER = "user"  # the call is made for a user
    ROLES = "roles"  # one of the user's roles grants the operation
    CONDITION = "condition"  # `when` of an allow rule
    CONDITIONAL_DENY = "conditional-deny"  # `when` of a deny rule
    BODY = "body"  # the JSON Schema of the body
    RESOURCE = "resource"  # what the application decides of resources
    EGRESS = "egress"  # hosts outside that a service may call
    SHADOW = "shadow"  # what is only watched


LAYER_7: Final = (
    Feature.ROUTE,
    Feature.PARAMETER,
    Feature.REST,
    Feature.AMBIGUOUS_PATHS,
    Feature.GRPC,
    Feature.WEBSOCKET,
)
"""What is about requests, and so nothing that a network of packets can hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One thing that a target does not hold as written.

    ``code`` is stable: ``TARGET.FEATURE`` or ``TARGET.`` and a word.  ``is_error``: nothing on the hop holds it, and compiling
    ends with a failure.  ``suggestion`` names what would hold it.
    """

    target: str
    code: str
    message: str
    is_error: bool
    feature: Feature | None = None
    rules: tuple[str, ...] = ()
    span: Span | None = None
    suggestion: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Return a JSON object; part of the contract of ``policy compile -o json``."""
        place = (
            {}
            if self.span is None
            else {"file": self.span.file, "line": self.span.line, "column": self.span.column}
        )
        return {
            "target": self.target,
            "code": self.code,
            "severity": "error" if self.is_error else "warning",
            "message": self.message,
            "rules": list(self.rules),
            "suggestion": self.suggestion,
            **place,
        }

    def render(self) -> str:
        """Return one line for people."""
        where = "" if self.span is None else f"{self.span}: "
        tail = f" ({self.suggestion})" if self.suggestion else ""
        return f"{where}{'error' if self.is_error else 'warning'}: {self.message}{tail} [{self.code}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of the output: its path with ``/`` below the output directory, and its content.

    ``is_superset``: it admits more than the policy on purpose, as the outer bound beside something exact; its header says so.
    """

    path: str
    content: bytes = field(repr=False)
    is_superset: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilation:
    """What a policy compiles to for one target; ``files`` are in the order of their paths and complete unless :attr:`failed`.

    A clause that the target cannot hold has no artefact: what would depend on it is left out, which is narrower, and said.
    """

    target: str
    files: tuple[File, ...]
    diagnostics: tuple[Diagnostic, ...]

    @property
    def failed(self) -> bool:
        """Tell whether something is held by nobody."""
        return any(one.is_error for one in self.diagnostics)


class Target(Protocol):
    """A compiler to one system."""

    name: str
    summary: str

    def compile(self, view: View) -> tuple[Sequence[File], Sequence[Diagnostic]]:
        """Return files in any order, with what is special to the target; what the matrix says is added by the caller.

        Only what ``view`` opens may be opened; the rest of a door stays shut.
        """
        ...
