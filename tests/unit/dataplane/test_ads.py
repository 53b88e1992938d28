# SPDX-License-Identifier: Apache-2.0
import asyncio
import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
from grpclib.client import Channel, StreamStreamMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from everyhop.agent import Changes
from everyhop.core.errors import AttestationError
from everyhop.dataplane import ads
from everyhop.dataplane._resources import type_url
from everyhop.dataplane.ads import ConfigDiscovery
from everyhop.dataplane.configuration import (
    CLUSTER,
    ENDPOINTS,
    FILTER,
    LISTENER,
    ROUTES,
    Configuration,
    Resource,
    load_configuration,
)
from everyhop.dataplane.files import write_files
from everyhop.dataplane.render import render_sidecar
from everyhop.wire.envoy_config import (
    DELTA_RESOURCES,
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    Node,
    Status as Detail,
)
from everyhop.wire.rpc import Cardinality, Method, Service
from everyhop.wire.sockets import UnixListener
from everyhop.wire.transport import PeerServer

SECONDS = 5


def configuration(label, **kinds):
    """Each keyword is a kind (CLUSTER=...) with {name: content}."""
    urls = {
        "clusters": CLUSTER,
        "endpoints": ENDPOINTS,
        "listeners": LISTENER,
        "routes": ROUTES,
        "filters": FILTER,
    }
    resources = {
        urls[kind]: {name: Resource(f"v-{content.decode()}", content) for name, content in entries.items()}
        for kind, entries in kinds.items()
    }
    return Configuration(label=label, resources=resources)


class Envoy:
    """One stream as Envoy would open it."""

    def __init__(self, stream):
        self.stream = stream
        self.first = True

    async def subscribe(self, kind, *names, known=None, unsubscribe=()):
        request = DeltaDiscoveryRequest(
            type_url=kind,
            resource_names_subscribe=names,
            resource_names_unsubscribe=unsubscribe,
            initial_resource_versions=known or {},
        )
        if self.first:
            request.node.CopyFrom(Node(id="i1"))
            self.first = False
        await self.stream.send_message(request)

    async def receive(self):
        async with asyncio.timeout(SECONDS):
            return await self.stream.recv_message()

    async def answer(self, response, *, error=None):
        request = DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        if error:
            request.error_detail.CopyFrom(Detail(code=13, message=error))
        await self.stream.send_message(request)

    async def take(self, kind):
        """Receive one response of a kind and confirm it; return {name: content} and the removed names."""
        response = await self.receive()
        assert response.type_url == kind
        assert all(r.resource.type_url == kind for r in response.resources)
        await self.answer(response)
        return {r.name: r.resource.value for r in response.resources}, list(response.removed_resources)

    async def nothing(self):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await self.stream.recv_message()


class Agent:
    def __init__(self, directory):
        self.directory = directory
        self.launches = {"i1"}

    def check_sidecar(self, peer, instance):
        if instance not in self.launches:
            raise AttestationError("no such launch")
        return SimpleNamespace(service="orders")

    async def __aenter__(self):
        self.changes = Changes()
        self.secrets = set()
        self.configs = ConfigDiscovery(
            self, self.changes, lambda instance, secret: (instance, secret) in self.secrets
        )
        method = Method(
            path=DELTA_RESOURCES,
            cardinality=Cardinality.STREAM_STREAM,
            request=DeltaDiscoveryRequest,
            reply=DeltaDiscoveryResponse,
            handler=self.configs.stream,
        )
        self.server = PeerServer([Service([method])])
        self.listener = UnixListener.bind(self.directory / "a.sock", mode=0o600)
        await self.server.start(self.listener)
        self.channel = Channel(path=str(self.directory / "a.sock"))
        return self

    async def __aexit__(self, *exc_info):
        self.channel.close()
        await self.server.close()
        self.listener.close()

    def open(self):
        method = StreamStreamMethod(
            self.channel, DELTA_RESOURCES, DeltaDiscoveryRequest, DeltaDiscoveryResponse
        )
        return method.open()


@pytest.fixture
async def agent(tmp_path):
    async with Agent(tmp_path) as agent:
        yield agent


async def until(condition):
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110  # many conditions, none with an event of its own
            await asyncio.sleep(0.01)


async def test_a_peer_that_is_no_sidecar(agent):
    agent.launches.clear()
    agent.configs.publish("i1", configuration("h", clusters={"a": b"1"}))
    with pytest.raises(GRPCError) as caught:
        async with agent.open() as stream:
            envoy = Envoy(stream)
            await envoy.subscribe(CLUSTER)
            await envoy.receive()
            await stream.recv_trailing_metadata()
    assert caught.value.status is Status.PERMISSION_DENIED


