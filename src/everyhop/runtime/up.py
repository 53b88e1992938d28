# SPDX-License-Identifier: Apache-2.0
"""``everyhop up``: server and agent as children of one foreground process, restarted when they die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from everyhop.control.local_link import LocalLink
from everyhop.core.errors import EveryhopError, Unavailable
from everyhop.runtime.locks import StateLock
from everyhop.runtime.logs import last_lines, open_log
from everyhop.runtime.prctl import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from everyhop.runtime.layout import StateLayout

FIRST_BACKOFF_SECONDS: Final = 0.1
LARGEST_BACKOFF_SECONDS: Final = 5.0
STABLE_SECONDS: Final = 20.0
READY_SECONDS: Final = 30.0
STOP_SECONDS: Final = 8.0
_SIGNALS: Final = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}


@dataclass(slots=True, kw_only=True)
class Child:
    """One supervised process with its restarts."""

    name: str
    argv: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    restarts: int = 0
    backoff: float = FIRST_BACKOFF_SECONDS
    not_before: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        """Start the process; its output goes to its log, which is turned over when it has grown large."""
        with open_log(self.log) as log:
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                preexec_fn=die_with_parent(signal.SIGTERM, own_group=True),  # noqa: PLW1509  # no threads here
            )
        self.started = time.monotonic()

    def note_end(self) -> int | None:
        """Return the exit code when the process has just ended, and set when it may start again."""
        if self.process is None or (code := self.process.poll()) is None:
            return None
        self.process = None
        now = time.monotonic()
        stable = now - self.started > STABLE_SECONDS
        self.backoff = FIRST_BACKOFF_SECONDS if stable else min(self.backoff * 2, LARGEST_BACKOFF_SECONDS)
        self.not_before = now + self.backoff
        self.restarts += 1
        return code

    def stop(self) -> None:
        """Ask the process to end; kill it when it does not."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


class Supervisor:
    """Runs server and agent for one state directory until a signal arrives."""

    def __init__(
        self, layout: StateLayout, policy: Path, say: Callable[[str], None], *, settings: Path | None = None
    ) -> None:
        self._layout = layout
        self._say = say
        self._rejected: dict[str, Any] | None = None
        base = [sys.executable, "-m", "everyhop"]
        state = ["--state", str(layout.root)]
        if settings is not None:
            state += ["--settings", str(settings.absolute())]
        environment = dict(os.environ)
        self._server = Child(
            name="server",
            argv=[*base, "server", *state, "--policy", str(policy)],
            log=layout.logs / "server.log",
            environment=environment,
        )
        self._agent = Child(
            name="agent",
            argv=[*base, "agent", *state],
            log=layout.logs / "agent.log",
            environment=environment,
        )

    def run(self, ready_file: Path | None) -> None:
        """Start both, say when they serve, and keep them running; return after SIGTERM or SIGINT.

        Raises Conflict when another ``up`` holds the state directory, Unavailable when they do not come up.
        """
        lock = StateLock(self._layout.lock)
        lock.acquire()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._server.start()
            self._agent.start()
            ready = self._wait_ready()
            if ready is None:
                return
            if ready_file is not None:
                _write_atomically(ready_file, json.dumps(ready) + "\n")
            self._say(
                f"ready trust_domain={ready['trust_domain']} snapshot={str(ready['snapshot'])[:12]} "
                f"state={self._layout.root}"
            )
            self._supervise()
        finally:
            self._agent.stop()
            self._server.stop()
            if ready_file is not None:
                ready_file.unlink(missing_ok=True)
            lock.release()

    def _wait_ready(self) -> dict[str, Any] | None:
        """Return the status once both serve; None when a signal asks to stop."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            for child in (self._server, self._agent):
                if (code := child.note_end()) is not None:
                    raise Unavailable(
                        f"the {child.name} ended at start with code {code}:\n{last_lines(child.log)}",
                        retry=False,
                    )
            try:
                status: dict[str, Any] = LocalLink(self._layout.admin_socket, timeout=2.0).get("/v1/status")
                LocalLink(self._layout.agent_socket, timeout=2.0).get("/v1/ready")
            except EveryhopError:
                if self._asked_to_stop(0.03):
                    return None
            else:
                return status
        raise Unavailable(
            f"not ready within {READY_SECONDS:.0f} s", hint=f"see {self._server.log} and {self._agent.log}"
        )

    def _asked_to_stop(self, wait: float) -> bool:
        info = signal.sigtimedwait(_SIGNALS, wait)
        return info is not None and info.si_signo in {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}

    def _supervise(self) -> None:
        while not self._asked_to_stop(0.5):
            self._tell_policy()
            for child in (self._server, self._agent):
                if (code := child.note_end()) is not None:
                    self._say(f"{child.name} ended with code {code}; restarting in {child.backoff:.1f} s")
            for child in (self._server, self._agent):
                while child.process is None:
                    if self._asked_to_stop(max(0.0, min(0.1, child.not_before - time.monotonic()))):
                        return
                    if time.monotonic() >= child.not_before:
                        child.start()

    def _tell_policy(self) -> None:
        """Say when a newer policy text was refused, and when a text came into force after that."""
        try:
            status = LocalLink(self._layout.admin_socket, timeout=2.0).get("/v1/status")
        except EveryhopError:
            return
        rejected = status["rejected_policy"]
        if rejected == self._rejected:
            return
        self._rejected = rejected
        if rejected is None:
            self._say(f"policy in force: snapshot {status['snapshot'][:12]}")
            return
        self._say(f"policy refused; snapshot {status['snapshot'][:12]} stays in force")
        for problem in rejected["problems"]:
            hint = f" ({problem['suggestion']})" if problem["suggestion"] else ""
            self._say(f"{problem['file']}:{problem['line']}:{problem['column']}: {problem['message']}{hint}")


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
