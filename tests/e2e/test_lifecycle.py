# SPDX-License-Identifier: Apache-2.0
"""Start, second start, crash, stop: nothing that was left behind blocks the next start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

from trust_domain import POLICY, TrustDomainUnderTest, trust_domain, wait_until


def test_a_second_up_on_the_same_state_says_so() -> None:
    with trust_domain() as domain:
        assert json.loads((domain.root / "ready").read_text())["trust_domain"] == "shop.example"
        text = domain.cli("up", "--policy", str(domain.policy), code=5)
        assert "already up" in text
        assert domain.status()["trust_domain"] == "shop.example"


def test_a_bad_policy_at_the_first_start_is_shown_and_leaves_nothing() -> None:
    domain = TrustDomainUnderTest(POLICY.replace("to: orders", "to: ordres"))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "everyhop", "up", "--policy", str(domain.policy)],
            env=domain.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        assert "did you mean 'orders'" in done.stderr
        assert not domain.state.exists()
    finally:
        domain.close()


def test_sigterm_ends_everything_and_removes_the_sockets() -> None:
    with trust_domain() as domain:
        pids = domain.child_pids()
        assert set(pids) == {"server", "agent"}
        assert domain.up_process is not None
        domain.up_process.terminate()
        assert domain.up_process.wait(15) == 0
        assert list(domain.state.glob("run/*.sock")) == []
        assert not (domain.root / "ready").exists()
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())


def test_after_kill_nine_of_everything_the_next_start_serves() -> None:
    with trust_domain() as domain:
        domain.serve()
        assert domain.up_process is not None
        pids = domain.child_pids()
        for pid in (domain.up_process.pid, *pids.values()):
            os.kill(pid, signal.SIGKILL)
        domain.up_process.wait()
        wait_until(lambda: not any(Path(f"/proc/{p}").exists() for p in pids.values()), what="they are gone")
        authorities = (domain.state / "everyhop.db").stat().st_size
        assert authorities > 0
        domain.up()
        wait_until(lambda: domain.ready("orders"), what="the launch was picked up")
        assert domain.json("call", "orders", "GET", "/orders", "--as", "storefront")["status"] == 200


def test_when_run_dies_its_children_die_and_the_identity_is_gone() -> None:
    with trust_domain() as domain:
        process = domain.serve()
        instance = domain.ready("orders")[0]
        process.kill()
        process.wait()
        wait_until(
            lambda: not any(Path(f"/proc/{instance[k]}").exists() for k in ("pid", "envoy_pid")),
            what="children died",
        )
        wait_until(
            lambda: domain.status()["services"]["orders"]["instances"] == [], what="the launch is gone"
        )
        assert list((domain.state / "run" / "i").iterdir()) == []


def test_keys_survive_a_restart_and_none_is_made() -> None:
    with trust_domain() as domain:
        before = domain.json("keys", "list")
        assert domain.up_process is not None
        domain.up_process.terminate()
        domain.up_process.wait()
        domain.up()
        assert domain.json("keys", "list") == before


def test_another_trust_domain_on_the_same_state_is_refused() -> None:
    with trust_domain() as domain:
        domain.edit_policy("shop.example", "other.example")
        wait_until(lambda: domain.status()["rejected_policy"], what="refused")
        assert domain.status()["trust_domain"] == "shop.example"


def test_a_settings_file_reaches_both_processes() -> None:
    domain = TrustDomainUnderTest()
    try:
        settings = domain.root / "mine.toml"
        settings.write_text('svid_ttl = "20m"\nlog_level = "warning"\n')
        domain.up("--settings", str(settings))
        domain.serve()
        shown = domain.json("svid", "show", "orders")
        life = datetime.fromisoformat(shown["not_after"]) - datetime.fromisoformat(shown["not_before"])
        assert timedelta(minutes=20) <= life < timedelta(minutes=21)
        assert '"level": "info"' not in domain.log("server") + domain.log("agent")
        assert "no settings file" in domain.cli("server", "--settings", "/nonexistent", code=2)
    finally:
        domain.close()


def test_connections_beyond_the_limit_are_closed_and_those_within_serve() -> None:
    with trust_domain(max_connections="20") as domain:
        domain.serve()
        host, _, port = domain.ready("orders")[0]["ingress"].rpartition(":")
        held = [socket.create_connection((host, int(port)), timeout=5) for _ in range(60)]
        try:

            def still_open() -> int:
                count = 0
                for connection in held:
                    connection.setblocking(False)
                    try:
                        count += connection.recv(1) != b""
                    except BlockingIOError:
                        count += 1
                    except OSError:
                        pass
                return count

            wait_until(lambda: still_open() <= 20, seconds=4, what="the excess is closed")
            assert still_open() > 0
        finally:
            for connection in held:
                connection.close()
        wait_until(
            lambda: (
                domain.json("call", "orders", "GET", "/orders", "--as", "storefront", code=None)["status"]
                == 200
            ),
            what="it serves",
        )


def test_a_refused_edit_is_said_in_the_terminal_of_up() -> None:
    with trust_domain() as domain:
        domain.edit_policy("[list, read]", "[list, reed]")
        wait_until(lambda: "policy refused" in (domain.root / "up.err").read_text(), what="said")
        assert "did you mean 'read'" in (domain.root / "up.err").read_text()
        domain.edit_policy("[list, reed]", "[list, read]")
        wait_until(lambda: "policy in force" in (domain.root / "up.err").read_text(), what="said")


def test_a_second_signal_does_not_hang_run() -> None:
    with trust_domain() as domain:
        process = domain.run(
            "storefront", "sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.02; done", wait=False
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        wait_until(
            lambda: domain.status()["services"]["storefront"]["instances"][0]["state"] == "running",
            what="runs",
        )
        for _ in range(5):
            process.terminate()
            time.sleep(0.05)
        assert process.wait(15) == 5


def test_a_failure_at_start_shows_this_starts_words_only() -> None:
    with trust_domain() as domain:
        assert domain.up_process is not None
        domain.up_process.terminate()
        domain.up_process.wait()
        (domain.state / "keys" / "kek").chmod(0o644)
        text = domain.cli("up", "--policy", str(domain.policy), code=4)
        assert "chmod 600" in text
        assert "policy applied" not in text