async def test_the_stream_ends_when_the_launch_does(agent):
    agent.configs.publish("i1", configuration("h", clusters={"a": b"1"}))
    with pytest.raises(GRPCError) as caught:
        async with agent.open() as stream:
            envoy = Envoy(stream)
            await envoy.subscribe(CLUSTER)
            await envoy.take(CLUSTER)
            agent.launches.clear()
            agent.configs.publish("i1", configuration("h", clusters={"a": b"2"}))
            await envoy.receive()
            await stream.recv_trailing_metadata()
    assert caught.value.status is Status.PERMISSION_DENIED


async def test_nothing_before_there_is_a_configuration(agent):
    async with agent.open() as stream:
        envoy = Envoy(stream)
        await envoy.subscribe(LISTENER)
        await envoy.nothing()
        agent.configs.publish("i1", configuration("h", listeners={"in": b"1"}))
        assert await envoy.take(LISTENER) == ({"in": b"1"}, [])
        await stream.end()


async def test_only_its_own(agent):
    agent.configs.publish("i2", configuration("h", listeners={"in": b"secret"}))
    async with agent.open() as stream:
        envoy = Envoy(stream)
        await envoy.subscribe(LISTENER)
        await envoy.nothing()
        await stream.end()


async def test_everything_first_and_then_only_what_changed(agent):
    agent.configs.publish("i1", configuration("h1", clusters={"a": b"1", "b": b"1"}))
    async with agent.open() as stream:
        envoy = Envoy(stream)
        await envoy.subscribe(CLUSTER)
        assert await envoy.take(CLUSTER) == ({"a": b"1", "b": b"1"}, [])
        agent.configs.publish("i1", configuration("h2", clusters={"a": b"1", "b": b"2", "c": b"1"}))
        assert await envoy.take(CLUSTER) == ({"b": b"2", "c": b"1"}, [])
        agent.configs.publish("i1", configuration("h2", clusters={"a": b"1", "b": b"2", "c": b"1"}))
        await envoy.nothing()
        await stream.end()


async def test_filters_first_and_removals_last(agent):
    agent.configs.publish(
        "i1",
        configuration(
            "h1", clusters={"old": b"1"}, routes={"r": b"1"}, filters={"f": b"1"}, listeners={"l": b"1"}
        ),
    )
    async with agent.open() as stream:
        envoy = Envoy(stream)
        await envoy.subscribe(CLUSTER)
        await envoy.take(CLUSTER)
        await envoy.subscribe(LISTENER)
        await envoy.take(LISTENER)
        await envoy.subscribe(ROUTES, "r")
        await envoy.take(ROUTES)
        await envoy.subscribe(FILTER, "f")
        await envoy.take(FILTER)
        agent.configs.publish(
            "i1",
            configuration(
                "h2", clusters={"new": b"1"}, routes={"r": b"2"}, filters={"f": b"2"}, listeners={}
            ),
        )
        assert await envoy.take(FILTER) == ({"f": b"2"}, [])
        assert await envoy.take(CLUSTER) == ({"new": b"1"}, [])
        assert await envoy.take(ROUTES) == ({"r": b"2"}, [])
        assert await envoy.take(LISTENER) == ({}, ["l"])
        assert await envoy.take(CLUSTER) == ({}, ["old"])
        await stream.end()


async def test_names_that_are_asked_for_again_are_answered_again(agent):
    agent.configs.publish("i1", configuration("h", endpoints={"a": b"1", "b": b"1"}))
    async with agent.open() as stream:
        envoy = Envoy(stream)
        await envoy.subscribe(ENDPOINTS, "a")
        assert await envoy.take(ENDPOINTS) == ({"a": b"1"}, [])
        await envoy.subscribe(ENDPOINTS, "a", "b")
        assert await envoy.take(ENDPOINTS) == ({"a": b"1", "b": b"1"}, [])
        await envoy.subscribe(ENDPOINTS, unsubscribe=["a"])
        await envoy.nothing()
        agent.configs.publish("i1", configuration("h", endpoints={"a": b"2", "b": b"2"}))
        assert await envoy.take(ENDPOINTS) == ({"b": b"2"}, [])
        await stream.end()


