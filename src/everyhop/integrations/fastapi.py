# SPDX-License-Identifier: Apache-2.0
"""FastAPI: the verified caller and user as parameters, and the security scheme in the OpenAPI document.

    app = FastAPI()
    protect(app)

    @app.get("/orders", dependencies=[require("list")])
    def orders(caller: Caller, user: User): ...

:func:`protect` installs the middleware, which checks every request, those without such parameters too.  FastAPI reads
a body before it asks dependencies, so dependencies alone would parse what strangers send.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from everyhop.integrations._missing import needs
from everyhop.integrations.asgi import EveryhopMiddleware
from everyhop.sdk import current, require as _require
from everyhop.sdk.model import Caller as _Caller, Refusal, User as _User, Verified

with needs("fastapi"):
    from fastapi import Request, Response, Security
    from fastapi.openapi.models import HTTPBearer
    from fastapi.security.base import SecurityBase

if TYPE_CHECKING:
    from fastapi import FastAPI

    from everyhop.integrations._arrival import Checks

__all__ = ["Caller", "MaybeUser", "User", "protect", "require"]


def protect(
    app: FastAPI, guard: Checks | None = None, *, prefix: str = "", sidecar_socket: str | None = None
) -> None:
    """Serve ``app`` to verified calls only.  Call it after every other ``add_middleware``.

    The arguments are those of :class:`everyhop.integrations.asgi.EveryhopMiddleware`.
    """
    app.add_middleware(EveryhopMiddleware, guard=guard, prefix=prefix, sidecar_socket=sidecar_socket)
    app.add_exception_handler(Refusal, _answer)


class _Scheme(SecurityBase):
    """What the OpenAPI document says of a protected operation; the check itself is the middleware's."""

    def __init__(self) -> None:
        self.model = HTTPBearer(
            bearerFormat="JWT",
            description="An access token of the trust domain, bound to the caller's certificate (mutual TLS).",
        )
        self.scheme_name = "everyhop"

    async def __call__(self, request: Request) -> Verified:  # noqa: ARG002  # FastAPI's signature
        verified = current()
        if verified is None:
            raise Refusal(403, "ACCESS_DENIED", "no verified call here: protect(app) is missing")
        return verified


_SCHEME = _Scheme()


async def _caller(verified: Annotated[Verified, Security(_SCHEME)]) -> _Caller:
    return verified.caller


async def _maybe_user(verified: Annotated[Verified, Security(_SCHEME)]) -> _User | None:
    return verified.user


async def _user(verified: Annotated[Verified, Security(_SCHEME)]) -> _User:
    if verified.user is None:
        raise verified.refusal(
            401,
            "USER_REQUIRED",
            "user-required",
            "the function asks for a user",
            challenge='Bearer realm="everyhop"',
        )
    return verified.user


Caller = Annotated[_Caller, Security(_caller)]
"""The verified caller, as the type of a parameter."""
User = Annotated[_User, Security(_user)]
"""The verified user; a call without one is refused with 401."""
MaybeUser = Annotated[_User | None, Security(_maybe_user)]
"""The verified user, or None."""


def require(*operations: str) -> Any:
    """Return a dependency that lets only these operations through, whatever route leads to the function.

    For ``dependencies=[require("create")]``, or ``Annotated[Verified, require("create")]`` as a type.
    """

    async def required(_verified: Annotated[Verified, Security(_SCHEME)]) -> Verified:
        return _require(*operations)

    # Resolved here: FastAPI cannot see the names of this function's annotations.
    required.__annotations__ = {"_verified": Annotated[Verified, Security(_SCHEME)], "return": Verified}
    return Security(required)


async def _answer(_request: Request, error: Exception) -> Response:
    if not isinstance(error, Refusal):
        raise error
    return Response(error.body, error.status, headers=dict(error.headers))
