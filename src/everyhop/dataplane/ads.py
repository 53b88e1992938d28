# SPDX-License-Identifier: Apache-2.0
"""Configuration for sidecars: Envoy's aggregated discovery service (incremental) on the agent's Unix socket.

Files could be watched by Envoy itself, but each watch costs an inotify instance, of which a user has 128: a
dozen sidecars would use them up (docs/adr/0010).  Over this stream the number of sidecars has no such limit,
changes arrive in an order that we choose, and Envoy confirms or rejects each one.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from everyhop.agent.changes import Changes
from everyhop.dataplane.configuration import CLUSTER, ENDPOINTS, FILTER, LISTENER, ROUTES
from everyhop.wire.envoy_config import DeltaDiscoveryRequest, DeltaDiscoveryResponse

if TYPE_CHECKING:
    from collections.abc import Collection

    from everyhop.dataplane.configuration import Configuration
    from everyhop.dataplane.ports import Launches
    from everyhop.wire.rpc import Call

log = logging.getLogger(__name__)

_FIRST_REQUEST_SECONDS: Final = 10.0
_MAX_SHOWN: Final = 500
_WILDCARD: Final = frozenset({CLUSTER, LISTENER})
# What is withdrawn is refused first; nothing refers to what is not there yet, or not there any more.
_ORDER: Final = (FILTER, CLUSTER, ENDPOINTS, LISTENER, ROUTES)
_REMOVAL_ORDER: Final = (LISTENER, CLUSTER)


@dataclass(slots=True)
class _Subscription:
    """One type on one stream: which names are wanted (None: all), and which version of each was sent."""

    wanted: set[str] | None
    sent: dict[str, str] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Stream:
    """One Envoy."""

    call: Call[DeltaDiscoveryRequest, DeltaDiscoveryResponse]
    instance: str
    subscriptions: dict[str, _Subscription] = field(default_factory=dict)
    nonce: int = 0
    unconfirmed: set[str] = field(default_factory=set)
    delivered: str = ""


class ConfigDiscovery:
    """Hands each sidecar its configuration, and knows which one it has taken over.  One event loop."""

    def __init__(self, launches: Launches, changes: Changes) -> None:
        self._launches = launches
        self._changes = changes
        self._published: dict[str, Configuration] = {}
        self._news: dict[str, Changes] = {}
        self._enforced: dict[str, str] = {}

    def published(self, instance: str) -> Configuration | None:
        """Return the configuration last published for a sidecar."""
        return self._published.get(instance)

    def publish(self, instance: str, configuration: Configuration) -> None:
        """Put a configuration in force at a sidecar, now or when it connects."""
        if self._published.get(instance) != configuration:
            self._published[instance] = configuration
            self._of(instance).bump()

    def keep_only(self, instances: Collection[str]) -> None:
        """Forget the sidecars that are not among ``instances``."""
        for instance in self._published.keys() - set(instances):
            del self._published[instance]
            self._news.pop(instance, None)
            self._enforced.pop(instance, None)

    def enforced(self, instance: str) -> str | None:
        """Return the hash of the policy that a sidecar has confirmed to enforce, None before the first."""
        return self._enforced.get(instance)

    async def stream(self, call: Call[DeltaDiscoveryRequest, DeltaDiscoveryResponse]) -> None:
        """Serve one DeltaAggregatedResources call until either side ends it.

        Raises AttestationError for a peer that is no sidecar (any more).
        """
        async with asyncio.timeout(_FIRST_REQUEST_SECONDS):
            request = await call.receive()
        if request is None:
            return
        stream = _Stream(call, request.node.id)
        self._launches.check_sidecar(call.peer, stream.instance)
        pushing = asyncio.ensure_future(self._push_changes(stream))
        try:
            while request is not None:
                self._take(stream, request)
                request = await call.receive_unless(pushing)
        finally:
            pushing.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await pushing

    def _of(self, instance: str) -> Changes:
        return self._news.setdefault(instance, Changes())

    def _take(self, stream: _Stream, request: DeltaDiscoveryRequest) -> None:
        """Note what a request subscribes to, confirms or rejects."""
        kind = request.type_url
        subscription = stream.subscriptions.get(kind)
        is_new = subscription is None
        if subscription is None:
            everything = kind in _WILDCARD and not request.resource_names_subscribe
            subscription = stream.subscriptions[kind] = _Subscription(None if everything else set())
            subscription.sent.update(request.initial_resource_versions)
        names = set(request.resource_names_subscribe)
        if kind in _WILDCARD and "*" in names:
            subscription.wanted = None
        if subscription.wanted is not None:
            subscription.wanted |= names
            subscription.wanted -= set(request.resource_names_unsubscribe)
        # A name that is asked for (again) is answered even if it was sent before: something waits for it.
        subscription.again |= names - set(request.initial_resource_versions)
        for name in request.resource_names_unsubscribe:
            subscription.sent.pop(name, None)
        self._confirm(stream, request)
        if names or is_new:
            self._of(stream.instance).bump()

    def _confirm(self, stream: _Stream, request: DeltaDiscoveryRequest) -> None:
        if not request.response_nonce:
            return
        stream.unconfirmed.discard(request.response_nonce)
        if request.HasField("error_detail"):
            stream.delivered = ""
            log.error(
                "sidecar %s rejects its %s: %s",
                stream.instance,
                request.type_url.rpartition(".")[2],
                request.error_detail.message[:_MAX_SHOWN],
            )
        self._note_enforced(stream)

    def _note_enforced(self, stream: _Stream) -> None:
        """Note the policy once everything that was sent is confirmed and the filters are among it."""
        complete = stream.delivered and not stream.unconfirmed and FILTER in stream.subscriptions
        if complete and self._enforced.get(stream.instance) != stream.delivered:
            self._enforced[stream.instance] = stream.delivered
            self._changes.bump()

    async def _push_changes(self, stream: _Stream) -> None:
        while True:
            news = self._of(stream.instance)
            version = news.version
            configuration = self._published.get(stream.instance)
            if configuration is not None:
                self._launches.check_sidecar(stream.call.peer, stream.instance)
                await self._push(stream, configuration)
            await news.beyond(version)

    async def _push(self, stream: _Stream, configuration: Configuration) -> None:
        for kind in _ORDER:
            sent = await self._send(stream, kind, configuration, removed=[])
            endpoints = stream.subscriptions.get(ENDPOINTS)
            if kind == CLUSTER and sent and endpoints is not None and endpoints.wanted is not None:
                endpoints.again |= (
                    endpoints.wanted
                )  # a changed cluster waits for its endpoints, changed or not
        for kind in _REMOVAL_ORDER:
            subscription = stream.subscriptions.get(kind)
            if subscription is not None:
                gone = [name for name in subscription.sent if name not in configuration.of(kind)]
                if gone:
                    await self._send(stream, kind, configuration, removed=gone)
        stream.delivered = configuration.label
        self._note_enforced(stream)

    async def _send(
        self, stream: _Stream, kind: str, configuration: Configuration, *, removed: list[str]
    ) -> bool:
        """Send what is wanted of one type and differs from what was sent; tell whether there was any."""
        subscription = stream.subscriptions.get(kind)
        if subscription is None:
            return False
        held = configuration.of(kind)
        names = held.keys() if subscription.wanted is None else subscription.wanted & held.keys()
        response = DeltaDiscoveryResponse(type_url=kind, system_version_info=configuration.label)
        for name in sorted(names):
            resource = held[name]
            if subscription.sent.get(name) == resource.version and name not in subscription.again:
                continue
            entry = response.resources.add(name=name, version=resource.version)
            entry.resource.type_url = kind
            entry.resource.value = resource.content
            subscription.sent[name] = resource.version
            subscription.again.discard(name)
        for name in removed:
            response.removed_resources.append(name)
            del subscription.sent[name]
        if not (response.resources or response.removed_resources):
            return False
        stream.nonce += 1
        response.nonce = str(stream.nonce)
        stream.unconfirmed.add(response.nonce)
        await stream.call.send(response)
        return True