async def test_a_changed_cluster_gets_its_endpoints_again(agent):
    """It waits for them, even when they are the same."""
    agent.configs.publish("i1", configuration("h", clusters={"c": b"1"}, endpoints={"c": b"e"}))
    async with agent.open() as stream:
        envoy = Envoy(stream)
        await envoy.subscribe(CLUSTER)
        await envoy.take(CLUSTER)
        await envoy.subscribe(ENDPOINTS, "c")
        await envoy.take(ENDPOINTS)
        agent.configs.publish("i1", configuration("h", clusters={"c": b"2"}, endpoints={"c": b"e"}))
        await envoy.take(CLUSTER)
        assert await envoy.take(ENDPOINTS) == ({"c": b"e"}, [])
        await stream.end()


async def test_a_name_that_comes_later(agent):
    agent.configs.publish("i1", configuration("h", routes={}))
    async with agent.open() as stream:
        envoy = Envoy(stream)
        await envoy.subscribe(ROUTES, "r")
        await envoy.nothing()
        agent.configs.publish("i1", configuration("h", routes={"r": b"1"}))
        assert await envoy.take(ROUTES) == ({"r": b"1"}, [])
        await stream.end()


async def test_after_a_reconnect_only_the_difference(agent):
    agent.configs.publish("i1", configuration("h", clusters={"a": b"1", "b": b"2"}))
    async with agent.open() as stream:
        envoy = Envoy(stream)
        await envoy.subscribe(CLUSTER, "*", known={"a": "v-1", "b": "v-1", "gone": "v-1"})
        assert await envoy.take(CLUSTER) == ({"b": b"2"}, [])
        assert await envoy.take(CLUSTER) == ({}, ["gone"])
        await stream.end()


async def test_a_policy_is_enforced_once_all_of_it_is_confirmed(agent):
    agent.configs.publish("i1", configuration("h1", clusters={"a": b"1"}, filters={"f": b"1"}))
    async with agent.open() as stream:
        envoy = Envoy(stream)
        await envoy.subscribe(CLUSTER)
        await envoy.take(CLUSTER)
        await envoy.nothing()
        assert agent.configs.enforced("i1") is None  # no listener has asked for its filters yet
        await envoy.subscribe(FILTER, "f")
        response = await envoy.receive()
        assert agent.configs.enforced("i1") is None
        await envoy.answer(response)
        await until(lambda: agent.configs.enforced("i1") == "h1")
        agent.configs.publish("i1", configuration("h2", clusters={"a": b"1"}, filters={"f": b"2"}))
        response = await envoy.receive()
        assert agent.configs.enforced("i1") == "h1"
        await envoy.answer(response)
        await until(lambda: agent.configs.enforced("i1") == "h2")
        agent.configs.keep_only(set())
        assert agent.configs.enforced("i1") is None
        assert agent.configs.published("i1") is None
        await stream.end()


async def test_a_rejected_policy_is_not_enforced_and_is_logged(agent, caplog):
    agent.configs.publish("i1", configuration("h1", filters={"f": b"1"}))
    async with agent.open() as stream:
        envoy = Envoy(stream)
        await envoy.subscribe(FILTER, "f")
        await envoy.take(FILTER)
        await until(lambda: agent.configs.enforced("i1") == "h1")
        agent.configs.publish("i1", configuration("h2", filters={"f": b"2"}))
        response = await envoy.receive()
        with caplog.at_level(logging.ERROR):
            await envoy.answer(response, error="no such field")
            await until(lambda: "no such field" in caplog.text)
        assert agent.configs.enforced("i1") == "h1"
        await envoy.subscribe(ROUTES, "r")  # whatever else is asked for, h2 stays rejected
        await asyncio.sleep(0.05)
        assert agent.configs.enforced("i1") == "h1"
        agent.configs.publish("i1", configuration("h3", filters={"f": b"3"}))
        await envoy.take(FILTER)
        await until(lambda: agent.configs.enforced("i1") == "h3")
        await stream.end()


CHECKED, OPEN = b"type.googleapis.com/envoy.config.route.v3.FilterConfig", b"open"


def with_checks(label, route):
    return configuration(label, filters={"f": label.encode()}, routes={"ingress": route})


async def checking(agent, stream):
    """Bring an Envoy up with routes that have calls checked."""
    agent.configs.publish("i1", with_checks("h1", CHECKED))
    envoy = Envoy(stream)
    await envoy.subscribe(FILTER, "f")
    await envoy.take(FILTER)
    await envoy.subscribe(ROUTES, "ingress")
    await envoy.take(ROUTES)
    await until(lambda: agent.configs.enforced("i1") == "h1")
    return envoy


