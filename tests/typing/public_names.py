# SPDX-License-Identifier: Apache-2.0
"""Read by mypy, never run: what a program that uses everyhop may rely on about its types."""

import ssl
from typing import assert_type

import everyhop
from everyhop.authz import Resource
from everyhop.sdk import (
    Caller,
    Guard,
    Peer,
    Request,
    ServiceContext,
    User,
    Verified,
    Workload,
    aconnect,
    authorize,
    caller,
    carry,
    client_context,
    connect,
    outgoing_headers,
    peer_of,
    require,
    server_context,
    user,
    visible,
)

assert_type(everyhop.__version__, str)


def guarded(workload: Workload, request: Request) -> None:
    """What a middleware relies on."""
    assert_type(Guard(workload).check(request), Verified)
    assert_type(caller(), Caller | None)
    assert_type(user(), User | None)
    assert_type(require("list"), Verified)
    assert_type(authorize(resource={"owner": "ann"}, type="order"), Verified)
    assert_type(visible(type="order").allows(Resource(id="1")), bool)
    assert_type(outgoing_headers(), dict[str, str])
    assert_type(carry(len)("abc"), int)


def connected() -> None:
    """What a program with threads relies on."""
    with connect() as workload:
        assert_type(workload, Workload)
        assert_type(workload.context, ServiceContext)
        assert_type(workload.tokens.token("payments", "charge"), str)
        context: ssl.SSLContext = client_context(workload.x509, workload.spiffe_id)
        context = server_context(workload.x509, workload)
        assert_type(peer_of(context), Peer)


async def connected_async() -> None:
    """What an asyncio program relies on."""
    async with await aconnect() as workload:
        assert_type(await workload.tokens.atoken("payments"), str)
