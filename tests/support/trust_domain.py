# SPDX-License-Identifier: Apache-2.0
"""A real trust domain for end-to-end tests: ``everyhop up`` and ``everyhop run`` as a user would start them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

SERVER = Path(__file__).with_name("echo_service.py")
LOAD = Path(__file__).with_name("load_client.py")

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {workload: [{run: true}]}
  intruder: {workload: [{run: true}]}
  orders:
    workload: [{run: true}]
    operations:
      list: GET /orders
      read: GET /orders/{id}
      create: POST /orders
    probes: [GET /healthz]
allow:
  - {from: storefront, to: orders, operations: [list, read]}
detect: {mode: observe}  # loads with thousands of refused calls are what these tests are about
"""


def wait_until(
    condition: Callable[[], Any], *, seconds: float = 20.0, what: str = ""
) -> Any:  # whatever it gives
    """Return the first truthy value of ``condition``; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.02)


class TrustDomainUnderTest:
    """One state directory with its processes; everything it starts, it ends."""

    def __init__(self, policy: str = POLICY, **settings: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="eh-", dir="/tmp"))  # socket paths are short
        self.state = self.root / "s"
        self.policy = self.root / "everyhop.yaml"
        self.policy.write_text(policy, encoding="utf-8")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("EVERYHOP_")}
        self.environment |= {f"EVERYHOP_{name.upper()}": value for name, value in settings.items()}
        self.environment["EVERYHOP_STATE"] = str(self.state)
        self.up_process: subprocess.Popen[str] | None = None
        self.runs: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- processes

    def up(self, *arguments: str) -> None:
        """Start ``everyhop up`` and wait for its ready line."""
        if self.up_process is not None and self.up_process.stdout is not None:
            self.up_process.stdout.close()
        with (self.root / "up.err").open("w") as errors:
            self.up_process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "everyhop",
                    "up",
                    "--policy",
                    str(self.policy),
                    "--ready-file",
                    str(self.root / "ready"),
                    *arguments,
                ],
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self.up_process.stdout is not None
        line = self.up_process.stdout.readline()
        assert line.startswith("ready "), (
            line + (self.root / "up.err").read_text() + self.log("server") + self.log("agent")
        )

    def log(self, name: str) -> str:
        """Return the log of ``server`` or ``agent``."""
        path = self.state / "logs" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def run(
        self,
        service: str,
        *command: str,
        wait: bool = True,
        options: Sequence[str] = (),
        **environment: str,
    ) -> subprocess.Popen[str]:
        """Start a workload; with ``wait`` until its service has one more ready instance."""
        before = len(self.ready(service)) if wait else 0
        with (self.root / f"{service}-{len(self.runs)}.err").open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "everyhop", "run", *options, service, "--", *command],
                env={**self.environment, **environment},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.runs.append(process)
        if wait:
            wait_until(
                lambda: len(self.ready(service)) > before or process.poll() is not None,
                what=f"{service} is ready",
            )
            assert process.poll() is None, (self.root / f"{service}-{len(self.runs) - 1}.err").read_text()
        return process

    def serve(
        self, service: str = "orders", *, how: str = "unix", options: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        """Start an echo service on its Unix socket, or on its port (``how="port"``)."""
        return self.run(service, sys.executable, str(SERVER), how, options=options)

    def once(self, service: str, *command: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command as a workload to its end."""
        return subprocess.run(
            [sys.executable, "-m", "everyhop", "run", service, "--", *command],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def load(self, *arguments: str, service: str = "storefront") -> Path:
        """Start a load of legitimate and forbidden calls; return the file that will hold its result."""
        result = self.root / f"load-{len(self.runs)}.json"
        self.run(service, sys.executable, str(LOAD), str(result), *arguments, wait=False)
        wait_until(lambda: result.with_suffix(".started").exists(), what="load runs")
        return result

    def finish_load(self, result: Path) -> dict[str, Any]:
        """End the load and return what it saw."""
        process = self.runs[int(result.stem.rpartition("-")[2])]
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        return dict(json.loads(result.read_text()))

    def stop(self, process: subprocess.Popen[str]) -> int:
        """End a workload with SIGTERM and return its exit code."""
        process.terminate()
        return process.wait(20)

    def child_pids(self) -> dict[str, int]:
        """Return the pids of server and agent."""
        assert self.up_process is not None
        found = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, IndexError, ValueError):
                text = path.read_text()
                if int(text.rpartition(")")[2].split()[1]) == self.up_process.pid:
                    words = (path.parent / "cmdline").read_bytes().split(b"\0")
                    found[words[words.index(b"everyhop") + 1].decode()] = int(path.parent.name)
        return found

    def close(self) -> None:
        """End everything and remove the directory."""
        for process in [*self.runs, self.up_process]:
            if process is not None and process.poll() is None:
                process.terminate()
        for process in [*self.runs, self.up_process]:
            if process is not None:
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                if process.stdout is not None:
                    process.stdout.close()
        if not os.environ.get("EVERYHOP_KEEP_STATE"):
            shutil.rmtree(self.root, ignore_errors=True)

    # -- commands

    def cli(self, *arguments: str, code: int | None = 0) -> str:
        """Run a command; return what it printed; its exit code must be ``code`` unless that is None."""
        done = subprocess.run(
            [sys.executable, "-m", "everyhop", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert code is None or done.returncode == code, (
            f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout if done.returncode == 0 else done.stdout + done.stderr

    def json(self, *arguments: str, code: int | None = 0) -> Any:  # JSON
        """Run a command with ``-o json`` and parse its answer."""
        return json.loads(self.cli(*arguments, "-o", "json", code=code))

    def status(self) -> dict[str, Any]:
        """Return the status, asked without starting a process."""
        from everyhop.control.local_link import LocalLink

        return dict(LocalLink(self.state / "run" / "admin.sock").get("/v1/status"))

    def ready(self, service: str) -> list[dict[str, Any]]:
        """Return the ready instances of a service."""
        from everyhop.core.errors import Unavailable

        try:
            instances: list[dict[str, Any]] = self.status()["services"].get(service, {}).get("instances", [])
        except Unavailable:
            return []
        return [i for i in instances if i["state"] == "ready"]

    def records(self, **query: object) -> list[dict[str, Any]]:
        """Return recorded decisions, oldest first."""
        from everyhop.control.local_link import LocalLink

        link = LocalLink(self.state / "run" / "admin.sock")
        page = link.get("/v1/records", **{"kind": "decision", "limit": 1000, **query})
        return list(page["records"])

    def edit_policy(self, old: str, new: str) -> None:
        """Change the policy text in place, as an editor would."""
        text = self.policy.read_text(encoding="utf-8")
        assert old in text
        fresh = self.policy.with_suffix(".new")
        fresh.write_text(text.replace(old, new, 1), encoding="utf-8")
        fresh.replace(self.policy)

    def wait_applied(self, before: str) -> str:
        """Wait until another snapshot than ``before`` is in force on every agent; return its hash."""

        def applied() -> str | None:
            status = self.status()
            fresh = str(status["snapshot"])
            agents = status["agents"]
            return (
                fresh if fresh != before and agents and all(a["snapshot"] == fresh for a in agents) else None
            )

        return str(wait_until(applied, what="the policy is applied"))


@contextlib.contextmanager
def trust_domain(policy: str = POLICY, **settings: str) -> Iterator[TrustDomainUnderTest]:
    """Give a running trust domain."""
    with TrustDomainUnderTest(policy, **settings) as domain:
        yield domain