@pytest.mark.parametrize("error", ["no such function", None])
async def test_checks_end_only_after_the_filter_that_needs_none_is_taken(agent, error):
    async with agent.open() as stream:
        envoy = await checking(agent, stream)
        agent.configs.publish("i1", with_checks("h2", OPEN))
        response = await envoy.receive()
        assert response.type_url == FILTER
        await envoy.nothing()
        await envoy.answer(response, error=error)
        if error is None:
            assert await envoy.take(ROUTES) == ({"ingress": OPEN}, [])
            await until(lambda: agent.configs.enforced("i1") == "h2")
        else:
            await envoy.nothing()
            assert agent.configs.enforced("i1") == "h1"
        await stream.end()


@pytest.mark.parametrize("error", ["no such route", None])
async def test_a_filter_that_counts_on_checks_comes_only_after_they_are_taken(agent, error):
    async with agent.open() as stream:
        envoy = await checking(agent, stream)
        agent.configs.publish("i1", with_checks("h2", CHECKED + b"2"))
        response = await envoy.receive()
        assert response.type_url == ROUTES
        await envoy.nothing()
        await envoy.answer(response, error=error)
        if error is None:
            assert await envoy.take(FILTER) == ({"f": b"h2"}, [])
            await until(lambda: agent.configs.enforced("i1") == "h2")
        else:
            await envoy.nothing()
            assert agent.configs.enforced("i1") == "h1"
        await stream.end()


@pytest.mark.parametrize("error", ["late", None])
async def test_a_newer_policy_does_not_wait_for_an_answer_to_the_one_before(agent, error):
    async with agent.open() as stream:
        envoy = await checking(agent, stream)
        agent.configs.publish("i1", with_checks("h2", OPEN))
        pending = await envoy.receive()
        agent.configs.publish("i1", with_checks("h3", OPEN))
        newer = await envoy.receive()
        assert [r.resource.value for r in newer.resources] == [b"h3"]
        await envoy.answer(pending, error=error)
        await envoy.answer(newer)
        await envoy.take(ROUTES)
        await until(lambda: agent.configs.enforced("i1") == "h3")
        await stream.end()


OLD, NEW = "to-orders@aaaaaaaaaaaa", "to-orders@bbbbbbbbbbbb"
NEEDED = {("i1", "svid@bbbbbbbbbbbb"), ("i1", "token@bbbbbbbbbbbb/orders")}


def generation(label, cluster, route):
    return configuration(
        label,
        clusters={cluster: b"c"},
        endpoints={"to-orders": b"e"},
        listeners={"l": b"l"},
        routes={"egress": route, "ingress": route},
    )


async def running(agent, stream):
    """Bring an Envoy up with the old generation."""
    agent.secrets |= {("i1", "svid@aaaaaaaaaaaa"), ("i1", "token@aaaaaaaaaaaa/orders")}
    agent.configs.publish("i1", generation("h1", OLD, b"old"))
    envoy = Envoy(stream)
    await envoy.subscribe(CLUSTER)
    await envoy.take(CLUSTER)
    await envoy.subscribe(ENDPOINTS, "to-orders")
    await envoy.take(ENDPOINTS)
    await envoy.subscribe(LISTENER)
    await envoy.take(LISTENER)
    await envoy.subscribe(ROUTES, "egress", "ingress")
    await envoy.take(ROUTES)
    await envoy.take(ROUTES)
    return envoy


async def test_routes_wait_for_clusters_that_carry_tokens_and_old_ones_linger(agent, monkeypatch):
    monkeypatch.setattr(ads, "_LINGER_SECONDS", 0.3)
    async with agent.open() as stream:
        envoy = await running(agent, stream)
        agent.configs.publish("i1", generation("h1", NEW, b"new"))
        assert await envoy.take(CLUSTER) == ({NEW: b"c"}, [])
        endpoints = await envoy.receive()
        assert endpoints.type_url == ENDPOINTS
        assert await envoy.take(ROUTES) == ({"ingress": b"new"}, [])
        await envoy.nothing()
        await envoy.answer(endpoints)
        await envoy.nothing()
        agent.secrets |= set(list(NEEDED)[:1])
        agent.configs.look_again("i1")
        await envoy.nothing()
        agent.secrets |= NEEDED
        agent.configs.look_again("i1")
        assert await envoy.take(ROUTES) == ({"egress": b"new"}, [])
        await envoy.nothing()
        assert await envoy.take(CLUSTER) == ({}, [OLD])
        await stream.end()


