# SPDX-License-Identifier: Apache-2.0
"""The names that a condition may use, and their types: those of every policy, and the attributes of this one."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from everyhop.conditions import ValueType, Vocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.core.problems import Span
    from everyhop.policy.facts import Value

KINDS: Final = ("user", "device", "resource", "service")

PATH_PARAMETERS: Final = "request.path_params"
QUERY: Final = "request.query"
HEADERS: Final = "request.headers"
NOW: Final = "now"

BUILT_IN: Final[Mapping[str, ValueType]] = MappingProxyType(
    {
        "caller.name": ValueType.STRING,
        "caller.spiffe_id": ValueType.STRING,
        "target.name": ValueType.STRING,
        "operation": ValueType.STRING,
        "user.id": ValueType.STRING,
        "user.issuer": ValueType.STRING,
        "user.roles": ValueType.STRINGS,
        "user.mfa": ValueType.BOOL,
        "user.amr": ValueType.STRINGS,
        "user.acr": ValueType.STRING,
        "user.auth_time": ValueType.TIMESTAMP,
        "request.method": ValueType.STRING,
        "request.path": ValueType.STRING,
        PATH_PARAMETERS: ValueType.STRING_MAP,
        QUERY: ValueType.STRING_MAP,
        HEADERS: ValueType.STRING_MAP,
        "request.source_ip": ValueType.STRING,
        "resource.id": ValueType.STRING,
        "resource.type": ValueType.STRING,
        NOW: ValueType.TIMESTAMP,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One declared attribute; where a subject does not have it, it has ``default``, or it is unknown (None)."""

    type: ValueType
    default: Value | None = None
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """All declared attributes by kind (of :data:`KINDS`) and name, and the headers that conditions may read."""

    by_kind: Mapping[str, Mapping[str, Attribute]] = field(
        default_factory=lambda: MappingProxyType({kind: MappingProxyType({}) for kind in KINDS})
    )
    headers: tuple[str, ...] = ()

    def of(self, kind: str) -> Mapping[str, Attribute]:
        """Return the attributes of a kind by name."""
        return self.by_kind[kind]

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing is declared."""
        return not self.headers and not any(self.by_kind.values())


def vocabulary_of(attributes: Attributes) -> Vocabulary:
    """Return every name that a condition of this policy may use."""
    names = dict(BUILT_IN)
    for kind, declared in attributes.by_kind.items():
        for prefix in ("caller", "target") if kind == "service" else (kind,):
            names |= {f"{prefix}.{name}": attribute.type for name, attribute in declared.items()}
    return Vocabulary(names)
