# SPDX-License-Identifier: Apache-2.0
"""A workload whose own code refuses more than the policy does: with ``require``, and by a body's schema."""

import os

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from everyhop.integrations.asgi import EveryhopMiddleware
from everyhop.sdk import require


async def listed(_request):
    """Serve what the policy serves."""
    return PlainTextResponse("ok")


async def read(_request):
    """Serve nobody: no operation has this name."""
    require("audit\nx")
    return PlainTextResponse("never")


async def create(_request):
    """Serve a body that holds."""
    return PlainTextResponse("made")


app = Starlette(
    routes=[
        Route("/orders", listed),
        Route("/orders", create, methods=["POST"]),
        Route("/orders/{id}", read),
    ],
    middleware=[Middleware(EveryhopMiddleware)],
)

if __name__ == "__main__":
    uvicorn.run(app, uds=os.environ["EVERYHOP_SOCKET"], log_level="critical", lifespan="off")
