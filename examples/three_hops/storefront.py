# SPDX-License-Identifier: Apache-2.0
"""The first hop, FastAPI: exchanges the user's token for a transaction token and asks orders on the user's behalf."""

from typing import Annotated

from fastapi import FastAPI, Header

from everyhop.integrations import own_workload
from everyhop.integrations.fastapi import Caller, protect
from everyhop.integrations.httpx import async_client
from everyhop.sdk import ID_TOKEN, on_behalf_of

app = FastAPI()
protect(app)
http = async_client()


@app.post("/checkout")
async def checkout(caller: Caller, authorization: Annotated[str, Header()]) -> list[str]:
    """Take an order of the user whose token of the OpenID provider is in ``Authorization``."""
    token = await own_workload().tokens.aexchange(authorization.removeprefix("Bearer "), ID_TOKEN)
    with on_behalf_of(own_workload(), token) as user:
        seen = f"storefront: {user} by {caller.service}"
        print(seen, flush=True)
        return [seen, *(await http.post("http://orders/orders")).raise_for_status().json()]
