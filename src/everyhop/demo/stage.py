# SPDX-License-Identifier: Apache-2.0
"""The processes of the demo: ``everyhop up``, one ``everyhop run`` per service, and nothing left behind.

They are real subprocesses, started as a user would start them, in a temporary state directory.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from everyhop.control.local_link import LocalLink
from everyhop.core.errors import EveryhopError, Unavailable
from everyhop.demo.raw import Reply
from everyhop.runtime.layout import StateLayout
from everyhop.runtime.prctl import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

UP_SECONDS: Final = 40.0
READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 6.0
_POLL_SECONDS: Final = 0.1
_TAIL_BYTES: Final = 2000
_INTERRUPTIONS: Final = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


class Puppet:
    """The demo's hand inside a workload (:mod:`everyhop.demo.puppet`)."""

    def __init__(self, process: subprocess.Popen[bytes], last_words: Callable[[], str]) -> None:
        self._process = process
        self._last_words = last_words
        self._buffer = b""
        self.pid = 0
        self.proxy: tuple[str, int] = ("", 0)

    def wait_ready(self, seconds: float) -> None:
        """Wait for its first line; raises Unavailable when there is none."""
        hello = self._read(seconds)
        self.pid, self.proxy = int(hello["pid"]), (str(hello["proxy"][0]), int(hello["proxy"][1]))

    def ask(self, **order: object) -> dict[str, Any]:
        """Give an order and return the answer; raises Unavailable when the process is gone."""
        assert self._process.stdin is not None  # noqa: S101  # started with a pipe
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise Unavailable("a workload of the demo is gone") from error
        return self._read(20.0)

    def send(self, via: str, data: bytes, *, patience: float = 10.0) -> Reply:
        """Send bytes from inside the workload: ``via`` its HTTP proxy, its egress socket, or a tcp service."""
        answer = self.ask(do="send", via=via, data=base64.b64encode(data).decode(), patience=patience)
        return Reply(
            status=answer.get("status"),
            headers=tuple((str(n), str(v)) for n, v in answer.get("headers", ())),
            body=base64.b64decode(answer.get("body", "")),
            rest=base64.b64decode(answer.get("rest", "")),
            end=answer["end"],
        )

    def _read(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101  # started with a pipe
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise Unavailable(f"a workload of the demo does not answer:\n{self._last_words()}")
            part = os.read(self._process.stdout.fileno(), 65536)
            if not part:
                raise Unavailable(f"a workload of the demo ended:\n{self._last_words()}")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Stage:
    """Everything that runs for one demo.  Use it as a context manager."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="ehdemo-", dir="/tmp"))  # socket paths have 107 bytes
        self.base.chmod(0o711)  # others may pass: what keeps them out is to be tested, not this directory
        self.layout = StateLayout(self.base / "s")
        self.policy = self.base / "shop.yaml"
        self.logs = self.base / "logs"
        self.logs.mkdir(mode=0o700)
        self.policy.write_bytes((self.shop / "shop.yaml").read_bytes())
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.puppets: dict[str, Puppet] = {}
        self.admin = LocalLink(self.layout.admin_socket)
        self.agent = LocalLink(self.layout.agent_socket)

    @property
    def shop(self) -> Path:
        """The directory of the services' programs."""
        return Path(str(resources.files("everyhop.demo.shop")))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- starting

    def spawn(self, name: str, argv: Sequence[str], *, piped: bool = False) -> subprocess.Popen[bytes]:
        """Start a process in a group of its own; it is asked to end when this process dies."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("EVERYHOP_")}
        pipe = subprocess.PIPE
        with (self.logs / f"{name}.out").open("ab") as out, (self.logs / f"{name}.err").open("ab") as err:
            self._processes[name] = subprocess.Popen(
                list(argv),
                stdin=pipe if piped else subprocess.DEVNULL,
                stdout=pipe if piped else out,
                stderr=err,
                cwd=self.base,
                env={**kept, "EVERYHOP_STATE": str(self.layout.root)},
                preexec_fn=die_with_parent(signal.SIGTERM, own_group=True),  # noqa: PLW1509  # no threads here
            )
        return self._processes[name]

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of an ``everyhop`` command."""
        return [sys.executable, "-m", "everyhop", *arguments]

    def up(self) -> None:
        """Start the trust domain and wait until it serves; raises Unavailable with the reason."""
        ready = self.base / "ready"
        process = self.spawn(
            "up", self.command("up", "--policy", str(self.policy), "--ready-file", str(ready))
        )
        deadline = time.monotonic() + UP_SECONDS
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Unavailable(f"`everyhop up` does not come up:\n{self.last_words('up')}")
            time.sleep(0.03)

    def run(self, service: str, *command: str, options: Sequence[str] = ()) -> None:
        """Start a command as a workload."""
        self.spawn(service, self.command("run", *options, service, "--", *command))

    def run_puppet(self, service: str) -> Puppet:
        """Start a puppet as a workload."""
        argv = self.command("run", service, "--", sys.executable, "-m", "everyhop.demo.puppet")
        process = self.spawn(service, argv, piped=True)
        self.puppets[service] = Puppet(process, lambda: self.last_words(service))
        return self.puppets[service]

    def wait_ready(self, services: Sequence[str]) -> dict[str, Any]:
        """Wait until each service has a ready instance; return the status; raises Unavailable."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            status = self.status()
            waiting = [name for name in services if not _is_ready(status, name)]
            if not waiting:
                return status
            dead = [name for name, process in self._processes.items() if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                who = (dead or waiting)[0]
                raise Unavailable(f"{who} does not become ready:\n{self.last_words(who)}")
            time.sleep(_POLL_SECONDS)

    # -- looking

    def status(self) -> dict[str, Any]:
        """Return what ``everyhop status -o json`` prints."""
        answer: dict[str, Any] = self.admin.get("/v1/status")
        return answer

    def everyhop(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run an ``everyhop`` command to its end."""
        return subprocess.run(
            self.command(*arguments),
            env={**os.environ, "EVERYHOP_STATE": str(self.layout.root), "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def output(self, service: str) -> list[dict[str, Any]]:
        """Return what an application has logged: one object per request that reached it."""
        lines = (self.logs / f"{service}.out").read_text("utf-8", errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def last_words(self, name: str) -> str:
        """Return the end of what a process said on standard error."""
        try:
            return (self.logs / f"{name}.err").read_text("utf-8", errors="replace")[-_TAIL_BYTES:]
        except OSError:
            return ""

    # -- ending

    def stop(self, name: str) -> None:
        """End one process, at last by force; its own children end with it."""
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.terminate()
        self._wait_for_end(process)

    def _wait_for_end(self, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        """End every process that was started here, workloads first, and remove the directory."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTIONS)
        try:
            workloads = [name for name in self._processes if name != "up"]
            for name in workloads:
                with suppress(OSError):
                    self._processes[name].terminate()
            for name in workloads:  # asked once each, and all at the same time
                self._wait_for_end(self._processes.pop(name))
            self.stop("up")
        finally:
            shutil.rmtree(self.base, ignore_errors=True)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_ready(status: dict[str, Any], service: str) -> bool:
    return any(instance["state"] == "ready" for instance in status["services"][service]["instances"])


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Call ``condition`` until it is true or the time is over; errors of ours count as not yet."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(EveryhopError):
            if condition():
                return True
        time.sleep(0.05)
    return False
