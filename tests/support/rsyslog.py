# SPDX-License-Identifier: Apache-2.0
"""A real rsyslogd of a test's own: its configuration is the one of the guide, its certificate made in the test."""

import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

PROGRAM = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin:/sbin:/bin")
_DRIVER = "rsyslog/lmnsd_gtls.so"
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "exports.md"


def require():
    """Skip where there is no rsyslogd with GnuTLS."""
    found = [p for base in ("/usr/lib", "/usr/lib64") for p in Path(base).glob(f"*/{_DRIVER}")]
    if PROGRAM is None or not found:
        pytest.skip("rsyslogd with rsyslog-gnutls is not installed")


class Rsyslog:
    """Writes ``[structured data] message`` lines to ``output``."""

    def __init__(self, directory, pki, port):
        self.directory, self.pki, self.port = directory, pki, port
        self.output = directory / "everyhop.log"
        text = re.search(r"```rsyslog\n(.*?)```", GUIDE.read_text(), re.DOTALL)[1]
        for old, new in (
            ("/etc/everyhop-siem/ca.pem", pki.ca),
            ("/etc/everyhop-siem/cert.pem", pki.certificate),
            ("/etc/everyhop-siem/key.pem", pki.key),
            ("/var/log/everyhop.log", self.output),
            ("/var/spool/rsyslog", directory),
            ('port="6514"', f'port="{port}" address="127.0.0.1"'),
        ):
            assert old in text
            text = text.replace(old, str(new))
        (directory / "rsyslog.conf").write_text(text)
        self.process = None

    @classmethod
    def on_socket(cls, directory):
        """Return one that listens at ``directory/log`` only."""
        made = cls.__new__(cls)
        made.directory, made.pki, made.port, made.process = directory, None, None, None
        made.output, made.socket = directory / "everyhop.log", directory / "log"
        text = re.findall(r"```rsyslog\n(.*?)```", GUIDE.read_text(), re.DOTALL)[1]
        text = text.replace("/run/everyhop-log", str(made.socket)).replace(
            "/var/log/everyhop.log", str(made.output)
        )
        (directory / "rsyslog.conf").write_text(text)
        return made

    def _listens(self):
        if self.port is None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
                return self.socket.exists() and probe.connect_ex(str(self.socket)) == 0
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def start(self):
        command = [
            PROGRAM,
            "-n",
            "-f",
            str(self.directory / "rsyslog.conf"),
            "-i",
            str(self.directory / "pid"),
        ]
        log = (self.directory / "rsyslogd.log").open("ab")
        with log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + 15
        while time.monotonic() < end:
            assert self.process.poll() is None, (self.directory / "rsyslogd.log").read_text()
            if self._listens():
                return
            time.sleep(0.02)
        raise AssertionError("rsyslogd does not listen")

    def stop(self, number=signal.SIGTERM):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(15)
        (self.directory / "pid").unlink(missing_ok=True)

    def indexes(self):
        if not self.output.exists():
            return []
        return [
            int(n)
            for n in re.findall(
                rb'^\[everyhop@32473 id="[^"]*" index="(\d+)"', self.output.read_bytes(), re.MULTILINE
            )
        ]
