# SPDX-License-Identifier: Apache-2.0
"""What the owner may ask about the log's key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.routing import Route

from everyhop.api.http import read_message, reply
from everyhop.core.errors import Unavailable

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from everyhop.control.service import ControlPlane


class KeyRotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether the older keys are to end instead."""

    retire: bool = False


def log_key_routes(control: ControlPlane) -> list[Route]:
    """Return the routes of the owner's door."""

    async def rotate(request: Request) -> Response:
        message = await read_message(request, KeyRotation, max_bytes=4096)
        if control.log_keys is None:
            raise Unavailable("this server has no log of its own")
        return reply({"vkeys": await control.log_keys.rotate(retire=message.retire)})

    return [Route("/v1/log/rotate-key", rotate, methods=["POST"])]
