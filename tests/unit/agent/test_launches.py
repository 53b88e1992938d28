# SPDX-License-Identifier: Apache-2.0
import asyncio
import json
import os
import stat
import subprocess

import pytest

from everyhop.agent.launches import Launch, LaunchRegistry, LaunchState
from everyhop.core.errors import AttestationError, Conflict, InputError, NotFound
from everyhop.wire.peers import PeerInfo
from everyhop.wire.processes import ProcessHandle, ProcessRef, read_stat

SELF = ProcessRef(pid=os.getpid(), start_time=read_stat(os.getpid()).start_time)


@pytest.fixture
def process():
    """A process that lives until its input is closed."""
    started = []

    def start():
        child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
        started.append(child)
        return child

    yield start
    for child in started:
        child.stdin.close()
        child.wait()


@pytest.fixture
def registry(tmp_path):
    opened = LaunchRegistry(tmp_path / "launches.json")
    yield opened
    opened.close()


def ref(pid):
    return ProcessRef(pid=pid, start_time=read_stat(pid).start_time)


def launch(instance="o1", service="orders", run=SELF, **more):
    return Launch(instance=instance, service=service, uid=os.getuid(), run=run, **more)


def peer(pid, uid=None):
    return PeerInfo(
        pid=pid, uid=os.getuid() if uid is None else uid, gid=os.getgid(), process=ProcessHandle.open(pid)
    )


def end(child):
    child.stdin.close()
    child.wait()


def test_a_process_that_is_gone_or_another_is_not_registered(registry, process):
    child = process()
    dead = ref(child.pid)
    end(child)
    for bad in (dead, ProcessRef(pid=SELF.pid, start_time=SELF.start_time + 1)):
        with pytest.raises(AttestationError):
            registry.register(launch(run=bad))
    assert registry.live() == ()


def test_an_instance_id_is_taken_once(registry, monkeypatch):
    registry.register(launch())
    with pytest.raises(Conflict):
        registry.register(launch(service="payments"))
    monkeypatch.setattr("everyhop.agent.launches.MAX_LAUNCHES", 1)
    with pytest.raises(InputError):
        registry.register(launch("o2"))


def test_unknown_instances(registry):
    for ask in (
        registry.get,
        lambda i: registry.update(i, state=LaunchState.RUNNING),
        lambda i: registry.set_envoy(i, 1),
    ):
        with pytest.raises(NotFound):
            ask("nope")
    registry.remove("nope")


def test_services_of_looks_at_living_launches_among_the_ancestors_only(registry, process):
    child = process()
    registry.register(launch("p1", "payments", ref(child.pid)))
    registry.register(launch())
    other_time = ProcessRef(pid=SELF.pid, start_time=SELF.start_time - 1)
    assert registry.services_of([]) == frozenset()
    assert registry.services_of([other_time]) == frozenset()
    assert registry.services_of([ref(child.pid), SELF]) == {"orders", "payments"}
    held = ref(child.pid)
    end(child)
    assert registry.services_of([held, SELF]) == {"orders"}
    assert [ended.instance for ended in registry.reap()] == ["p1"]
    assert [alive.instance for alive in registry.live()] == ["o1"]


def test_every_change_is_on_disk_private_and_counted(registry, tmp_path):
    file = tmp_path / "launches.json"
    registry.register(launch(directories={"envoy": "/x"}, ports={"ingress": 1}, facts={"app": None}))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = registry.version
    registry.update("o1", state=LaunchState.RUNNING, facts={"child_pid": 7})
    registry.update("o1", state=LaunchState.RUNNING)
    assert registry.version == before + 1
    stored = json.loads(file.read_text())["launches"][0]
    assert stored["state"] == "running"
    assert stored["facts"] == {"app": None, "child_pid": 7}
    assert [entry.name for entry in tmp_path.iterdir()] == ["launches.json"]


def test_a_restarted_agent_knows_what_still_runs(registry, tmp_path, process):
    child = process()
    registry.register(launch("p1", "payments", ref(child.pid)))
    registry.register(launch(ports={"ingress": 7}, envoy=SELF))
    registry.close()
    end(child)
    again = LaunchRegistry(tmp_path / "launches.json")
    assert again.live() == (launch(ports={"ingress": 7}, envoy=SELF),)
    assert again.services_of([SELF]) == {"orders"}
    again.close()


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"boot": 1}', '{"boot": "x", "launches": [{"instance": "o1"}]}']
)
def test_a_damaged_file_grants_nothing(tmp_path, damage):
    file = tmp_path / "launches.json"
    file.write_text(damage)
    assert LaunchRegistry(file).live() == ()


def test_a_file_of_another_boot_grants_nothing(registry, tmp_path):
    file = tmp_path / "launches.json"
    registry.register(launch())
    file.write_text(file.read_text().replace(json.loads(file.read_text())["boot"], "0"))
    assert LaunchRegistry(file).live() == ()
    file.unlink()
    file.mkdir()
    assert LaunchRegistry(file).live() == ()


def test_the_envoy_must_be_a_child_of_the_run_process(registry, process):
    child = process()
    registry.register(launch())
    for pid in (os.getpid(), os.getppid()):
        with pytest.raises(AttestationError):
            registry.set_envoy("o1", pid)
    assert registry.set_envoy("o1", child.pid).envoy == ref(child.pid)
    assert registry.get("o1").envoy == ref(child.pid)
    assert registry.set_envoy("o1", None).envoy is None


def test_who_may_ask_for_a_sidecars_secrets(registry, process):
    child, stranger = process(), process()
    registry.register(launch())
    registry.register(launch("s1", "payments", ref(stranger.pid)))
    assert registry.check_sidecar(peer(child.pid), "o1").service == "orders"
    for bad, instance in (
        (peer(child.pid), "nope"),  # no such instance
        (peer(child.pid), "s1"),  # a child of another launch
        (peer(child.pid, uid=4242), "o1"),  # another user
        (peer(os.getpid()), "o1"),  # the run process itself
        (peer(os.getppid()), "o1"),  # its parent
    ):
        with pytest.raises(AttestationError):
            registry.check_sidecar(bad, instance)


def test_the_registered_envoy_may_ask_even_when_it_was_handed_on(registry, process):
    child = process()
    registry.register(launch(envoy=ref(child.pid)))
    asking = peer(child.pid)
    assert registry.check_sidecar(asking, "o1").instance == "o1"
    end(child)
    with pytest.raises(AttestationError, match="gone"):
        registry.check_sidecar(asking, "o1")


async def test_the_end_of_a_launch_is_noticed_at_once(tmp_path, process):
    registry = LaunchRegistry(tmp_path / "launches.json")
    child = process()
    registry.register(launch(run=ref(child.pid)))
    version = registry.changes.version
    end(child)
    await asyncio.wait_for(registry.changes.beyond(version), 5)
    assert registry.live() == ()
    registry.register(launch())
    registry.remove("o1")
    registry.close()
