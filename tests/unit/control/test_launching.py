# SPDX-License-Identifier: Apache-2.0
"""Launches: who may be run, which ports, which environment; the egress secret is never stored."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from everyhop.control.launching import (
    Places,
    egress_secret,
    environment_of,
    load_key,
    plan_launch,
)
from everyhop.control.ports_of_launch import chosen_port, free_port
from everyhop.core.errors import AccessDenied, AttestationError, Conflict, NotFound
from everyhop.policy import Snapshot, parse_policy

POLICY = b"""
version: 1
trust_domain: shop.example
services:
  orders: {workload: [{run: true}], operations: {list: GET /orders}}
  payments: {workload: [{unix: {user: payments}}], operations: {charge: POST /charges}}
"""


class FakeEntropy:
    def __init__(self) -> None:
        self.count = 0

    def token_bytes(self, count: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(count, "big")

    def fraction(self) -> float:
        return 0.5


@pytest.fixture
def snapshot() -> Snapshot:
    return parse_policy({"p.yaml": POLICY})


@pytest.fixture
def places(tmp_path: Path) -> Places:
    for name in ("i", "envoy", "spool", "logs"):
        (tmp_path / name).mkdir()
    return Places(
        workload_socket=tmp_path / "workload.sock",
        sds_socket=tmp_path / "sds.sock",
        instances=tmp_path / "i",
        envoy=tmp_path / "envoy",
        spool=tmp_path / "spool",
        logs=tmp_path / "logs",
    )


@pytest.mark.parametrize(
    ("service", "error", "words"),
    [("nobody", NotFound, "no service"), ("payments", AccessDenied, "does not let")],
)
def test_what_may_not_be_run(
    snapshot: Snapshot, places: Places, service: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        plan_launch(snapshot, service, os.getpid(), places=places, live=[], entropy=FakeEntropy(), port=None)
    assert list(places.instances.iterdir()) == []


def test_a_run_process_that_does_not_exist_is_refused(snapshot: Snapshot, places: Places) -> None:
    with pytest.raises(AttestationError):
        plan_launch(snapshot, "orders", 2**22 + 1, places=places, live=[], entropy=FakeEntropy(), port=None)


def test_a_port_in_use_is_refused(snapshot: Snapshot, places: Places) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Conflict, match="in use"):
            plan_launch(
                snapshot,
                "orders",
                os.getpid(),
                places=places,
                live=[],
                entropy=FakeEntropy(),
                port=taken.getsockname()[1],
            )
    port = free_port(())
    with pytest.raises(Conflict):
        chosen_port(port, {port})


def test_a_launch_has_distinct_ports_private_directories_and_no_secret(
    snapshot: Snapshot, places: Places
) -> None:
    entropy = FakeEntropy()
    launch = plan_launch(snapshot, "orders", os.getpid(), places=places, live=[], entropy=entropy, port=None)
    assert len(set(launch.ports.values())) == 3
    for directory in launch.directories.values():
        assert stat.S_IMODE(Path(directory).stat().st_mode) == 0o700
    key = load_key(places.envoy / "key", entropy)
    secret = egress_secret(key, launch.instance).reveal().decode()
    assert secret not in repr(launch)
    environment = environment_of(launch, egress_secret(key, launch.instance), places)
    assert environment["HTTP_PROXY"] == environment["http_proxy"]
    assert secret in environment["HTTP_PROXY"]
    assert environment["EVERYHOP_SOCKET"] == environment["UVICORN_UDS"]
    assert environment["SPIFFE_ENDPOINT_SOCKET"] == f"unix://{places.workload_socket}"


def test_the_agents_key_is_private_kept_and_made_anew_when_cut_short(tmp_path: Path) -> None:
    path, entropy = tmp_path / "key", FakeEntropy()
    first = load_key(path, entropy)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(path, entropy).reveal() == first.reveal()
    assert egress_secret(first, "a").reveal() != egress_secret(first, "b").reveal()
    path.write_bytes(b"short")
    assert load_key(path, entropy).reveal() != first.reveal()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start a process of another user")
def test_a_run_process_of_another_user_is_refused(snapshot: Snapshot, places: Places) -> None:
    import subprocess

    other = subprocess.Popen(["sleep", "30"], user=65534)
    try:
        with pytest.raises(AccessDenied, match="another user"):
            plan_launch(
                snapshot, "orders", other.pid, places=places, live=[], entropy=FakeEntropy(), port=None
            )
    finally:
        other.kill()
        other.wait()
