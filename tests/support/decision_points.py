# SPDX-License-Identifier: Apache-2.0
"""A decision point with behaviour and without a policy: clerks write what is open, archivists what is archived."""

from __future__ import annotations

from dataclasses import dataclass, field

from everyhop.authzen import Answer, Evaluation, Kind, Search
from everyhop.core.errors import AccessDenied, InputError

ACTIONS = ("delete", "read", "write")


@dataclass
class RecordsPoint:
    """Decides about records; ``asked`` is what was evaluated, in its order.

    The type ``secret`` is somebody else's, and the id ``broken`` cannot be understood.
    """

    roles: dict[str, str] = field(default_factory=lambda: {"ann": "clerk", "ben": "archivist", "cy": "guest"})
    records: dict[str, str] = field(default_factory=lambda: {"r1": "open", "r2": "archived", "r3": "open"})
    snapshot: str = "a" * 64
    asker: str = "spiffe://shop.example/service/records"
    asked: list[Evaluation] = field(default_factory=list)
    probed: int = 0

    def evaluate(self, asked: Evaluation) -> Answer:
        if asked.resource.type == "secret":
            raise AccessDenied("not for this PEP")
        if asked.resource.id == "broken":
            raise InputError("no one meaning")
        self.asked.append(asked)
        return Answer(decision=self._decide(asked), context={"n": len(self.asked)})

    def permits(self, asked: Evaluation) -> bool:
        self.probed += 1
        return self._decide(asked)

    def candidates(self, search: Search):
        if search.kind is Kind.ACTION:
            return ACTIONS if search.resource.type == "record" else None
        known = {"user": self.roles} if search.kind is Kind.SUBJECT else {"record": self.records}
        found = known.get(search.sought_type)
        return None if found is None else sorted(found)

    def _decide(self, asked: Evaluation) -> bool:
        role = self.roles.get(asked.subject.id)
        status = asked.resource.properties.get("status", self.records.get(asked.resource.id))
        if asked.action.name == "read":
            return role is not None
        if asked.action.name == "write":
            return (role, status) in {("clerk", "open"), ("archivist", "archived")}
        return asked.action.properties.get("soft") is True and role == "clerk"
