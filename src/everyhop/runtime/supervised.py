# SPDX-License-Identifier: Apache-2.0
"""A process of ours that is started anew when it dies: server, agent, and the Envoy of a workload."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Final

from everyhop.runtime.logs import last_lines, open_log
from everyhop.runtime.prctl import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

FIRST_BACKOFF_SECONDS: Final = 0.1
LARGEST_BACKOFF_SECONDS: Final = 5.0
STABLE_SECONDS: Final = 20.0


class SupervisedProcess:
    """One process with its restarts.  Used from a program without other threads."""

    def __init__(
        self,
        argv: Sequence[str],
        log: Path,
        *,
        at_parents_death: signal.Signals,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the process; ``environment`` of None inherits ours."""
        self.log = log
        self.restarts = 0
        self.backoff = FIRST_BACKOFF_SECONDS
        self._argv = list(argv)
        self._at_parents_death = at_parents_death
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._not_before = 0.0
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """Return the pid while the process runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it in a process group of its own, with its output in its log."""
        with open_log(self.log) as log:
            self._log_start = log.seek(0, os.SEEK_END)
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                preexec_fn=die_with_parent(self._at_parents_death, own_group=True),  # noqa: PLW1509  # no threads
            )
        self._started = time.monotonic()

    def last_words(self) -> str:
        """Return the end of what the process has written since it was started last."""
        return last_lines(self.log, since=self._log_start)

    def poll(self) -> int | None:
        """Return the exit code when the process has just ended, None otherwise."""
        if self._process is None or (code := self._process.poll()) is None:
            return None
        self._ended()
        return code

    def reaped(self, pid: int) -> bool:
        """Take note that the caller has reaped ``pid``; tell whether it was this process."""
        if self._process is None or self._process.pid != pid:
            return False
        self._process.returncode = 0
        self._ended()
        return True

    def restart_if_due(self) -> bool:
        """Start the process again when it is down and its back-off is over; tell whether it was started."""
        if self._process is not None or time.monotonic() < self._not_before:
            return False
        self.start()
        return True

    def stop(self, seconds: float) -> bool:
        """Ask the process to end; kill it when it has not after ``seconds``; tell whether it ended by itself."""
        if self._process is None:
            return True
        is_clean = True
        self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            is_clean = False
        self._process = None
        return is_clean

    def _ended(self) -> None:
        self._process = None
        now = time.monotonic()
        stable = now - self._started > STABLE_SECONDS
        self.backoff = FIRST_BACKOFF_SECONDS if stable else min(self.backoff * 2, LARGEST_BACKOFF_SECONDS)
        self._not_before = now + self.backoff
        self.restarts += 1
