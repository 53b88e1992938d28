# SPDX-License-Identifier: Apache-2.0
"""What the rules are asked, and what they find."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Document = dict[str, Any]
"""An object of Kubernetes as JSON values; nothing of it is believed to have the right shape."""


class Code(StrEnum):
    """What is wrong with an object; stable."""

    PERMISSIVE_MTLS = "permissive-mtls"
    OPEN_ALLOW = "open-allow"
    WILDCARD_PRINCIPAL = "wildcard-principal"
    AUTOMOUNTED_TOKEN = "automounted-token"  # noqa: S105  # a name
    SECRET_IN_ENV = "secret-in-env"  # noqa: S105  # a name
    DEFAULT_DENY_REMOVED = "default-deny-removed"
    DEFAULT_DENY_MISSING = "default-deny-missing"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One reason not to admit an object: the code, where in the object, and what would be right."""

    code: Code
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.code.value}: {self.path}: {self.message}"


@dataclass(frozen=True, slots=True)
class Kinds:
    """An API group with the kinds of it that a rule looks at, and their names as resources (plural)."""

    group: str
    resources: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: what it is about, and the check of one object."""

    code: Code
    summary: str
    kinds: tuple[Kinds, ...]
    check: Callable[[Document], Iterator[tuple[str, str]]]

    def concerns(self, group: str, kind: str) -> bool:
        """Tell whether the rule looks at objects of a kind."""
        return any(one.group == group and kind in one.resources for one in self.kinds)


WORKLOADS: Final = (
    Kinds("", {"Pod": "pods"}),
    Kinds(
        "apps",
        {
            "Deployment": "deployments",
            "StatefulSet": "statefulsets",
            "DaemonSet": "daemonsets",
            "ReplicaSet": "replicasets",
        },
    ),
    Kinds("batch", {"Job": "jobs", "CronJob": "cronjobs"}),
)
"""Whatever makes pods."""


class ShapeError(Exception):
    """An object does not have the shape of its kind; the path says where."""


def mapping(value: object, path: str) -> Document:
    """Return a mapping, or an empty one for what is absent; raises ShapeError for anything else."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ShapeError(path)
    return value


def items(value: object, path: str) -> list[Any]:
    """Return a list, or an empty one for what is absent; raises ShapeError for anything else."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise ShapeError(path)
    return value
