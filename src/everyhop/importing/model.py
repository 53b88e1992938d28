# SPDX-License-Identifier: Apache-2.0
"""What importing gives: a policy text, and what has to be said of each part of the source."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from everyhop.core.problems import Span

DEFAULT_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""What "any method" of a source is written as: the policy names each method that it opens."""

DEFAULT_ROOT: Final = "istio-system"


class Fate(StrEnum):
    """What became of one part of the source."""

    CARRIED = "carried"  # the policy says the same
    NARROWER = "narrower"  # the policy opens less than the source, as ``written`` tells
    LEFT_OUT = "left-out"  # nothing is written for it, which opens less
    ASSUMED = "assumed"  # the source does not say it, and the policy has to


LOST: Final = frozenset({Fate.NARROWER, Fate.LEFT_OUT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the source: which, where, what became of it and why.

    ``code`` is stable (``istio.path-prefix``); ``source`` names the object and the part of it; ``written`` tells what stands in
    the policy in its place, empty for nothing.
    """

    fate: Fate
    code: str
    source: str
    message: str
    span: Span
    written: str = ""

    @property
    def is_lost(self) -> bool:
        """Tell whether the policy opens less than the source because of it."""
        return self.fate in LOST

    def to_dict(self) -> dict[str, object]:
        """Return a JSON object; part of the contract of ``policy import -o json``."""
        return {
            "fate": self.fate.value,
            "code": self.code,
            "source": self.source,
            "message": self.message,
            "written": self.written,
            "file": self.span.file,
            "line": self.span.line,
        }

    def render(self) -> str:
        """Return one line for people."""
        tail = f"; written: {self.written}" if self.written else ""
        return f"{self.span.file}:{self.span.line}: {self.fate.value}: {self.source}: {self.message}{tail} [{self.code}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the person who imports decides.

    ``trust_domain`` of the identities (None: the one that the source names most), ``methods`` for "any method",
    ``gateway`` the namespace and service account whose calls are those of ``outside``, ``root_namespace`` the mesh's, whose policies
    hold everywhere.
    """

    trust_domain: str | None = None
    methods: tuple[str, ...] = DEFAULT_METHODS
    gateway: tuple[str, str] | None = None
    root_namespace: str = DEFAULT_ROOT


@dataclass(slots=True, kw_only=True)
class DraftService:
    """One service on its way into the text: its place, and its doors as ``name: METHOD /path``."""

    name: str
    identity: str
    namespace: str
    account: str
    labels: dict[str, str]
    port: int | None = None
    tcp: int | None = None
    operations: dict[str, str] = field(default_factory=dict)
    workload: list[dict[str, Any]] = field(default_factory=list)
    is_placed: bool = True
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftRule:
    """One rule on its way into the text; ``callers`` of None are ``any``, ``operations`` of None all or a tcp port."""

    effect: str
    callers: tuple[str, ...] | None
    target: str
    operations: tuple[str, ...] | None
    note: str
    needs_user: bool = False
    when: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftTest:
    """One test on its way into the text; ``call`` of None is a tcp connection."""

    caller: str
    target: str
    call: str | None
    allows: bool
    user: dict[str, Any] | None = None
    headers: dict[str, str] | None = None


@dataclass(slots=True, kw_only=True)
class Draft:
    """A policy on its way into text."""

    trust_domain: str
    services: dict[str, DraftService] = field(default_factory=dict)
    rules: list[DraftRule] = field(default_factory=list)
    tests: list[DraftTest] = field(default_factory=list)
    issuers: list[dict[str, Any]] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    targets: dict[str, Any] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The text of a policy which parses and passes its own tests, and the parts of the source in their order."""

    text: bytes = field(repr=False)
    parts: Sequence[Part]

    @property
    def is_whole(self) -> bool:
        """Tell whether everything could be carried over."""
        return not any(part.is_lost for part in self.parts)

    def to_dict(self) -> dict[str, object]:
        """Return a JSON object; part of the contract of ``policy import -o json``."""
        return {
            "whole": self.is_whole,
            "policy": self.text.decode(),
            "parts": [part.to_dict() for part in self.parts],
        }
