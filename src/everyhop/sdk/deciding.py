# SPDX-License-Identifier: Apache-2.0
"""Deciding in the application itself, by the rules of the service context and the engine that everybody uses.

Two uses: where no sidecar stands in front and facts of a call decide, and where rules say something of resources that
only the application knows.  The engine (and CEL with it) is loaded when the first such question is asked; a context
without such rules never loads it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import Unavailable
from everyhop.policy.facts import Context, User
from everyhop.policy.model import UserMode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from everyhop.authz import Engine, Filter
    from everyhop.core.decision import Decision
    from everyhop.policy.facts import Resource
    from everyhop.sdk.context import CallerRule, OperationContext, ServiceContext
    from everyhop.sdk.model import Request
    from everyhop.tokens.transaction import TxnToken

    Note = Callable[[bool, str, str, str | None, str], None]


SOURCE_HEADER: Final = b"x-everyhop-source"


class Deciding:
    """The rules of one context, as an engine from their first use.  Safe to share between threads."""

    def __init__(self, context: ServiceContext, before: Deciding | None = None) -> None:
        """Begin with a context; an engine that was made of the same rules is kept."""
        self.service: Final = context.service
        self.rules: Final = context.rules
        self.operations: Final = {operation.name: operation for operation in context.operations}
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        if before is not None and before.rules == self.rules:
            self._engine = before._engine  # noqa: SLF001  # one of ours

    @property
    def engine(self) -> Engine | None:
        """Return the engine; None for a context without such rules.  Unavailable for rules that do not read."""
        if self.rules is None:
            return None
        if self._engine is None:
            from everyhop.authz import Engine
            from everyhop.core.errors import InputError
            from everyhop.policy.codec import decode_snapshot

            with self._lock:
                if self._engine is None:
                    try:
                        self._engine = Engine(decode_snapshot(self.rules.policy))
                    except InputError as error:
                        raise Unavailable(f"the rules of the context: {error.message}") from error
        return self._engine

    @property
    def headers(self) -> tuple[str, ...]:
        """Return the names of the header fields that conditions may read."""
        engine = self.engine
        return () if engine is None else engine.snapshot.attributes.headers

    def rule_id(self, decision: Decision) -> str | None:
        """Return the id of the rule that decided, as the whole policy has it."""
        if decision.rule is None or self.rules is None:
            return None
        return self.rules.ids.get(decision.rule, decision.rule)

    def believes_user(self, decision: Decision) -> bool:
        """Tell whether the rule that allowed a call is about users: else its user's claims are not believed."""
        engine = self.engine
        rule = None if engine is None else engine.rule(decision.rule or "")
        return rule is None or rule.user is not UserMode.NONE


@dataclass(slots=True)
class Facts:
    """What one call may be decided by, as long as it is served; ``note`` records decisions.

    ``owes`` tells that the application has yet to check a resource.  It may be used from several threads.
    """

    deciding: Deciding
    caller: str
    operation: OperationContext
    request: Request
    person: User | None
    now: datetime
    note: Note
    owes: bool = field(default=False)

    @classmethod
    def of(
        cls,
        deciding: Deciding,
        request: Request,
        operation: OperationContext,
        caller: str,
        token: TxnToken | None,
        now: datetime,
        note: Note,
    ) -> Facts:
        """Take what is verified of a call."""
        person = None if token is None else _user_of(token)
        return cls(deciding, caller, operation, request, person, now, note, operation.leaves_resource)

    def decide(self, operation: str | None = None, resource: Resource | None = None) -> Decision | None:
        """Return the decision of the context's rules; None where it has none.

        For another operation than the one being served there is no path to read: a condition that does is an error.
        """
        engine = self.deciding.engine
        if engine is None:
            return None
        name, method, path = self._door(operation)
        return engine.decide_door(
            caller=self.caller,
            target=self.deciding.service,
            door=name,
            context=replace(self._context(), resource=resource),
            method=method,
            path=path,
        )

    def filter(self, operation: str | None, resource_type: str | None) -> Filter | None:
        """Return which resources of a type the call may be about; None where the context has no rules."""
        engine = self.deciding.engine
        if engine is None:
            return None
        from everyhop.authz import filter_resources

        name, method, path = self._door(operation)
        return filter_resources(
            engine,
            caller=self.caller,
            target=self.deciding.service,
            operation=name,
            context=self._context(),
            resource_type=resource_type,
            method=method,
            path=path,
        )

    def plainly(self, operation: str | None) -> CallerRule | None:
        """Return why the caller may use an operation whatever the facts are; None where it may not."""
        found = self.deciding.operations.get(operation or self.operation.name)
        return None if found is None else found.callers.get(self.caller)

    def _door(self, operation: str | None) -> tuple[str, str | None, str | None]:
        if operation is not None and operation != self.operation.name:
            return operation, None, None
        raw, query = self.request.raw_path, self.request.query
        if query and b"?" not in raw:
            raw += b"?" + query
        return self.operation.name, self.request.method, raw.decode("latin-1")

    def _source(self) -> str | None:
        """Return the address of the peer: of this connection, or as the own sidecar says it."""
        if not self.request.via_sidecar:
            return self.request.source_ip
        stated = [value for name, value in self.request.headers if name.lower() == SOURCE_HEADER]
        return stated[0].decode("latin-1") if len(stated) == 1 else None

    def _context(self) -> Context:
        return Context(
            now=self.now,
            user=self.person,
            headers=_chosen(self.request, self.deciding.headers),
            source_ip=self._source(),
        )


def _chosen(request: Request, names: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    """Return the chosen headers; bytes that are no UTF-8 make the whole field one without a single value."""
    found: dict[str, list[bytes]] = {}
    for name, value in request.headers:
        key = name.lower().decode("latin-1")
        if key in names:
            found.setdefault(key, []).append(value.strip(b" \t"))
    return MappingProxyType({name: _texts(values) for name, values in found.items()})


def _texts(values: list[bytes]) -> tuple[str, ...]:
    try:
        return tuple(value.decode("utf-8") for value in values)
    except UnicodeDecodeError:
        return ("", "")


def _user_of(token: TxnToken) -> User:
    """Return the user of a verified transaction token, as a sidecar's agent sees it."""
    known = token.context
    auth_time, amr = known.get("auth_time"), known.get("amr")
    return User(
        id=token.subject,
        issuer=token.idp,
        roles=token.roles,
        amr=None if amr is None else tuple(amr),
        acr=known.get("acr"),
        auth_time=None if auth_time is None else datetime.fromtimestamp(auth_time, UTC),
    )
