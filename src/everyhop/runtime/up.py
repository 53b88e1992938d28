# SPDX-License-Identifier: Apache-2.0
"""``everyhop up``: server, agent and face as children of one foreground process, restarted when they die."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from everyhop.control.local_link import LocalLink
from everyhop.core.errors import EveryhopError, Unavailable
from everyhop.runtime.face import plan_face, require_free
from everyhop.runtime.locks import StateLock
from everyhop.runtime.run import envoy_is_ready
from everyhop.runtime.settings import load_settings
from everyhop.runtime.supervised import SupervisedProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from everyhop.runtime.layout import StateLayout

READY_SECONDS: Final = 120.0
STOP_SECONDS: Final = 8.0
FACE_STOP_SECONDS: Final = 2.0
_SIGNALS: Final = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}


class Supervisor:
    """Runs server, agent and the server's face for one state directory until a signal arrives."""

    def __init__(
        self, layout: StateLayout, policy: Path, say: Callable[[str], None], *, settings: Path | None = None
    ) -> None:
        self._layout = layout
        self._settings = load_settings(settings or layout.settings_file)
        self._say = say
        self._rejected: dict[str, Any] | None = None
        self._pending: dict[str, Any] | None = None
        base = [sys.executable, "-m", "everyhop"]
        state = ["--state", str(layout.root)]
        if settings is not None:
            state += ["--settings", str(settings.absolute())]
        self._server = SupervisedProcess(
            [*base, "server", *state, "--policy", str(policy)],
            layout.logs / "server.log",
            at_parents_death=signal.SIGTERM,
        )
        self._agent = SupervisedProcess(
            [*base, "agent", *state], layout.logs / "agent.log", at_parents_death=signal.SIGTERM
        )
        self._face: SupervisedProcess | None = None

    def run(self, ready_file: Path | None) -> None:
        """Start all, say when they serve, and keep them running; return after SIGTERM or SIGINT.

        Raises Conflict when another ``up`` holds the state directory or somebody else the address of the face,
        Unavailable when they do not come up.
        """
        lock = StateLock(self._layout.lock)
        lock.acquire()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            face = plan_face(self._layout, self._settings)
            require_free(face.listen)
            self._face = SupervisedProcess(face.argv, face.log, at_parents_death=signal.SIGKILL)
            self._server.start()
            self._agent.start()
            self._face.start()
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
            if self._face is not None:
                self._face.stop(FACE_STOP_SECONDS)
                self._layout.face_admin_socket.unlink(missing_ok=True)  # Envoy leaves it behind
            self._agent.stop(STOP_SECONDS)
            self._server.stop(STOP_SECONDS)
            if ready_file is not None:
                ready_file.unlink(missing_ok=True)
            lock.release()

    def _wait_ready(self) -> dict[str, Any] | None:
        """Return the status once all serve; None when a signal asks to stop."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            for name, child in self._children():
                if (code := child.poll()) is not None:
                    raise Unavailable(
                        f"the {name} ended at start with code {code}:\n{child.last_words()}", retry=False
                    )
            try:
                status: dict[str, Any] = LocalLink(self._layout.admin_socket, timeout=2.0).get("/v1/status")
                LocalLink(self._layout.agent_socket, timeout=2.0).get("/v1/ready")
                if envoy_is_ready(str(self._layout.face_admin_socket)):
                    return status
            except EveryhopError:
                pass
            if self._asked_to_stop(0.03):
                return None
        raise Unavailable(f"not ready within {READY_SECONDS:.0f} s", hint=f"see {self._layout.logs}")

    def _asked_to_stop(self, wait: float) -> bool:
        info = signal.sigtimedwait(_SIGNALS, wait)
        return info is not None and info.si_signo in {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}

    def _children(self) -> tuple[tuple[str, SupervisedProcess], ...]:
        named = ("server", self._server), ("agent", self._agent), ("face", self._face)
        return tuple((name, child) for name, child in named if child is not None)

    def _supervise(self) -> None:
        while not self._asked_to_stop(0.5):
            self._tell_policy()
            for name, child in self._children():
                if (code := child.poll()) is not None:
                    self._say(f"{name} ended with code {code}; restarting in {child.backoff:.1f} s")
            while any(child.pid is None for _, child in self._children()):
                for _, child in self._children():
                    child.restart_if_due()
                if self._asked_to_stop(0.02):
                    return

    def _tell_policy(self) -> None:
        """Say when a newer policy text was refused, and when a text came into force after that."""
        try:
            status = LocalLink(self._layout.admin_socket, timeout=2.0).get("/v1/policy")
        except EveryhopError:
            return
        pending = status["pending_policy"]
        if pending != self._pending:
            self._pending = pending
            if pending is not None:
                self._say(f"a policy waits for approval: {pending['summary']}")
                self._say(f"everyhop policy pending; everyhop policy approve {pending['snapshot']}")
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