async def test_a_newer_configuration_is_not_kept_waiting(agent):
    async with agent.open() as stream:
        envoy = await running(agent, stream)
        agent.configs.publish("i1", generation("h1", NEW, b"new"))
        await envoy.take(CLUSTER)
        await envoy.take(ENDPOINTS)
        assert await envoy.take(ROUTES) == ({"ingress": b"new"}, [])
        agent.configs.publish("i1", generation("h2", OLD, b"newer"))
        assert await envoy.take(ROUTES) == ({"ingress": b"newer"}, [])
        assert await envoy.take(ROUTES) == ({"egress": b"newer"}, [])
        await stream.end()


async def test_a_policy_does_not_wait_for_ever(agent, monkeypatch, caplog):
    monkeypatch.setattr(ads, "_WARMING_SECONDS", 0.1)
    async with agent.open() as stream:
        envoy = await running(agent, stream)
        agent.configs.publish("i1", generation("h2", NEW, b"new"))
        await envoy.take(CLUSTER)
        await envoy.take(ENDPOINTS)
        assert await envoy.take(ROUTES) == ({"ingress": b"new"}, [])
        assert await envoy.take(ROUTES) == ({"egress": b"new"}, [])
        assert "does not take over its certificate or tokens" in caplog.text
        await stream.end()


async def test_new_clusters_get_their_endpoints_also_on_a_new_stream(agent):
    agent.configs.publish("i1", generation("h1", NEW, b"new"))
    agent.secrets |= NEEDED
    async with agent.open() as stream:
        envoy = Envoy(stream)
        await envoy.subscribe(CLUSTER, known={OLD: "v-c"})
        await envoy.take(CLUSTER)
        await envoy.subscribe(ENDPOINTS, "to-orders", known={"to-orders": "v-e"})
        assert await envoy.take(ENDPOINTS) == ({"to-orders": b"e"}, [])
        await stream.end()


def test_files_become_resources(tmp_path, snapshot, make_sidecar):
    sidecar = make_sidecar("storefront", root=tmp_path)
    write_files(sidecar.directory, render_sidecar(snapshot, sidecar, {}))
    loaded = load_configuration(sidecar.directory)
    assert loaded.label == snapshot.hash
    assert set(loaded.of(FILTER)) == {"authz", "memory", "blocked", "blocked-egress"}
    assert set(loaded.of(ROUTES)) == {"ingress", "egress"}
    assert set(loaded.of(ENDPOINTS)) == {"app", "to-orders", "to-ledger"}
    assert {"app", "app-h2", "to-orders", "to-ledger"} == set(loaded.of(CLUSTER))
    assert {"ingress", "egress", "egress-socket", "tcp-ledger"} == set(loaded.of(LISTENER))
    again = load_configuration(sidecar.directory, loaded)
    assert again == loaded
    assert all(again.of(k)[n] is r for k in again.resources for n, r in loaded.of(k).items())


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"version_info": "x", "resources": [{"@type": "a"}]}']
)
def test_damaged_files_are_refused(tmp_path, snapshot, make_sidecar, damage):
    sidecar = make_sidecar(root=tmp_path)
    write_files(sidecar.directory, render_sidecar(snapshot, sidecar, {}))
    (sidecar.directory / "ecds/authz.json").write_bytes(damage)
    with pytest.raises((ValueError, KeyError)):
        load_configuration(sidecar.directory)


async def test_whom_to_refuse_is_sent_before_everything_that_waits(agent):
    """A policy whose checks have to be there first waits for Envoy's answer; a block does not."""
    enabling = type_url("envoy.config.route.v3.FilterConfig").encode()
    before = {"routes": {"ingress": b"1"}, "filters": {"authz": b"1", "blocked": b"1"}}
    agent.configs.publish("i1", configuration("h1", **before))
    async with agent.open() as stream:
        envoy = Envoy(stream)
        await envoy.subscribe(FILTER, "authz", "blocked")
        assert (await envoy.take(FILTER))[0] == {"authz": b"1", "blocked": b"1"}
        await envoy.subscribe(ROUTES, "ingress")
        assert (await envoy.take(ROUTES))[0] == {"ingress": b"1"}
        after = {"routes": {"ingress": enabling}, "filters": {"authz": b"2", "blocked": b"2"}}
        fresh = replace(configuration("h2", **after), blocks=5)
        agent.configs.publish("i1", fresh)
        assert (await envoy.take(FILTER))[0] == {"blocked": b"2"}
        response = await envoy.receive()
        assert response.type_url == ROUTES
        await envoy.nothing()
        assert agent.configs.blocks("i1") == 0
        await envoy.answer(response)
        assert (await envoy.take(FILTER))[0] == {"authz": b"2"}
        await until(lambda: agent.configs.blocks("i1") == 5)
        await stream.end()
