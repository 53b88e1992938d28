# SPDX-License-Identifier: Apache-2.0
"""``everyhop run``: one workload behind its own sidecar.

This process is the parent of both Envoy and the command, so the death of agent or server touches no traffic.
It is a child subreaper: what the command starts stays below it and keeps the service's identity, and when it
dies the kernel ends its children.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from everyhop.core.errors import EveryhopError, NotFound, Unavailable
from everyhop.runtime.listening import Listening, find_listening
from everyhop.runtime.prctl import adopt_orphans, die_with_parent
from everyhop.runtime.supervised import SupervisedProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from everyhop.control.local_link import LocalLink

SIDECAR_READY_SECONDS: Final = 15.0
DRAIN_SECONDS: Final = 0.2
ENVOY_STOP_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 0.1  # while the application does not listen yet
REST_SECONDS: Final = 0.5
CHECK_AGENT_SECONDS: Final = 2.0

_FORWARDED: Final = {
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
}
_WATCHED: Final = _FORWARDED | {signal.SIGCHLD, signal.SIGWINCH}
_SI_KERNEL: Final = 0x80


def envoy_is_ready(admin_socket: str) -> bool:
    """Ask an Envoy on its admin socket whether it serves."""
    connection = http.client.HTTPConnection("envoy", timeout=1.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(1.0)
        try:
            sock.connect(admin_socket)
            connection.sock = sock
            connection.request("GET", "/ready")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False


class WorkloadRun:
    """One run of a command as a workload of a service."""

    def __init__(self, agent: LocalLink, say: Callable[[str], None]) -> None:
        self._agent = agent
        self._say = say
        self._launch: dict[str, Any] = {}
        self._sidecar = SupervisedProcess([], Path(), at_parents_death=signal.SIGKILL)
        self._child: subprocess.Popen[bytes] | None = None
        self._exit_code: int | None = None
        self._listening = Listening(app=None)
        self._told: dict[str, object] | None = None
        self._draining = False
        self._warned = False

    def run(
        self, service: str, command: Sequence[str], *, port: int | None, edge: Mapping[str, str] | None = None
    ) -> int:
        """Run ``command`` until it ends; return its exit code (128 + N when signal N ended it).

        ``edge`` has the members ``edge``, ``edge_certificate`` and ``edge_key`` of a launch request.

        Raises Unavailable when no trust domain is up or the sidecar does not start, NotFound for a service
        that the policy does not declare, AccessDenied when ``run`` is no way to be an instance of it.
        """
        request = {"service": service, "pid": os.getpid(), "port": port, **(edge or {})}
        self._launch = self._agent.post("/v1/launches", request)
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        adopt_orphans()
        try:
            self._sidecar = SupervisedProcess(
                self._launch["envoy_argv"], Path(self._launch["log_file"]), at_parents_death=signal.SIGKILL
            )
            self._sidecar.start()
            self._tell()
            if not self._wait_for_sidecar():
                return 128 + signal.SIGTERM
            self._start_child(command)
            self._watch()
        finally:
            self._end()
        return self._exit_code if self._exit_code is not None else 1

    def _wait_for_sidecar(self) -> bool:
        deadline = time.monotonic() + SIDECAR_READY_SECONDS
        while not envoy_is_ready(self._launch["admin_socket"]):
            if time.monotonic() > deadline:
                log_file = Path(self._launch["log_file"])
                raise Unavailable(
                    f"the sidecar does not become ready:\n{self._sidecar.last_words()}",
                    hint=f"see {log_file}",
                    retry=False,
                )
            info = signal.sigtimedwait(_WATCHED, 0.03)
            if info is not None and info.si_signo in {signal.SIGTERM, signal.SIGINT}:
                return False
            self._reap()
            if self._sidecar.restart_if_due():
                self._tell()
        return True

    def _start_child(self, command: Sequence[str]) -> None:
        environment = {**os.environ, **self._launch["environment"]}
        try:
            self._child = subprocess.Popen(
                list(command),
                env=environment,
                preexec_fn=die_with_parent(signal.SIGTERM, own_group=False),  # noqa: PLW1509  # no threads here
            )
        except OSError as error:
            raise NotFound(f"cannot start {command[0]!r}: {error.strerror}") from error

    def _watch(self) -> None:
        next_check = 0.0
        while self._exit_code is None:
            info = signal.sigtimedwait(_WATCHED, REST_SECONDS if self._listening.app else LOOK_SECONDS)
            if info is not None:
                self._on_signal(info)
            self._reap()
            restarted = self._sidecar.restart_if_due()
            self._look_for_application()
            if restarted or time.monotonic() >= next_check:
                next_check = time.monotonic() + CHECK_AGENT_SECONDS
                self._told = None
            self._tell()

    def _on_signal(self, info: signal.struct_siginfo) -> None:
        number = signal.Signals(info.si_signo)
        if number not in _FORWARDED or self._child is None:
            return
        if info.si_code == _SI_KERNEL:
            return  # the terminal has sent it to the command as well
        if number in {signal.SIGTERM, signal.SIGINT} and not self._draining:
            self._drain()
        # Not Popen.send_signal: it would reap a child that has just ended, and its exit code would be lost to us.
        if self._exit_code is None:
            with suppress(ProcessLookupError):
                os.kill(self._child.pid, number)

    def _drain(self) -> None:
        """Leave every caller's endpoints before the application stops answering."""
        self._draining = True
        self._tell()
        time.sleep(DRAIN_SECONDS)

    def _reap(self) -> None:
        """Reap whatever ended: Envoy, the command, and orphans that this subreaper has adopted."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._sidecar.reaped(pid):
                self._say("the sidecar died; restarting it")
            elif self._child is not None and pid == self._child.pid:
                code = os.waitstatus_to_exitcode(status)
                self._child.returncode = code
                self._exit_code = code if code >= 0 else 128 - code

    def _look_for_application(self) -> None:
        self._listening = find_listening(Path(self._launch["app_socket"]), self._launch["app_port"])
        if self._listening.app == "port" and not self._warned:
            self._warned = True
            reach = "every interface of this machine" if self._listening.exposed else "loopback"
            self._say(
                f"the application listens on a port ({reach}), so any local process can reach it without "
                "identity; bind the Unix socket in $EVERYHOP_SOCKET to close this"
            )

    def _tell(self) -> None:
        """Tell the agent what runs; after the agent was restarted or lost the launch, register again."""
        state: dict[str, object] = {
            "envoy_pid": self._sidecar.pid,
            "child_pid": None if self._child is None else self._child.pid,
            "app": self._listening.app,
            "draining": self._draining,
            "envoy_restarts": self._sidecar.restarts,
        }
        if state == self._told:
            return
        with suppress(EveryhopError):
            self._agent.post(f"/v1/launches/{self._launch['id']}", state)
            self._told = state

    def _end(self) -> None:
        if self._child is not None and self._exit_code is None:
            self._child.kill()
            self._child.wait()
        if not self._draining:
            self._draining = True
            self._tell()
        is_clean = self._sidecar.stop(ENVOY_STOP_SECONDS)
        with suppress(EveryhopError):
            self._agent.delete(f"/v1/launches/{self._launch['id']}" + ("?envoy=ended" if is_clean else ""))
