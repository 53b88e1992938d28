# SPDX-License-Identifier: Apache-2.0
"""What the owner may ask about tokens on ``admin.sock``: signing keys, revocation, introspection, API keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from starlette.routing import Route

from everyhop.api.http import read_message, reply
from everyhop.control.messages import ApiKeyRotation, ApiKeyWish, RevokeRequest, SigningRotation, TokenText

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from everyhop.control.service import ControlPlane
    from everyhop.control.token_control import TokenControl

_MAX_BYTES: Final = 256 * 1024


def token_routes(control: ControlPlane) -> list[Route]:
    """Return the routes of the owner's door that are about tokens."""
    door = _TokenDoor(control.tokens)
    return [
        Route("/v1/token-truth", door.truth),
        Route("/v1/tokens/introspect", door.introspect, methods=["POST"]),
        Route("/v1/tokens/revoke", door.revoke, methods=["POST"]),
        Route("/v1/signing-keys", door.keys),
        Route("/v1/signing-keys/rotate", door.rotate, methods=["POST"]),
        Route("/v1/signing-keys/{kid}", door.revoke_key, methods=["DELETE"]),
        Route("/v1/api-keys", door.api_keys, methods=["GET"]),
        Route("/v1/api-keys", door.create_api_key, methods=["POST"]),
        Route("/v1/api-keys/{lookup}/rotate", door.rotate_api_key, methods=["POST"]),
        Route("/v1/api-keys/{lookup}", door.revoke_api_key, methods=["DELETE"]),
    ]


class _TokenDoor:
    def __init__(self, tokens: TokenControl) -> None:
        self._tokens = tokens

    async def truth(self, request: Request) -> Response:
        del request
        return reply(msgspec.Raw((await self._tokens.truth())[0]))

    async def introspect(self, request: Request) -> Response:
        message = await read_message(request, TokenText, max_bytes=_MAX_BYTES)
        return reply(await self._tokens.introspect(message.token))

    async def revoke(self, request: Request) -> Response:
        return reply(
            await self._tokens.revoke(await read_message(request, RevokeRequest, max_bytes=_MAX_BYTES))
        )

    async def keys(self, request: Request) -> Response:
        del request
        return reply({"signing_keys": await self._tokens.signing_keys()})

    async def rotate(self, request: Request) -> Response:
        message = await read_message(request, SigningRotation, max_bytes=_MAX_BYTES)
        keys = await self._tokens.rotate(wait_seconds=message.timeout, now=message.now)
        return reply({"signing_keys": keys})

    async def revoke_key(self, request: Request) -> Response:
        return reply({"signing_keys": await self._tokens.revoke_key(request.path_params["kid"])})

    async def api_keys(self, request: Request) -> Response:
        return reply({"api_keys": await self._tokens.list_api_keys(request.query_params.get("owner"))})

    async def create_api_key(self, request: Request) -> Response:
        wish = await read_message(request, ApiKeyWish, max_bytes=_MAX_BYTES)
        return reply(await self._tokens.create_api_key(wish), 201)

    async def rotate_api_key(self, request: Request) -> Response:
        message = await read_message(request, ApiKeyRotation, max_bytes=_MAX_BYTES)
        lookup = request.path_params["lookup"]
        return reply(await self._tokens.rotate_api_key(lookup, message.overlap_seconds), 201)

    async def revoke_api_key(self, request: Request) -> Response:
        return reply(await self._tokens.revoke_api_key(request.path_params["lookup"]))
