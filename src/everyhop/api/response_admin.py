# SPDX-License-Identifier: Apache-2.0
"""Blocks over HTTP, on ``admin.sock``: the owner's orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.routing import Route

from everyhop.api.http import read_message, reply
from everyhop.api.owner import actor_of
from everyhop.control.messages import BlockWish, UnblockWish

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from everyhop.control.response_orders import ResponseOrders
    from everyhop.control.service import ControlPlane

_MAX_BYTES: Final = 16 * 1024


def response_routes(control: ControlPlane) -> list[Route]:
    """Return the routes of the owner's door that are about blocks."""
    door = _ResponseDoor(control.orders)
    return [
        Route("/v1/blocks", door.listed, methods=["GET"]),
        Route("/v1/blocks", door.block, methods=["POST"]),
        Route("/v1/unblock", door.unblock, methods=["POST"]),
    ]


class _ResponseDoor:
    def __init__(self, orders: ResponseOrders) -> None:
        self._orders = orders

    async def listed(self, request: Request) -> Response:
        del request
        sequence = self._orders.responder.blocks.sequence
        return reply({"sequence": sequence, "blocks": self._orders.blocks()})

    async def block(self, request: Request) -> Response:
        wish = await read_message(request, BlockWish, max_bytes=_MAX_BYTES)
        return reply(await self._orders.block(wish, by=actor_of(request).name))

    async def unblock(self, request: Request) -> Response:
        wish = await read_message(request, UnblockWish, max_bytes=_MAX_BYTES)
        return reply(await self._orders.unblock(wish, by=actor_of(request).name))
