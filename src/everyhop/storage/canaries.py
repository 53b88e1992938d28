# SPDX-License-Identifier: Apache-2.0
"""Canaries in SQL: marks, never credentials; what the log may say of them in the same transaction."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from everyhop.anomaly.canary import Canary, CanaryKind, Use
from everyhop.anomaly.detectors.canaries import USED
from everyhop.anomaly.finding import Action
from everyhop.auditlog.append import append_event
from everyhop.auditlog.model import Event, Kind, Scalar
from everyhop.core.clock import Entropy
from everyhop.core.errors import Conflict, NotFound
from everyhop.storage.database import Database
from everyhop.storage.records import SqlRecordWriter
from everyhop.storage.schema import canaries, read_moments, to_micros, write_moments

_MOMENTS: Final = ("created_at", "ended_at")


class SqlCanaryStore:
    """The ``CanaryStore`` port on a database.  ``producer`` names this server in the audit log."""

    def __init__(self, database: Database, *, entropy: Entropy, producer: str = "server") -> None:
        self._database = database
        self._entropy = entropy
        self._producer = producer

    def insert(self, canary: Canary, *, recorded: bool) -> None:
        """Add one."""
        values = {
            "id": canary.id,
            "kind": canary.kind.value,
            "name": canary.name,
            "mark": canary.mark,
            "response": canary.response.value,
            "created_by": canary.created_by,
            **write_moments(canary, _MOMENTS),
        }
        with self._database.writing() as connection:
            is_there = sa.select(canaries.c.id).where(
                canaries.c.kind == CanaryKind.SERVICE.value,
                canaries.c.name == canary.name,
                canaries.c.ended_at.is_(None),
            )
            if canary.kind is CanaryKind.SERVICE and connection.execute(is_there).first() is not None:
                raise Conflict(f"the service {canary.name} is a canary already")
            try:
                connection.execute(sa.insert(canaries).values(values))
            except sa.exc.IntegrityError as error:
                raise Conflict("there is such a canary already") from error
            if recorded:
                self._record(
                    connection, "create-canary", canary.created_at, canary.created_by, {"canary": canary.id}
                )

    def list(self) -> tuple[Canary, ...]:
        """Return all, oldest first."""
        statement = sa.select(canaries).order_by(canaries.c.created_at, canaries.c.id)
        with self._database.reading() as connection:
            return tuple(_canary(row) for row in connection.execute(statement).mappings())

    def end(self, canary_id: str, *, at: datetime, by: str, recorded: bool) -> Canary:
        """Note that one was ended."""
        wanted = canaries.c.id == canary_id
        with self._database.writing() as connection:
            row = connection.execute(sa.select(canaries).where(wanted)).mappings().one_or_none()
            if row is None:
                raise NotFound(
                    f"there is no canary {canary_id[:40]!r}", hint="`everyhop canary list` shows them"
                )
            canary = _canary(row)
            if canary.ended_at is not None:
                return canary
            connection.execute(sa.update(canaries).where(wanted).values(ended_at=to_micros(at)))
            if recorded:
                self._record(connection, "end-canary", at, by, {"canary": canary.id})
        return replace(canary, ended_at=at)

    def used(self, use: Use) -> str:
        """Append the record of a use: from now on it is no secret what that credential was."""
        detail: dict[str, Scalar] = {
            "canary": use.canary.id,
            "canary_kind": use.canary.kind.value,
            "response": use.canary.action.value,
            "where": use.where,
            "source": use.source,
            "decision": use.decision,
        }
        event = Event(
            kind=Kind.TOKEN,
            action=USED,
            time=use.time,
            caller=use.caller,
            target=use.target,
            decision="deny",
            reason="canary",
            detail={name: value for name, value in detail.items() if value is not None},
        )
        with self._database.writing() as connection:
            return append_event(
                SqlRecordWriter(connection), event, producer=self._producer, entropy=self._entropy
            ).id

    def _record(
        self, connection: sa.Connection, action: str, at: datetime, by: str, detail: dict[str, Scalar]
    ) -> None:
        append_event(
            SqlRecordWriter(connection),
            Event(kind=Kind.TOKEN, action=action, time=at, caller=by, detail=detail),
            producer=self._producer,
            entropy=self._entropy,
        )


def _canary(row: sa.RowMapping) -> Canary:
    return Canary(
        id=row["id"],
        kind=CanaryKind(row["kind"]),
        name=row["name"],
        response=Action(row["response"]),
        created_by=row["created_by"],
        mark=None if row["mark"] is None else bytes(row["mark"]),
        **read_moments(row, _MOMENTS),
    )
