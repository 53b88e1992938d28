# SPDX-License-Identifier: Apache-2.0
"""Blocks over configurations: only what they are about changes, streams are cut once, and a restart cuts nobody."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.support.control_plane import MovableClock
from tests.unit.control.test_blocked import blocks_of

from everyhop.anomaly.model import BlockMode, Blocks
from everyhop.control.sidecar_blocks import MARK, SidecarBlocks
from everyhop.dataplane._resources import encode
from everyhop.dataplane.blocking import FOREVER, nobody_blocked, verdict_of
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
from everyhop.dataplane.enforcement import filter_file
from everyhop.dataplane.token_memory import memory_filter, no_memory

HASH = "ab" * 32
OWN = "spiffe://shop.example/service/orders"
WEB = "spiffe://shop.example/service/web"
OTHER = "spiffe://shop.example/service/other"
FRONT = ("blocked", "blocked-edge", "blocked-egress")


@pytest.fixture
def clock():
    return MovableClock()


@pytest.fixture
def make(tmp_path, clock):
    directory = tmp_path / "envoy"
    for name in ("xds", "ecds"):
        (directory / name).mkdir(parents=True)
    kind = "type.googleapis.com/envoy.config.listener.v3.Listener"
    listeners = [
        {"@type": kind, "name": name, "filter_chains": [{"name": f"{name}-0123"}]}
        for name in ("ingress", "edge", "egress")
    ]
    (directory / "xds/lds.json").write_bytes(encode({"version_info": "", "resources": listeners}))
    for name in FRONT:
        (directory / f"ecds/{name}.json").write_bytes(encode(filter_file(name, nobody_blocked(), "")))

    def made(*, memory=None, streams=(), own=OWN, epoch="3"):
        program = no_memory() if memory is None else memory_filter(HASH, memory)
        (directory / "ecds/memory.json").write_bytes(encode(filter_file("memory", program, HASH)))
        loaded = load_configuration(directory)
        more = {kind: {"x": Resource("1", b"x")} for kind in (CLUSTER, ENDPOINTS, ROUTES)}
        configuration = Configuration(label=HASH, resources={**loaded.resources, **more})
        overlay = SidecarBlocks(clock)
        overlay.base(
            "i", configuration, directory=directory, own=own, streams=frozenset(streams), epoch=epoch
        )
        return overlay, configuration, directory

    return made


def changed(before, after):
    return {
        name
        for kind, held in after.resources.items()
        for name, resource in held.items()
        if before.of(kind).get(name) is None or before.of(kind)[name].content != resource.content
    }


def test_with_nobody_blocked_nothing_changes(make):
    overlay, base, _ = make(memory="3", streams=[WEB])
    assert changed(base, overlay.overlaid("i")) == set()


@pytest.mark.parametrize(
    ("text", "touched"),
    [
        (f"identity:{WEB}", {"blocked"}),
        (f"identity:{OWN}", {"blocked", "blocked-egress"}),
        ("address:203.0.113.7", {"blocked-edge"}),
        ("user:alice", set()),
        ("api-key:k7Qm2xPa", set()),
    ],
)
def test_only_what_a_block_is_about_changes(make, clock, text, touched):
    overlay, base, _ = make()
    overlay.take(blocks_of(clock, text, sequence=9))
    after = overlay.overlaid("i")
    assert changed(base, after) == touched
    assert after.blocks == 9


def test_what_was_verified_is_forgotten_where_something_is_remembered(make, clock):
    blocks = blocks_of(clock, "user:alice")
    for memory, epoch, touched in (("3", "3", {"memory"}), (None, "3", set()), ("3", "", set())):
        overlay, base, _ = make(memory=memory, epoch=epoch)
        overlay.take(blocks, epoch="0a")
        assert changed(base, overlay.overlaid("i")) == touched
        overlay.take(Blocks(sequence=2))
        assert changed(base, overlay.overlaid("i")) == set()


def test_a_block_that_is_over_is_not_enforced(make, clock):
    overlay, base, _ = make()
    blocks = blocks_of(clock, f"identity:{WEB}", seconds=60)
    clock.move(seconds=60)
    overlay.take(blocks)
    assert changed(base, overlay.overlaid("i")) == set()


def test_a_quarantined_sidecar_is_left_without_listeners(make, clock):
    overlay, base, _ = make()
    overlay.take(blocks_of(clock, f"identity:{OWN}", mode=BlockMode.QUARANTINE))
    after = overlay.overlaid("i")
    assert [after.of(kind) for kind in (LISTENER, CLUSTER, ENDPOINTS, ROUTES)] == [{}, {}, {}, {}]
    assert set(after.of(FILTER)) == set(base.of(FILTER))
    overlay.take(Blocks(sequence=2))
    assert changed(base, overlay.overlaid("i")) == set()


# -- streams


def chain_of(configuration):
    return configuration.of(LISTENER)["ingress"].content


def test_streams_are_cut_once_and_only_where_the_blocked_may_have_some(make, clock):
    overlay, base, directory = make(streams=[WEB])
    overlay.take(blocks_of(clock, f"identity:{OTHER}", sequence=1))
    assert chain_of(overlay.overlaid("i")) == chain_of(base)
    overlay.take(blocks_of(clock, f"identity:{OTHER}", f"identity:{WEB}", sequence=2))
    after = overlay.overlaid("i")
    assert b"ingress-0123+2" in chain_of(after)
    assert after.of(LISTENER)["edge"].content == base.of(LISTENER)["edge"].content
    assert after.of(LISTENER)["egress"].content == base.of(LISTENER)["egress"].content
    for blocks in (
        blocks_of(clock, f"identity:{WEB}", "address:203.0.113.7", sequence=3),  # still blocked
        Blocks(sequence=4),  # not any more
    ):
        overlay.take(blocks)
        assert chain_of(overlay.overlaid("i")) == chain_of(after)
    overlay.take(blocks_of(clock, f"identity:{WEB}", sequence=5))  # again
    assert b"ingress-0123+5" in chain_of(overlay.overlaid("i"))
    assert (directory / MARK).read_text() == "5"


def test_a_restart_of_the_agent_cuts_nobody(make, clock):
    blocks = blocks_of(clock, f"identity:{WEB}", sequence=2)
    before, _, _ = make(streams=[WEB])
    before.take(blocks)
    enforced = before.overlaid("i")
    _, base, directory = make(streams=[WEB])
    after = SidecarBlocks(clock)
    after.take(blocks)  # from the disk
    after.base("i", base, directory=directory, own=OWN, streams=frozenset({WEB}), epoch="3")
    assert chain_of(after.overlaid("i")) == chain_of(enforced)


@pytest.mark.parametrize("content", ["", "x", "\u0661", "1\n2", "-1"])
def test_a_damaged_mark_is_none(make, clock, content):
    _, base, directory = make()
    (directory / MARK).write_text(content)
    overlay = SidecarBlocks(clock)
    overlay.base("i", base, directory=directory, own=OWN, streams=frozenset())
    assert chain_of(overlay.overlaid("i")) == chain_of(base)


# -- verdicts


def test_a_verdict_names_kind_and_end(clock):
    (block,) = blocks_of(clock, f"identity:{WEB}", seconds=60).by_subject.values()
    end = int((clock.now() + timedelta(seconds=60)).timestamp()) + 1
    assert verdict_of(HASH, block) == f"{HASH[:16]}|blocked|identity|{end}"
    (block,) = blocks_of(clock, "address:203.0.113.7").by_subject.values()
    assert verdict_of(
        HASH,
        type(block)(subject=block.subject, mode=block.mode, since=block.since, until=None, reason="", by=""),
    ).endswith(f"|blocked|address|{FOREVER}")
