# SPDX-License-Identifier: Apache-2.0
"""Find the peers that `make peers` installs: programs of others, which we are compared with."""

from __future__ import annotations

import shutil
from pathlib import Path

BUILT = Path(__file__).resolve().parents[2] / ".peers" / "bin"


def peer_program(name, *, built=BUILT):
    """Return the path of a peer's program, or None; what `make peers` has built comes before the machine's own."""
    return shutil.which(name, path=str(built)) or shutil.which(name) or shutil.which(name, path="/usr/sbin")


def why_absent(name):
    """Return the reason to give when a test is skipped."""
    return f"{name} is not here: `make peers` installs it where it can"
