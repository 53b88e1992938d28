# SPDX-License-Identifier: Apache-2.0
"""Orders: ASGI with Starlette, served by uvicorn, which finds ``$UVICORN_UDS`` by itself.

It is careless on purpose: whatever path or method reaches it is answered with 200.
"""

from __future__ import annotations

import asyncio
import json
import urllib.request

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, request_response


def _call(url: str, body: bytes | None, user: str | None = None) -> object:
    request = urllib.request.Request(url, data=body)  # noqa: S310  # addresses of ours only
    if user is not None:
        request.add_header("txn-token", user)
    with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310
        return json.load(reply)


async def anything(request: Request) -> Response:
    """Answer with what arrived; an order is paid for and announced on the way."""
    line = {
        "method": request.method,
        "path": request.scope["path"],
        "mark": request.headers.get("x-demo-mark"),
    }
    print(json.dumps(line), flush=True)
    answer: dict[str, object] = {
        "service": "orders",
        "caller": request.headers.get("x-everyhop-caller"),
        "user": request.headers.get("x-everyhop-user"),
        "operation": request.headers.get("x-everyhop-operation"),
        "saw": [[name, value] for name, value in request.headers.items()],
    }
    if request.method == "POST" and "x-demo-mark" not in request.headers:
        user = request.headers.get("txn-token")
        answer["next"] = await asyncio.to_thread(
            _call, "http://payments/v1/charges", b'{"cents": 1250}', user
        )
        answer["balance"] = await asyncio.to_thread(_call, "http://payments/v1/balance", None)
        answer["also"] = await asyncio.to_thread(_call, "http://notify/notifications", b'{"text": "paid"}')
    return JSONResponse(answer)


app = Starlette(routes=[Mount("/", app=request_response(anything))])
