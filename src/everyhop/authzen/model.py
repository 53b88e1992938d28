# SPDX-License-Identifier: Apache-2.0
"""The information model of AuthZEN Authorization API 1.0, section 5: what is asked, and what is answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = dict[str, Any]
"""A JSON object as it is sent."""


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """A subject or a resource: its type, its id within the type, and what the PEP says about it.

    ``properties`` is JSON as it came: objects, arrays, texts, numbers, booleans, null.
    """

    type: str
    id: str
    properties: Mapping[str, Any] = field(default_factory=_nothing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What is to be done, and with which parameters."""

    name: str
    properties: Mapping[str, Any] = field(default_factory=_nothing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One question: may ``subject`` do ``action`` to ``resource``, in this environment."""

    subject: Entity
    action: Action
    resource: Entity
    context: Mapping[str, Any] = field(default_factory=_nothing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to one question: only a ``decision`` that is True permits; ``context`` is for the PEP."""

    decision: bool
    context: Mapping[str, Any] = field(default_factory=_nothing)

    def to_json(self) -> Json:
        """Return the answer as it is sent: what is not exactly True is False; an empty context is left out."""
        answer: Json = {"decision": self.decision is True}
        if self.context:
            answer["context"] = dict(self.context)
        return answer


class Semantic(StrEnum):
    """How far the questions of a batch are asked (section 7.1.2.1)."""

    EXECUTE_ALL = "execute_all"
    DENY_ON_FIRST_DENY = "deny_on_first_deny"
    PERMIT_ON_FIRST_PERMIT = "permit_on_first_permit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """Why one item of a batch is no question; it is answered by a denial."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Several questions in their order, of which each may be flawed by itself."""

    items: tuple[Evaluation | Flaw, ...]
    semantic: Semantic


class Kind(StrEnum):
    """Which entity a search is for."""

    SUBJECT = "subject"
    RESOURCE = "resource"
    ACTION = "action"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """Which part of the results is wanted; ``limit`` None means as many as one answer holds."""

    token: str | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One search.

    The entity of ``kind`` is the one that is sought: of it only ``sought_type`` is known (None for an action), the
    others are complete.  ``page`` is None when the request has none.  ``digest`` stands for everything that must stay the
    same between pages (section 8.2): the entities and the context, whatever their members' order.
    """

    kind: Kind
    sought_type: str | None
    subject: Entity | None
    action: Action | None
    resource: Entity | None
    context: Mapping[str, Any]
    page: PageRequest | None
    digest: bytes

    def candidate(self, name: str) -> Evaluation:
        """Return the question that is asked about one candidate, by its id or (an action) its name."""
        sought = None if self.sought_type is None else Entity(type=self.sought_type, id=name)
        subject, action, resource = (
            self.subject or sought,
            self.action or Action(name=name),
            self.resource or sought,
        )
        assert subject is not None and resource is not None  # noqa: S101, PT018  # the parser sees to it
        return Evaluation(subject=subject, action=action, resource=resource, context=self.context)

    def result(self, name: str) -> Json:
        """Return a candidate as it is sent."""
        return {"name": name} if self.sought_type is None else {"type": self.sought_type, "id": name}
