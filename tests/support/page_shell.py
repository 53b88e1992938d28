# SPDX-License-Identifier: Apache-2.0
"""A reader who types what a page of the documentation shows."""

import os
import signal
import subprocess
import sys
from pathlib import Path


class Shell:
    """Runs commands in a home of their own; what it starts in the background ends with :meth:`close`."""

    def __init__(self, home):
        self.home = home
        self.cwd = home
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("EVERYHOP", "XDG", "COV"))}
        path = f"{Path(sys.executable).parent}:{kept['PATH']}"
        self.environment = {**kept, "HOME": str(home), "PATH": path, "NO_COLOR": "1"}
        self.background = []

    def run(self, command):
        """Run a command to its end; return all that it printed."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout

    def start(self, command):
        """Start a command; return the file that takes what it prints."""
        log = self.home / f"background-{len(self.background)}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.cwd,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        self.background.append(process)
        return log

    def close(self):
        """End what runs in the background, the youngest first."""
        for process in reversed(self.background):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
