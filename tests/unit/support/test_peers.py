# SPDX-License-Identifier: Apache-2.0
"""A peer that was built for the project comes before another of that name; an absent one has a reason."""

from __future__ import annotations

from tests.support.peers import peer_program, why_absent


def program(directory, name, mode=0o755):
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return str(path)


def test_the_built_one_comes_first(tmp_path, monkeypatch):
    theirs, ours = program(tmp_path / "path", "opa"), program(tmp_path / "built", "opa")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert peer_program("opa", built=tmp_path / "built") == ours
    assert peer_program("opa", built=tmp_path / "none") == theirs


def test_what_is_not_there_or_cannot_run_is_absent(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    program(tmp_path / "built", "opa", mode=0o644)
    assert peer_program("opa", built=tmp_path / "built") is None
    assert "make peers" in why_absent("opa")
