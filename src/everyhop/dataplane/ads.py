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
from functools import partial
from typing import TYPE_CHECKING, Final

from everyhop.agent.changes import Changes
from everyhop.dataplane import _names as names
from everyhop.dataplane._resources import type_url
from everyhop.dataplane.configuration import CLUSTER, ENDPOINTS, FILTER, LISTENER, ROUTES
from everyhop.dataplane.lanes import secrets_of_cluster
from everyhop.wire.envoy_config import DeltaDiscoveryRequest, DeltaDiscoveryResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from everyhop.dataplane.configuration import Configuration
    from everyhop.dataplane.ports import Launches
    from everyhop.wire.rpc import Call

log = logging.getLogger(__name__)

_MAX_SHOWN: Final = 500
_WILDCARD: Final = frozenset({CLUSTER, LISTENER})
_ENABLING: Final = type_url("envoy.config.route.v3.FilterConfig").encode()
# What is withdrawn is refused first; nothing refers to what is not there yet, or not there any more.
_ORDER: Final = (FILTER, CLUSTER, ENDPOINTS, LISTENER, ROUTES)
# Those that block, and the program that remembers: whatever it is, a verdict of another policy makes it ask.
_IN_FRONT: Final = frozenset({names.BLOCKED, names.EDGE_BLOCKED, names.EGRESS_BLOCKED, names.MEMORY})
_REMOVAL_ORDER: Final = (LISTENER, CLUSTER)
# How long routes wait until new clusters that carry tokens can be used; then a policy is more urgent.
_WARMING_SECONDS: Final = 3.0
# How long such a cluster lives on without a route: a call may wait for its token with the old route in its hand.
_LINGER_SECONDS: Final = 5.0


def _has_its_filters(stream: _Stream) -> bool:
    """Tell whether every filter was sent: Envoy asks for each by itself, those in front of the policy's first.

    A sidecar that is shut asks for none.
    """
    if stream.pushed is None:
        return False
    if not (stream.pushed.of(LISTENER) or stream.pushed.of(CLUSTER)):
        return True
    asked = stream.subscriptions.get(FILTER)
    return asked is not None and stream.pushed.of(FILTER).keys() <= asked.sent.keys()


def _seconds_until_first(moments: Mapping[str, float]) -> float | None:
    """Return how long it is until the first of some moments of the loop's clock, None when there is none."""
    return max(0.0, min(moments.values()) - asyncio.get_running_loop().time()) if moments else None


def _enables_checks(configuration: Configuration) -> bool:
    """Tell whether the routes of the ingress have calls checked behind the policy's filter."""
    routes = configuration.of(ROUTES).get(names.INGRESS)
    return routes is not None and _ENABLING in routes.content


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
    unconfirmed: dict[str, str] = field(default_factory=dict)
    """Nonce and type of what Envoy has not answered."""
    pushed: Configuration | None = None
    refused: set[str] = field(default_factory=set)
    """Types of which Envoy has rejected something of this configuration."""
    before: int = 0
    """The last nonce of the configuration before: what Envoy says of that one counts no more."""
    has_new_clusters: bool = False
    """A changed cluster waits for its endpoints, changed or not, and also when they are asked for only later."""
    delivered: str = ""
    delivered_blocks: int = 0
    retired: dict[str, float] = field(default_factory=dict)
    """Clusters that carry tokens and have no route any more, with the moment from which on they may go."""


