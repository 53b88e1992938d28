# SPDX-License-Identifier: Apache-2.0
"""The second hop, FastAPI: knows the user from the transaction token and the caller from its certificate."""

from fastapi import FastAPI

from everyhop.integrations.fastapi import Caller, User, protect, require
from everyhop.integrations.httpx import async_client

app = FastAPI()
protect(app)
http = async_client()


@app.post("/orders", dependencies=[require("create")])
async def create(caller: Caller, user: User) -> list[str]:
    """Create an order and have it charged, for the same user."""
    seen = f"orders: {user} by {caller.service}"
    print(seen, flush=True)
    return [seen, *(await http.post("http://billing/charges")).raise_for_status().json()]
