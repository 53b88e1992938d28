# SPDX-License-Identifier: Apache-2.0
"""Audit events in the making: what is known of an action, and how it is handed on."""

from __future__ import annotations

import asyncio
import inspect
import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast

from everyhop.core.errors import EveryhopError
from everyhop.integrations._outlet import Outlet
from everyhop.sdk import current
from everyhop.sdk.events import AuditEvent
from everyhop.sdk.model import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    Resource = tuple[str, object] | str | None

P = ParamSpec("P")
R = TypeVar("R")

DEADLINE_SECONDS: Final = 2.0
DENIED: Final = frozenset({401, 403, 429})
"""Statuses that mean that somebody was refused, and not that something failed."""
_FIRST_ERROR: Final = 400


@dataclass(slots=True)
class Described:
    """What is known of the request being served; its handler adds to it from whatever thread it runs in."""

    action: str | None = None
    resource: Resource = None
    metadata: dict[str, object] = field(default_factory=dict)
    outcome: str | None = None


_DESCRIBED: Final[ContextVar[Described | None]] = ContextVar("everyhop_audit", default=None)


class Audit:
    """A way to the audit log; the functions of this module use one of the process's own workload."""

    def __init__(self, outlet: Outlet | None = None, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        """``deadline_seconds`` is how long an action that must be recorded waits for the agent."""
        self._outlet = outlet or Outlet()
        self.deadline_seconds: Final = deadline_seconds

    def record(
        self,
        action: str,
        *,
        resource: Resource = None,
        outcome: str = "success",
        required: bool = False,
        **metadata: object,
    ) -> None:
        """Record something that was done, or is about to be done.

        ``resource`` is (type, id) or a type; ``metadata`` a few scalars.  With ``required`` it waits until the event is
        on the node's disk, in a thread that may block, and raises Refusal (503) where the agent does not take it.
        """
        event = AuditEvent.now(action, resource=resource, outcome=outcome, metadata=metadata)
        if required:
            self.demand(event)
        else:
            self._outlet.put(event)

    async def record_first(
        self, action: str, *, resource: Resource = None, outcome: str = "attempt", **metadata: object
    ) -> None:
        """Do the same as ``record(required=True)`` in an event loop, before the action: an ``attempt``."""
        await self.demand_async(AuditEvent.now(action, resource=resource, outcome=outcome, metadata=metadata))

    def put(self, event: AuditEvent) -> None:
        """Hand an event on in the background; never blocks and never raises."""
        self._outlet.put(event)

    def demand(self, event: AuditEvent) -> None:
        """Wait until an event is on the node's disk; raises Refusal (503) where it is not in time."""
        taken = self._outlet.submit(event)
        try:
            taken.result(self.deadline_seconds)
        except (EveryhopError, TimeoutError) as error:
            raise _refused(error) from error

    async def demand_async(self, event: AuditEvent) -> None:
        """Do the same without blocking the event loop."""
        taken: Future[None] = self._outlet.submit(event)
        try:
            async with asyncio.timeout(self.deadline_seconds):
                await asyncio.wrap_future(taken)
        except (EveryhopError, TimeoutError) as error:
            raise _refused(error) from error

    def audited(
        self, action: str | None = None, *, resource: str | None = None, required: bool = False
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Return a decorator that records each call of a function: success, or failure and denied by what it raises.

        ``action`` defaults to the function's name.  Exceptions pass through.  The function may add to the event with
        :func:`describe`.
        """

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            name = action or function.__name__
            if inspect.iscoroutinefunction(function):

                @wraps(function)
                async def recorded_async(*arguments: P.args, **named: P.kwargs) -> Any:
                    if required:
                        await self.demand_async(AuditEvent.now(name, outcome="attempt", resource=resource))
                    with self._watching(name, resource):
                        return await function(*arguments, **named)

                return cast("Callable[P, R]", recorded_async)

            @wraps(function)
            def recorded(*arguments: P.args, **named: P.kwargs) -> R:
                if required:
                    self.demand(AuditEvent.now(name, outcome="attempt", resource=resource))
                with self._watching(name, resource):
                    return function(*arguments, **named)

            return recorded

        return decorate

    @contextmanager
    def _watching(self, action: str, resource: Resource) -> Iterator[None]:
        begun = time.monotonic()
        outcome, failure = "success", None
        with described(Described(action=action, resource=resource)) as said:
            try:
                yield
            except BaseException as error:
                outcome, failure = outcome_of_error(error), type(error).__name__
                raise
            finally:
                self.put(event_of(said, action, outcome, begun=begun, failure=failure))


@contextmanager
def described(said: Described) -> Iterator[Described]:
    """Make ``said`` what :func:`describe` adds to."""
    before = _DESCRIBED.get()
    _DESCRIBED.set(said)
    try:
        yield said
    finally:
        # Not by a token: a generator may be closed in another context, where a token is not valid.
        _DESCRIBED.set(before)


def describe(
    action: str | None = None, *, resource: Resource = None, outcome: str | None = None, **metadata: object
) -> None:
    """Say what the request being served is; without one, nothing happens."""
    said = _DESCRIBED.get()
    if said is None:
        return
    said.action = action or said.action
    said.resource = said.resource if resource is None else resource
    said.outcome = outcome or said.outcome
    said.metadata.update(metadata)


def event_of(  # what an event says
    said: Described,
    action: str,
    outcome: str,
    *,
    begun: float,
    failure: str | None = None,
    method: str | None = None,
    route: str | None = None,
    status: int | None = None,
) -> AuditEvent:
    """Return the event of a request or call that has ended; never raises."""
    metadata = dict(said.metadata) | ({} if failure is None else {"exception": failure})
    make = partial(
        AuditEvent.now,
        outcome=said.outcome if said.outcome in {"success", "failure", "denied"} else outcome,
        method=method,
        route=route,
        status=status,
        duration_ms=(time.monotonic() - begun) * 1000,
    )
    try:
        return make(said.action or action, resource=said.resource, metadata=metadata)
    except Exception:  # noqa: BLE001  # what a handler said is no reason to break its answer
        return make(action, metadata={"unreadable": True})


def outcome_of_status(status: int) -> str:
    """Return what a status says came of a request."""
    if status in DENIED:
        return "denied"
    return "success" if status < _FIRST_ERROR else "failure"


def outcome_of_error(error: BaseException) -> str:
    """Return what an exception says came of a call: a refusal of the SDK is ``denied``."""
    if isinstance(error, Refusal):
        return outcome_of_status(error.status)
    return "failure"


def action_of(method: str, route: str | None) -> str:
    """Return how a request is called that nobody has named: the policy's operation, else method and route."""
    verified = current()
    if verified is not None:
        return verified.operation
    return method if route is None else f"{method} {route}"


def _refused(error: BaseException) -> Refusal:
    why = error.message if isinstance(error, EveryhopError) else "the agent did not answer in time"
    code = "AUDIT_UNAVAILABLE"
    verified = current()
    if verified is None:
        return Refusal(503, code, f"not recorded, so not done: {why}")
    return verified.refusal(503, code, "audit-unavailable", f"not recorded, so not done: {why}")
