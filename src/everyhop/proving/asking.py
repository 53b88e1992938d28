# SPDX-License-Identifier: Apache-2.0
"""From a door and a caller to a request as it is sent."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from everyhop.evaluators.model import Request, Wire
from everyhop.policy.model import Protocol, TokenMode
from everyhop.proving.callers import Population
from everyhop.proving.model import Ask, TokenState
from everyhop.proving.tokens import token_of
from everyhop.proving.variations import plain_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.evaluators.model import Token
    from everyhop.proving.model import Caller
    from everyhop.targets.intents import Door, Intents, ServiceIntents
    from everyhop.targets.model import Feature

WIRES: Final = MappingProxyType(
    {Protocol.HTTP: Wire.HTTP, Protocol.GRPC: Wire.GRPC, Protocol.WEBSOCKET: Wire.WEBSOCKET}
)
"""What is spoken for each protocol of the policy."""

_HEADERS: Final = MappingProxyType(
    {
        Wire.GRPC: {"content-type": ("application/grpc",), "te": ("trailers",)},
        Wire.WEBSOCKET: {"connection": ("upgrade",), "upgrade": ("websocket",)},
    }
)
_TOKEN_WORDS: Final = {TokenState.NONE: "without a token", TokenState.GOOD: "a good token"}


class Asking:
    """Makes requests; ``population`` is everybody who can be asked for."""

    def __init__(self, intents: Intents) -> None:
        self._intents = intents
        self.population: Final = Population(intents)

    def ask(
        self,
        service: ServiceIntents,
        door: Door,
        caller: Caller,
        *,
        aspect: Feature,
        variation: str = "",
        rank: int = 0,
        port: int | None = None,
        wire: Wire | None = None,
        method: str | None = None,
        path: str | None = None,
        token: TokenState | None = None,
        is_body_valid: bool = True,
    ) -> Ask:
        """Return a plain call of a door, but for what is given; with the token that it needs unless one is given."""
        operation = door.operation
        if wire is None:
            wire = Wire.TCP if operation is None else WIRES[operation.protocol]
        if token is None:
            asks = operation is not None and operation.token is not TokenMode.NONE
            token = TokenState.GOOD if asks and wire is not Wire.TCP else TokenState.NONE
        elif not variation:
            variation = _TOKEN_WORDS.get(token, f"a token {token.value}")
        if operation is None or wire is Wire.TCP:
            method, path, carried = "", "", None
        else:
            method = operation.route.method if method is None else method
            path = plain_path(operation.route) if path is None else path
            carried = token_of(token, operation, service.name, caller, self._intents)
        return Ask(
            caller=caller,
            service=service.name,
            door=door.name,
            request=self.request(service, caller, wire, method, path, port=port, token=carried),
            aspect=aspect,
            operation=operation,
            variation=variation,
            rank=rank,
            token=token,
            is_body_valid=is_body_valid,
        )

    def request(
        self,
        service: ServiceIntents,
        caller: Caller,
        wire: Wire,
        method: str,
        path: str,
        *,
        port: int | None = None,
        token: Token | None = None,
        headers: Mapping[str, tuple[str, ...]] | None = None,
    ) -> Request:
        """Return a request to a service."""
        own = _HEADERS.get(wire)
        found = own or {}
        return Request(
            source=caller.workload,
            target=self.population.workload(service.name),
            port=service.port if port is None else port,
            peer=caller.peer,
            wire=wire,
            method=method,
            path=path,
            host="" if wire is Wire.TCP else self._host(service),
            headers={**found, **headers} if headers else found,
            token=token,
        )

    def _host(self, service: ServiceIntents) -> str:
        return f"{service.name}.{service.place.namespace}.svc.{self._intents.settings.cluster_domain}"
