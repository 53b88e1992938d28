# SPDX-License-Identifier: Apache-2.0
"""What every client side needs to know: which calls are ours, what they carry, and where they go.

Behind a sidecar the egress opens TLS and attaches the token; the client only passes user and trace on.  Without
one the client does all of it.  Either way nothing is sent to a host that is not a service this workload may call.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from everyhop.core.errors import AccessDenied, SettingsError, Unavailable
from everyhop.integrations._workload import own_workload
from everyhop.sdk import outgoing_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from everyhop.sdk.context import Target
    from everyhop.sdk.tls import RotatingContext
    from everyhop.sdk.workload import Workload
    from everyhop.spiffe.ids import SpiffeId

EGRESS_VARIABLE: Final = "EVERYHOP_EGRESS"
_SIDECAR_VARIABLES: Final = (EGRESS_VARIABLE, "EVERYHOP_SOCKET")
ENDPOINTS_VARIABLE: Final = "EVERYHOP_ENDPOINTS"
_POOLS_PER_TARGET: Final = 2  # of the certificate in use and of the one before, whose calls may still run

_PLACE: Final = re.compile(r"\S+:\d{1,5}", re.ASCII)

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Carried:
    """What one call carries; ``token`` is the access token among the headers, ``x5t`` the certificate it goes with."""

    headers: Mapping[str, str] = field(repr=False)
    token: str | None = field(default=None, repr=False)
    x5t: str | None = None


class Outgoing:
    """Calls to other services.  ``sidecar`` defaults to what the environment says."""

    def __init__(self, workload: Workload | None = None, *, sidecar: bool | None = None) -> None:
        self._given: Final = workload
        self.is_sidecar: Final = (
            any(os.environ.get(name) for name in _SIDECAR_VARIABLES) if sidecar is None else sidecar
        )

    @property
    def workload(self) -> Workload:
        """Return the workload given, or the process's own; the first use may wait for it."""
        return self._given or own_workload()

    async def ready(self) -> None:
        """Wait for the workload without holding the event loop up."""
        if self._given is None:
            await asyncio.to_thread(own_workload)

    @property
    def egress_socket(self) -> str:
        """Return the Unix socket of the sidecar's egress; Unavailable when the environment names none."""
        path = os.environ.get(EGRESS_VARIABLE)
        if not path:
            raise Unavailable(f"${EGRESS_VARIABLE} is not set", hint="start with `everyhop run`", retry=False)
        return path

    def target(self, host: str) -> Target | None:
        """Return the service that a host name means (``payments``, ``payments.shop.example``), or None."""
        context = self.workload.context
        name = host.rstrip(".").lower()
        return context.targets.get(name) or context.targets.get(
            name.removesuffix(f".{context.trust_domain.name}")
        )

    def demand(self, host: str) -> Target:
        """Return the service that a host name means; AccessDenied when the policy names none for this workload."""
        found = self.target(host)
        if found is None:
            raise AccessDenied(
                f"{host[:100]!r} is no service that this workload may call",
                hint="use another client for other hosts: nothing of the trust domain is sent there",
            )
        return found

    def carried(self, target: str, method: str, path: bytes | str) -> Carried:
        """Return what a call of ``METHOD path`` carries.

        Raises AccessDenied where the policy opens no such operation, Unavailable without a token.
        """
        headers = outgoing_headers()
        if self.is_sidecar:
            return Carried(headers)
        x5t = self.workload.x509.svid.x5t
        return _with_token(headers, self.workload.tokens.for_call(target, method, path, x5t=x5t), x5t)

    async def acarried(self, target: str, method: str, path: bytes | str) -> Carried:
        """Do the same for asyncio."""
        headers = outgoing_headers()
        if self.is_sidecar:
            return Carried(headers)
        x5t = self.workload.x509.svid.x5t
        token = await self.workload.tokens.afor_call(target, method, path, x5t=x5t)
        return _with_token(headers, token, x5t)

    def is_stale(self, carried: Carried, status: int, challenges: str) -> bool:
        """Tell whether a call is worth one more try with a fresh token (RFC 6750 section 3.1), and drop the old one.

        True once a token was shown and called invalid: it was revoked, its key or certificate rotated, or a clock
        is behind.
        """
        if carried.token is None or status != 401 or 'error="invalid_token"' not in challenges:  # noqa: PLR2004  # Unauthorized
            return False
        self.workload.tokens.refused(carried.token)
        return True

    def tls_context(self, target: Target) -> RotatingContext:
        """Return a TLS context that shows the certificate of this moment, and accepts the service and nobody else."""
        from everyhop.sdk.tls import client_context

        return client_context(self.workload.x509, target.spiffe_id, rotating=False)


def endpoints(target: Target, turn: int) -> list[tuple[str, int]]:
    """Return where a service listens, beginning with another place each turn; Unavailable when nowhere.

    Agents know where sidecars listen.  A service without one is found by ``$EVERYHOP_ENDPOINTS``
    (``orders=127.0.0.1:9001,billing=…``); whoever listens there has to be the service, or no byte is sent.
    """
    places = [*target.ingress, *_named_places(target.name)]
    if not places:
        raise Unavailable(
            f"no instance of {target.name} is ready", hint=f"${ENDPOINTS_VARIABLE} can name one"
        )
    found = [place.rpartition(":") for place in places]
    turn %= len(found)
    return [(host.strip("[]"), int(port)) for host, _, port in (*found[turn:], *found[:turn])]


def _named_places(name: str) -> list[str]:
    pairs = (entry.strip().partition("=") for entry in os.environ.get(ENDPOINTS_VARIABLE, "").split(","))
    found = [place for service, _, place in pairs if service == name]
    if not all(_PLACE.fullmatch(place) for place in found):
        raise SettingsError(f"${ENDPOINTS_VARIABLE}: {name} is not at HOST:PORT")
    return found


class Pools(Generic[P]):
    """Connection pools of one client, one for each service and certificate.

    So a token and the connection that carries it are of the same certificate.
    """

    def __init__(self, make: Callable[[Target], P], close: Callable[[P], None]) -> None:
        self._make: Final = make
        self._close: Final = close
        self._lock: Final = threading.Lock()
        self._pools: dict[str, dict[tuple[str | None, SpiffeId], P]] = {}
        self._turns: Final = itertools.count()

    def turn(self) -> int:
        """Return a number that grows with each call."""
        return next(self._turns)

    def get(self, target: Target, x5t: str | None) -> P:
        """Return the pool for calls to ``target`` with the certificate ``x5t``; what was superseded twice is closed."""
        key = (x5t, target.spiffe_id)
        with self._lock:
            held = self._pools.setdefault(target.name, {})
            pool = held.get(key)
            if pool is not None:
                return pool
            pool = held[key] = self._make(target)
            old = [held.pop(one) for one in list(held)[:-_POOLS_PER_TARGET]]
        for one in old:
            self._close(one)
        return pool

    def take_all(self) -> list[P]:
        """Return every pool, and hold none from now on."""
        with self._lock:
            found = [pool for held in self._pools.values() for pool in held.values()]
            self._pools.clear()
        return found


def _with_token(headers: dict[str, str], token: str | None, x5t: str) -> Carried:
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return Carried(headers, token, x5t)
