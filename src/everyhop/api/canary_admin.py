# SPDX-License-Identifier: Apache-2.0
"""What the owner may do with canaries on ``admin.sock``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.routing import Route

from everyhop.api.http import read_message, reply
from everyhop.control.messages import CanaryWish

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from everyhop.control.service import ControlPlane
    from everyhop.control.token_control import TokenControl

_MAX_BYTES: Final = 64 * 1024


def canary_routes(control: ControlPlane) -> list[Route]:
    """Return the routes of the owner's door that are about canaries."""
    door = _CanaryDoor(control.tokens)
    return [
        Route("/v1/canaries", door.list, methods=["GET"]),
        Route("/v1/canaries", door.create, methods=["POST"]),
        Route("/v1/canaries/{id}/end", door.end, methods=["POST"]),
    ]


class _CanaryDoor:
    def __init__(self, tokens: TokenControl) -> None:
        self._tokens = tokens

    async def list(self, request: Request) -> Response:
        del request
        return reply({"canaries": await self._tokens.list_canaries()})

    async def create(self, request: Request) -> Response:
        wish = await read_message(request, CanaryWish, max_bytes=_MAX_BYTES)
        return reply(await self._tokens.create_canary(wish), 201)

    async def end(self, request: Request) -> Response:
        return reply(await self._tokens.end_canary(request.path_params["id"]))
