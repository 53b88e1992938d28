# SPDX-License-Identifier: Apache-2.0
"""The server's side of its face: an SVID of its own, the socket that hands it over, the socket that answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from everyhop.agent import IdentityCache
from everyhop.agent.changes import Changes
from everyhop.api.http import http_server, serve_until_stopped
from everyhop.auditlog.sealing import SealKey
from everyhop.control.messages import SignX509Result
from everyhop.core.errors import Unavailable
from everyhop.dataplane.face_secrets import FaceProcess, FaceSecrets, face_secrets_server
from everyhop.runtime.face import face_address
from everyhop.runtime.face_address import SERVER_PATH, certificate_names
from everyhop.runtime.system import SystemClock, SystemEntropy
from everyhop.spiffe import SpiffeId
from everyhop.spiffe.bundle import decode_bundle
from everyhop.wire.sockets import UnixListener
from everyhop.x509.keys import decode_private_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from concurrent.futures import Executor

    from starlette.applications import Starlette

    from everyhop.agent.ports import JwtResult
    from everyhop.authority import Authority
    from everyhop.control.feed import Feed, Truth
    from everyhop.runtime.layout import StateLayout
    from everyhop.runtime.settings import Settings
    from everyhop.spiffe import TrustDomain

_log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 2.0


def server_id(trust_domain: TrustDomain) -> SpiffeId:
    """Return the identity of the server's face."""
    return SpiffeId.parse(f"spiffe://{trust_domain}{SERVER_PATH}")


class _OwnAuthority:
    """The authority as :class:`IdentityCache` asks for signatures; it signs one identity and no other."""

    def __init__(self, authority: Authority, hosts: tuple[str, ...], pool: Executor) -> None:
        self._authority = authority
        self._hosts = hosts
        self._pool = pool

    async def sign_x509(self, requests: list[tuple[str, bytes]]) -> list[SignX509Result]:
        """Sign the server's own SVID, with the names under which it is reached."""
        own = server_id(self._authority.trust_domain)
        loop = asyncio.get_running_loop()
        results = []
        for spiffe_id, csr in requests:
            assert spiffe_id == str(own)  # noqa: S101  # nobody else holds on to this cache
            issue = partial(self._authority.issue_x509, own, csr, hosts=self._hosts)
            issued = await loop.run_in_executor(self._pool, issue)
            results.append(
                SignX509Result(
                    chain=list(issued.chain_der), expires_at=issued.expires_at, authority=issued.authority_id
                )
            )
        return results

    async def sign_jwt(self, spiffe_id: str, audience: tuple[str, ...]) -> JwtResult:
        """Refuse: the face needs no JWT-SVID."""
        raise Unavailable(f"no JWT-SVID of {spiffe_id} for {audience}", retry=False)


async def _follow(feed: Feed, identities: IdentityCache, trust_domain: TrustDomain) -> None:
    """Hand every bundle over as it is published, with the authority that signs now."""
    known: Truth | None = None
    while True:
        truth = await feed.wait_beyond(known, _LOOK_SECONDS)
        if truth is not None and truth is not known:
            known = truth
            identities.apply_bundle(decode_bundle(trust_domain, truth.bundle), truth.authority)


async def _hand_over(
    identities: IdentityCache, own: SpiffeId, seal_with: Callable[[SealKey], None] | None, pool: Executor
) -> None:
    """Give each new SVID of the server to whoever signs its records."""
    chain: tuple[bytes, ...] = ()
    while seal_with is not None:
        version = identities.changes.version
        identity = identities.current(own)
        if identity is not None and identity.chain != chain:
            key = SealKey.of(identity.chain, decode_private_key(identity.key), identity.expires_at)
            try:
                await asyncio.get_running_loop().run_in_executor(pool, seal_with, key)
                chain = identity.chain
            except Unavailable as error:  # the database; what waits is signed with the next record
                _log.warning("the server's first seal waits", extra={"reason": error.message})
        await identities.changes.beyond(version)


@contextlib.asynccontextmanager
async def face_service(
    app: Starlette,
    *,
    authority: Authority,
    feed: Feed,
    layout: StateLayout,
    settings: Settings,
    pool: Executor,
    process: FaceProcess | None = None,
    seal_with: Callable[[SealKey], None] | None = None,
) -> AsyncIterator[FaceSecrets]:
    """Serve the face for as long as the block lasts: its secrets on one socket, ``app`` on another.

    Both sockets answer only the face that our own supervisor has started.  ``seal_with`` is given the key of each SVID
    of the server, to sign its records with.
    """
    process = process or FaceProcess.sibling()
    changes = Changes()
    hosts = certificate_names(face_address(layout, settings), settings.api_names)
    identities = IdentityCache(
        control=_OwnAuthority(authority, hosts, pool),
        clock=SystemClock(),
        entropy=SystemEntropy(),
        changes=changes,
    )
    secrets = FaceSecrets(
        process=process,
        spiffe_id=server_id(authority.trust_domain),
        identities=identities,
        changes=changes,
    )
    feed.add_verifier("the server's face", lambda: secrets.acknowledged_bundle)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(identities.hold(server_id(authority.trust_domain)))
        sds = stack.enter_context(contextlib.closing(UnixListener.bind(layout.face_socket, mode=0o600)))
        door = stack.enter_context(contextlib.closing(UnixListener.bind(layout.oauth_socket, mode=0o600)))
        secrets_server = face_secrets_server(secrets)
        await secrets_server.start(sds)
        stack.push_async_callback(secrets_server.close)
        server = http_server(app, admit=process.check)
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(_follow(feed, identities, authority.trust_domain)),
                group.create_task(identities.run()),
                group.create_task(_hand_over(identities, server_id(authority.trust_domain), seal_with, pool)),
            ]
            serving = group.create_task(serve_until_stopped(server, door.sock))
            try:
                yield secrets
            finally:
                server.stop()
                for task in background:
                    task.cancel()
                await asyncio.wait([serving])
