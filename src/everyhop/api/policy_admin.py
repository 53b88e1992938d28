# SPDX-License-Identifier: Apache-2.0
"""Changes of the policy over HTTP: plan, replay, apply and approve; and the door for those who may only approve."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from starlette.routing import Route

from everyhop.api.http import make_app, read_message, reply
from everyhop.api.owner import Replays, actor_of, policy_bytes
from everyhop.authz.difference import describe, render
from everyhop.control.policy_changes import HeldError
from everyhop.control.replaying import Span, replay

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from everyhop.control.service import ControlPlane

MAX_POLICY_BYTES: Final = 64 * 1024 * 1024
_MAX_BYTES: Final = 4096


class PolicyText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Policy files by the name to show in errors.

    ``apply`` puts them in force until the source changes; ``accept`` is the hash of the policy that was looked at, where it
    lets more in, and ``base`` that of the policy it was compared with.
    """

    files: dict[str, str]
    source: str = "policy"
    apply: bool = False
    accept: str | None = None
    base: str | None = None


class ReplayWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A candidate, and which decisions to replay: since a moment (aware), or the last so many."""

    files: dict[str, str]
    since: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    last: Annotated[int, msgspec.Meta(ge=1, le=10**9)] | None = None


class Chosen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The hash of a policy that waits, or at least its first 16 digits."""

    hash: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{1,64}\Z")]


def policy_routes(control: ControlPlane) -> list[Route]:
    """Return the routes of the owner's door that are about changes of the policy."""
    door = _PolicyDoor(control)
    return [
        Route("/v1/policy", door.apply, methods=["POST"]),
        Route("/v1/policy/plan", door.plan, methods=["POST"]),
        Route("/v1/policy/replay", door.replay, methods=["POST"]),
        *door.approvals(),
    ]


class ApprovalDoor:
    """The door for approvers, who own nothing here: what waits, yes and no."""

    def __init__(self, control: ControlPlane) -> None:
        self._door = _PolicyDoor(control)

    def app(self) -> Starlette:
        """Return the ASGI app of the approval socket."""
        return make_app(self._door.approvals())


class _PolicyDoor:
    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        self._replays = Replays()

    def approvals(self) -> list[Route]:
        return [
            Route("/v1/policy/pending", self.pending, methods=["GET"]),
            Route("/v1/policy/approve", self.approve, methods=["POST"]),
            Route("/v1/policy/refuse", self.refuse, methods=["POST"]),
        ]

    async def apply(self, request: Request) -> Response:
        message = await read_message(request, PolicyText, max_bytes=MAX_POLICY_BYTES)
        files = policy_bytes(message.files)
        if not message.apply:
            snapshot = await self._control.check_policy(files)
            return reply({"snapshot": snapshot.hash, "applied": False})
        try:
            snapshot = await self._control.apply_policy(
                files,
                source=message.source,
                actor=actor_of(request),
                accept=message.accept,
                base=message.base,
            )
        except HeldError as held:
            pending = await self._control.pending_policy()
            return reply(
                {
                    "snapshot": self._control.snapshot.hash,
                    "applied": False,
                    "pending": None if pending is None else pending["snapshot"],
                    "detail": held.message,
                },
                status=202,
            )
        return reply({"snapshot": snapshot.hash, "applied": True})

    async def plan(self, request: Request) -> Response:
        message = await read_message(request, PolicyText, max_bytes=MAX_POLICY_BYTES)
        plan = await self._control.plan_policy(policy_bytes(message.files))
        lines = [{"mark": mark.value, "line": line} for mark, line in render(plan)]
        return reply({"plan": describe(plan), "lines": lines, "rules": self._control.change_rules()})

    async def replay(self, request: Request) -> Response:
        message = await read_message(request, ReplayWish, max_bytes=MAX_POLICY_BYTES)
        candidate = await self._control.check_policy(policy_bytes(message.files))
        self._replays.check_free()
        span = Span(since=message.since, last=message.last)
        steps = replay(self._control.log.query, self._control.snapshot, candidate, span)
        return self._replays.answer(steps)

    async def pending(self, request: Request) -> Response:
        del request
        return reply({"pending": await self._control.pending_policy()})

    async def approve(self, request: Request) -> Response:
        message = await read_message(request, Chosen, max_bytes=_MAX_BYTES)
        snapshot = await self._control.approve_policy(message.hash, actor=actor_of(request))
        return reply({"snapshot": snapshot.hash, "applied": True})

    async def refuse(self, request: Request) -> Response:
        message = await read_message(request, Chosen, max_bytes=_MAX_BYTES)
        await self._control.refuse_pending(message.hash, actor=actor_of(request))
        return reply({"refused": message.hash})