class ConfigDiscovery:
    """Hands each sidecar its configuration, and knows which one it has taken over.  One event loop."""

    def __init__(
        self,
        launches: Launches,
        changes: Changes,
        has_secret: Callable[[str, str], bool] = lambda _instance, _secret: True,
    ) -> None:
        """Serve sidecars; ``has_secret`` tells whether an instance holds a secret by name."""
        self._launches = launches
        self._changes = changes
        self._has_secret = has_secret
        self._published: dict[str, Configuration] = {}
        self._news: dict[str, Changes] = {}
        self._progress: dict[str, Changes] = {}
        self._enforced: dict[str, str] = {}
        self._blocks: dict[str, int] = {}

    def published(self, instance: str) -> Configuration | None:
        """Return the configuration last published for a sidecar."""
        return self._published.get(instance)

    def publish(self, instance: str, configuration: Configuration) -> None:
        """Put a configuration in force at a sidecar, now or when it connects."""
        if self._published.get(instance) != configuration:
            self._published[instance] = configuration
            self._wake(instance)

    def keep_only(self, instances: Collection[str]) -> None:
        """Forget the sidecars that are not among ``instances``."""
        for instance in self._published.keys() - set(instances):
            del self._published[instance]
            self._news.pop(instance, None)
            self._progress.pop(instance, None)
            self._enforced.pop(instance, None)
            self._blocks.pop(instance, None)

    def look_again(self, instance: str) -> None:
        """Note that a sidecar has confirmed a secret, for which something may be waiting."""
        self._progress.setdefault(instance, Changes()).bump()

    def enforced(self, instance: str) -> str | None:
        """Return the hash of the policy that a sidecar has confirmed to enforce, None before the first."""
        return self._enforced.get(instance)

    def blocks(self, instance: str) -> int:
        """Return the number of the blocks that a sidecar has confirmed to enforce, 0 before the first."""
        return self._blocks.get(instance, 0)

    async def stream(self, call: Call[DeltaDiscoveryRequest, DeltaDiscoveryResponse]) -> None:
        """Serve one DeltaAggregatedResources call until either side ends it.

        Raises AttestationError for a peer that is no sidecar (any more).
        """
        request = await call.receive_first()
        if request is None:
            return
        stream = _Stream(call, request.node.id)
        self._launches.check_sidecar(call.peer, stream.instance)
        await call.converse(request, partial(self._take, stream), self._push_changes(stream))

    def _of(self, instance: str) -> Changes:
        return self._news.setdefault(instance, Changes())

    def _wake(self, instance: str) -> None:
        self._of(instance).bump()
        self.look_again(instance)

    def _take(self, stream: _Stream, request: DeltaDiscoveryRequest) -> None:
        """Note what a request subscribes to, confirms or rejects."""
        kind = request.type_url
        subscription = stream.subscriptions.get(kind)
        is_new = subscription is None
        if subscription is None:
            everything = kind in _WILDCARD and not request.resource_names_subscribe
            subscription = stream.subscriptions[kind] = _Subscription(None if everything else set())
            subscription.sent.update(request.initial_resource_versions)
        asked = set(request.resource_names_subscribe)
        if kind in _WILDCARD and "*" in asked:
            subscription.wanted = None
        if subscription.wanted is not None:
            subscription.wanted |= asked
            subscription.wanted -= set(request.resource_names_unsubscribe)
        # A name that is asked for (again) is answered even if it was sent before: something waits for it.
        held = set() if kind == ENDPOINTS and stream.has_new_clusters else request.initial_resource_versions
        subscription.again |= asked - set(held)
        for name in request.resource_names_unsubscribe:
            subscription.sent.pop(name, None)
        self._confirm(stream, request)
        if asked or is_new:
            self._wake(stream.instance)

    def _confirm(self, stream: _Stream, request: DeltaDiscoveryRequest) -> None:
        if not request.response_nonce:
            return
        sent = stream.unconfirmed.pop(request.response_nonce, None)
        if request.HasField("error_detail"):
            if sent is not None and int(request.response_nonce) > stream.before:
                stream.delivered = ""
                stream.refused.add(sent)
            log.error(
                "sidecar %s rejects its %s: %s",
                stream.instance,
                request.type_url.rpartition(".")[2],
                request.error_detail.message[:_MAX_SHOWN],
            )
        self.look_again(stream.instance)
        self._note_enforced(stream)

    def _note_enforced(self, stream: _Stream) -> None:
        """Note the policy once everything that was sent is confirmed and all filters are among it."""
        if not stream.delivered or stream.unconfirmed or not _has_its_filters(stream):
            return
        news = (stream.delivered, stream.delivered_blocks)
        if (self._enforced.get(stream.instance), self._blocks.get(stream.instance)) != news:
            self._enforced[stream.instance], self._blocks[stream.instance] = news
            self._changes.bump()

    async def _push_changes(self, stream: _Stream) -> None:
        while True:
            news = self._of(stream.instance)
            version = news.version
            configuration = self._published.get(stream.instance)
            if configuration is not None:
                self._launches.check_sidecar(stream.call.peer, stream.instance)
                await self._push(stream, configuration)
            with suppress(TimeoutError):
                async with asyncio.timeout(_seconds_until_first(stream.retired)):
                    await news.beyond(version)

    async def _push(self, stream: _Stream, configuration: Configuration) -> None:
        if configuration is not stream.pushed:
            stream.pushed = configuration
            stream.refused.clear()
            stream.before = stream.nonce
        # Whom to refuse waits for nothing: neither for the order of a new policy nor for its tokens.
        await self._send(
            stream, FILTER, configuration, removed=[], without=self._others(stream, configuration)
        )
        if _enables_checks(configuration):
            # What the new filters leave to the checks must not pass before the checks are there.
            await self._send(stream, ROUTES, configuration, removed=[], without={names.EGRESS})
            if not await self._is_taken(stream, ROUTES, configuration):
                return
        for kind in _ORDER:
            if kind == LISTENER:
                # Nor must the checks go before the filters that leave something to them.
                if not await self._is_taken(stream, FILTER, configuration):
                    return
                # What arrives is checked by the new policy at once; only what leaves may have to wait.
                await self._send(stream, ROUTES, configuration, removed=[], without={names.EGRESS})
                if not await self._is_warm(stream, configuration):
                    return  # there is a newer configuration
            sent = await self._send(stream, kind, configuration, removed=[])
            if kind == CLUSTER and sent:
                stream.has_new_clusters = True
                endpoints = stream.subscriptions.get(ENDPOINTS)
                if endpoints is not None and endpoints.wanted is not None:
                    endpoints.again |= endpoints.wanted
        for kind in _REMOVAL_ORDER:
            gone = self._gone(stream, kind, configuration)
            if gone:
                await self._send(stream, kind, configuration, removed=gone)
        stream.delivered = "" if stream.refused else configuration.label
        stream.delivered_blocks = configuration.blocks
        self._note_enforced(stream)

    def _others(self, stream: _Stream, configuration: Configuration) -> Collection[str]:
        """Return the filters that wait for their turn: all but those in front, and all of a sidecar that starts.

        One that waits for its first filters gets them together.
        """
        held = configuration.of(FILTER).keys()
        started = FILTER in stream.subscriptions and stream.subscriptions[FILTER].sent
        return held - _IN_FRONT if started else held

    def _gone(self, stream: _Stream, kind: str, configuration: Configuration) -> list[str]:
        """Return what is to be withdrawn now."""
        subscription = stream.subscriptions.get(kind)
        if subscription is None:
            return []
        gone = [name for name in subscription.sent if name not in configuration.of(kind)]
        if kind != CLUSTER:
            return gone
        now = asyncio.get_running_loop().time()
        carrying = {name for name in gone if secrets_of_cluster(name)}
        stream.retired = {name: stream.retired.get(name, now + _LINGER_SECONDS) for name in carrying}
        due = {name for name, moment in stream.retired.items() if moment <= now}
        for name in due:
            del stream.retired[name]
        return [name for name in gone if name not in carrying or name in due]

    async def _is_taken(self, stream: _Stream, kind: str, configuration: Configuration) -> bool:
        """Wait for Envoy's answer to what was sent of one type; tell whether it took it and it is still wanted.

        Filters and route tables are only safe together: Envoy takes each by itself, and may reject one of them.
        """
        progress = self._progress.setdefault(stream.instance, Changes())
        while True:
            version = progress.version
            if self._published.get(stream.instance) is not configuration:
                return False
            if kind not in stream.unconfirmed.values():
                return kind not in stream.refused
            await progress.beyond(version)

    async def _is_warm(self, stream: _Stream, configuration: Configuration) -> bool:
        """Wait until every cluster that carries tokens can be used; tell whether to go on with this configuration.

        Envoy starts to use a cluster once it has its endpoints and secrets, and says of a route to one that is not
        there yet that there is no such service.  While it starts, it waits by itself.
        """
        needed = {secret for name in configuration.of(CLUSTER) for secret in secrets_of_cluster(name)}
        if not needed or ROUTES not in stream.subscriptions:
            return True
        progress = self._progress.setdefault(stream.instance, Changes())
        try:
            async with asyncio.timeout(_WARMING_SECONDS):
                while True:
                    version = progress.version
                    if self._published.get(stream.instance) is not configuration:
                        return False
                    await self._send(stream, ENDPOINTS, configuration, removed=[])
                    confirmed = ENDPOINTS in stream.subscriptions and not stream.unconfirmed
                    if confirmed and all(self._has_secret(stream.instance, s) for s in needed):
                        return True
                    await progress.beyond(version)
        except TimeoutError:
            log.warning("sidecar %s does not take over its certificate or tokens", stream.instance)
            return True

    async def _send(
        self,
        stream: _Stream,
        kind: str,
        configuration: Configuration,
        *,
        removed: list[str],
        without: Collection[str] = (),
    ) -> bool:
        """Send what is wanted of one type and differs from what was sent; tell whether there was any."""
        subscription = stream.subscriptions.get(kind)
        if subscription is None:
            return False
        held = configuration.of(kind)
        wanted = held.keys() if subscription.wanted is None else subscription.wanted & held.keys()
        response = DeltaDiscoveryResponse(type_url=kind, system_version_info=configuration.label)
        for name in sorted(wanted - set(without)):
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
        stream.unconfirmed[response.nonce] = kind
        await stream.call.send(response)
        return True
