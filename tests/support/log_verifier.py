# SPDX-License-Identifier: Apache-2.0
"""The independent verifier on Go's ``x/mod/sumdb``, built once where Go and the sources are (``apt`` has both)."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "peers" / "log_verifier" / "main.go"
GOPATH = Path("/usr/share/gocode")  # golang-golang-x-mod-dev


def why_absent():
    """Return why the verifier cannot be built here, None where it can."""
    if shutil.which("go") is None:
        return "Go is not here"
    if not (GOPATH / "src/golang.org/x/mod/sumdb/tlog").is_dir():
        return "golang.org/x/mod is not here: apt-get install golang-golang-x-mod-dev"
    return None


def build(place: Path) -> Path:
    """Build the program below ``place`` and return it."""
    program = place / "log_verifier"
    environment = {
        **os.environ,
        "GO111MODULE": "off",
        "GOPATH": str(GOPATH),
        "GOCACHE": str(Path(tempfile.gettempdir()) / "everyhop-gocache"),
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "",
    }
    command = ["go", "build", "-o", str(program), str(SOURCE)]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    return program


def run(program: Path, directory: Path, vkey: str, *old: Path) -> tuple[int, str]:
    """Verify a directory; return exit code and what it says."""
    done = subprocess.run(
        [str(program), str(directory), vkey, *map(str, old)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr
