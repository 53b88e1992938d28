# SPDX-License-Identifier: Apache-2.0
"""What a workload may have of tokens: its own, for its own certificates, and the context that it decides by."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from everyhop.agent import TokenWish
from everyhop.anomaly.model import Blocks
from everyhop.control.contexts import ServiceContexts
from everyhop.control.messages import ExchangeTokenRequest
from everyhop.control.sidecars import endpoints_of
from everyhop.core.errors import AccessDenied, InputError, NotFound
from everyhop.policy.model import TokenMode

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from everyhop.agent import IdentityCache, LaunchRegistry, ServiceToken, ServiceTokens, WorkloadService
    from everyhop.control.credentials import Exchanger
    from everyhop.control.messages import ExchangeTokenResponse
    from everyhop.control.token_truth import TokenTruth
    from everyhop.policy.model import Service, Snapshot
    from everyhop.wire.peers import PeerInfo

MAX_SCOPES: Final = 256
MAX_NAME: Final = 256
MAX_TOKEN: Final = 64 * 1024
_X5T_LENGTH: Final = 43


class WorkloadTokens:
    """Answers workloads about tokens.  All use is from one event loop."""

    def __init__(
        self,
        *,
        workloads: WorkloadService,
        identities: IdentityCache,
        launches: LaunchRegistry,
        tokens: ServiceTokens,
        exchanger: Exchanger,
        truth: TokenTruth,
        blocks: Callable[[], Blocks] = Blocks,
    ) -> None:
        self._workloads = workloads
        self._identities = identities
        self._launches = launches
        self._tokens = tokens
        self._exchanger = exchanger
        self._truth = truth
        self._blocks = blocks
        self._contexts = ServiceContexts()

    async def mint(
        self,
        peer: PeerInfo,
        *,
        target: str,
        operation: str,
        scope: Sequence[str],
        x5t: str,
        spiffe_id: str = "",
    ) -> ServiceToken:
        """Return a token for a call of the peer's own service, bound to a certificate that was issued to it.

        A token for an operation of single use is fresh each time.  Raises InputError, AccessDenied (an identity
        or a certificate of somebody else, or beyond the policy), NotFound for a target that is not declared.
        """
        _check_names(target, operation, scope)
        service = await self._workloads.service_of(peer, spiffe_id)
        self._check_certificate(service, x5t)
        wish, once = self._wish(service, target, operation, frozenset(scope), x5t)
        return await (self._tokens.once(wish) if once else self._tokens.token(wish))

    async def exchange(
        self, peer: PeerInfo, request: ExchangeTokenRequest, *, spiffe_id: str = ""
    ) -> ExchangeTokenResponse:
        """Exchange a token that the peer has received; ``request`` names neither agent nor identity yet.

        Raises as :meth:`mint`, and TokenError when the subject token is not believed.
        """
        _check_names(request.target or "", request.operation or "", request.scope or [])
        if not request.subject_token or len(request.subject_token) > MAX_TOKEN:
            raise InputError("a subject token is mandatory, and has at most 64 KiB")
        service = await self._workloads.service_of(peer, spiffe_id)
        if request.x5t is not None:
            self._check_certificate(service, request.x5t)
        return await self._exchanger.exchange(
            ExchangeTokenRequest(
                agent=self._exchanger.agent,
                spiffe_id=str(service.spiffe_id),
                subject_token=request.subject_token,
                subject_token_type=request.subject_token_type,
                requested_token_type=request.requested_token_type,
                target=request.target,
                operation=request.operation,
                scope=request.scope,
                x5t=request.x5t,
            )
        )

    async def watch_context(self, peer: PeerInfo, spiffe_id: str = "") -> AsyncGenerator[bytes]:
        """Yield the service context, at once and whenever policy, keys, revocations or endpoints change.

        Raises AccessDenied when the peer has no identity (any more).
        """
        grounds: object = None
        async with aclosing(self._workloads.watch_service(peer, spiffe_id)) as watch:
            async for service in watch:
                snapshot, endpoints = self._workloads.snapshot, endpoints_of(self._launches.live())
                if snapshot is None or not self._truth.sequence:
                    continue
                blocks = self._blocks()
                fresh = (snapshot.hash, service.name, self._truth.epoch, endpoints, blocks.sequence)
                if fresh != grounds:
                    grounds = fresh
                    yield self._contexts.document(
                        snapshot, service.name, self._truth.document, endpoints, blocks
                    )

    def _check_certificate(self, service: Service, x5t: str) -> None:
        if len(x5t) != _X5T_LENGTH or not self._identities.issued(service.spiffe_id, x5t):
            raise AccessDenied(f"no valid certificate of {service.name} has this thumbprint")

    def _wish(
        self, service: Service, target: str, operation: str, scope: frozenset[str], x5t: str
    ) -> tuple[TokenWish, bool]:
        """Return what to ask for, and whether each token is good for one call."""
        declared = _operations(self._workloads.snapshot, target)
        named = declared.get(operation)
        if operation and named is None:
            raise NotFound(f"{target} has no operation {operation!r}")
        narrow = None if named is None else operation
        if named is not None and named[0] is TokenMode.SERVICE:
            narrow, scope = None, scope or frozenset({f"{target}.{operation}"})
        opened = {name.removeprefix(f"{target}.") for name in scope} | ({operation} if operation else set())
        once = any(name in declared and declared[name][1] for name in opened)
        wish = TokenWish(
            spiffe_id=service.spiffe_id, target=target, operation=narrow, x5t=x5t, scope=scope or None
        )
        return wish, once


def _operations(snapshot: Snapshot | None, target: str) -> dict[str, tuple[TokenMode, bool]]:
    service = None if snapshot is None else snapshot.services.get(target)
    if service is None:
        raise NotFound(f"no service {target!r} in the policy in force")
    return {operation.name: (operation.token, operation.once) for operation in service.operations}


def _check_names(target: str, operation: str, scope: Sequence[str]) -> None:
    if len(scope) > MAX_SCOPES or any(len(text) > MAX_NAME for text in (target, operation, *scope)):
        raise InputError(f"at most {MAX_SCOPES} scopes, and names of at most {MAX_NAME} characters")
