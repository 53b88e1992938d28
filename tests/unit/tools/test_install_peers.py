# SPDX-License-Identifier: Apache-2.0
"""Installing peers never fails, and leaves nothing half built where tests look for programs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "tools" / "install_peers.sh"
BUILDS = (
    '#!/bin/sh\nname=$(basename "${4%@*}")\nprintf "#!/bin/sh\\n" >"$GOBIN/$name"\nchmod 755 "$GOBIN/$name"\n'
)
INTERRUPTED = f"{BUILDS}echo 'no such module' >&2\nexit 1\n"


@pytest.fixture
def tree(tmp_path):
    """A checkout with the script alone, and programs of our own in place of the machine's."""
    (tmp_path / "tools").mkdir()
    shutil.copy(SCRIPT, tmp_path / "tools")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("nginx", "redis-server"):
        write(programs / name, "#!/bin/sh\n")
    for name in (
        "sh",
        "dirname",
        "basename",
        "mkdir",
        "mv",
        "rm",
        "grep",
        "tail",
        "timeout",
        "tr",
        "chmod",
        "id",
    ):
        (programs / name).symlink_to(shutil.which(name))
    return tmp_path


def write(path, text):
    path.write_text(text)
    path.chmod(0o755)


def install(tree):
    done = subprocess.run(
        ["sh", str(tree / "tools" / "install_peers.sh")],
        env={"PATH": str(tree / "programs"), "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def built(tree):
    return sorted(path.name for path in (tree / ".peers" / "bin").glob("*") if path.suffix != ".log")


def test_without_go_it_says_what_will_be_skipped(tree):
    assert install(tree).splitlines() == [
        "peers: no Go toolchain; what needs opa will be skipped",
        "peers: no Go toolchain; what needs opa-envoy-plugin will be skipped",
    ]


def test_a_build_that_fails_leaves_nothing_to_be_found(tree):
    write(tree / "programs" / "go", INTERRUPTED)
    assert "could not build opa (no such module); what needs it will be skipped" in install(tree)
    assert built(tree) == []


def test_what_is_built_is_found_and_not_built_again(tree):
    write(tree / "programs" / "go", BUILDS)
    assert "peers: built opa from " in install(tree)
    assert built(tree) == ["opa", "opa-envoy-plugin"]
    assert not install(tree)
