# SPDX-License-Identifier: Apache-2.0
import json
import stat
from pathlib import Path

import pytest

from everyhop.dataplane import files as module
from everyhop.dataplane.files import DIRECTORIES, replace_files, write_files
from everyhop.dataplane.render import render_sidecar


def clusters(*names):
    return json.dumps({"resources": [{"name": name} for name in names]}).encode()


def layout(*, names=("app",), **more):
    base = {
        "bootstrap.json": b"{}",
        "xds/cds.json": clusters(*names),
        "xds/lds.json": b"[]",
        "ecds/authz.json": b"{}",
    }
    return {**base, **{k.replace("__", "/") + ".json": v for k, v in more.items()}}


@pytest.fixture
def history(monkeypatch):
    """What was renamed into place, with its content, in order."""
    seen = []
    replace = Path.replace

    def watched(self, target):
        seen.append((str(target), self.read_bytes()))
        assert self.parent.name == ".new"  # never written under its own name
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    return seen


def test_files_are_private_and_complete(tmp_path):
    files = layout(rds__egress=b"1")
    written = write_files(tmp_path / "x", files)
    assert set(written) == set(files)
    for name, content in files.items():
        path = tmp_path / "x" / name
        assert path.read_bytes() == content
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for name in DIRECTORIES:
        assert stat.S_IMODE((tmp_path / "x" / name).stat().st_mode) == 0o700


def test_what_is_the_same_is_not_touched(tmp_path):
    write_files(tmp_path, layout())
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")}
    assert write_files(tmp_path, layout()) == ()
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")} == before


def test_files_are_written_elsewhere_and_renamed(tmp_path, history):
    write_files(tmp_path, layout(eds__app=b"1", rds__egress=b"2"))
    assert len(history) == 6


def test_what_is_no_longer_used_goes(tmp_path):
    write_files(tmp_path, layout(**{"eds__to-old": b"1"}))
    assert write_files(tmp_path, layout(**{"eds__to-new": b"1"})) == ("eds/to-new.json", "eds/to-old.json")
    assert not (tmp_path / "eds/to-old.json").exists()


def test_some_files_can_be_replaced_and_the_others_stay(tmp_path):
    write_files(tmp_path, layout())
    assert replace_files(tmp_path, {"xds/lds.json": b"new", "ecds/authz.json": b"{}"}) == ("xds/lds.json",)
    assert (tmp_path / "xds/lds.json").read_bytes() == b"new"
    assert (tmp_path / "xds/cds.json").exists()


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b'{"resources": 1}', b'{"resources": [{}]}', b"\xff"])
def test_a_damaged_old_file_is_replaced(tmp_path, damaged):
    write_files(tmp_path, layout())
    (tmp_path / "xds/cds.json").write_bytes(damaged)
    write_files(tmp_path, layout())
    assert (tmp_path / "xds/cds.json").read_bytes() == clusters("app")


def test_leftovers_of_a_killed_writer_go(tmp_path):
    write_files(tmp_path, layout())
    (tmp_path / ".new" / "half").write_bytes(b"x")
    (tmp_path / "eds" / "stray.json").write_bytes(b"x")
    assert write_files(tmp_path, layout()) == ("eds/stray.json",)
    assert not (tmp_path / ".new" / "half").exists()


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    write_files(tmp_path, layout())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fdopen", full)
    with pytest.raises(OSError, match="No space"):
        write_files(tmp_path, layout(names=("app", "other")))
    assert (tmp_path / "xds/cds.json").read_bytes() == clusters("app")


def test_rendered_files_can_be_written(tmp_path, snapshot, make_sidecar):
    sidecar = make_sidecar(root=tmp_path)
    files = render_sidecar(snapshot, sidecar, {})
    assert write_files(sidecar.directory, files)
    assert write_files(sidecar.directory, files) == ()
