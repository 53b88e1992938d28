# SPDX-License-Identifier: Apache-2.0
import json
import stat
from pathlib import Path

import pytest

from everyhop.dataplane import files as module
from everyhop.dataplane.files import DIRECTORIES, write_files
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
        assert self.parent.name == ".new"  # never written inside a watched directory
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


def test_references_exist_before_who_refers_to_them(tmp_path, history):
    files = layout(eds__app=b"1", rds__egress=b"2", rds__ingress=b"3", ecds__callers=b"4")
    write_files(tmp_path, files)
    order = [name.removeprefix(f"{tmp_path}/") for name, _ in history]
    position = {name: order.index(name) for name in files}
    assert position["eds/app.json"] < position["xds/cds.json"] < position["rds/egress.json"]
    assert position["ecds/authz.json"] < position["rds/ingress.json"] < position["xds/lds.json"]
    assert order[-1] == "xds/lds.json"


def test_a_cluster_goes_only_after_its_routes(tmp_path, history):
    write_files(tmp_path, layout(names=("app", "to-old"), rds__egress=b"old", **{"eds__to-old": b"1"}))
    history.clear()
    changed = write_files(
        tmp_path, layout(names=("app", "to-new"), rds__egress=b"new", **{"eds__to-new": b"1"})
    )
    steps = [(name.removeprefix(f"{tmp_path}/"), content) for name, content in history]
    names = [name for name, _ in steps]
    first, last = (c for n, c in steps if n == "xds/cds.json")
    assert {c["name"] for c in json.loads(first)["resources"]} == {"app", "to-new", "to-old"}
    assert {c["name"] for c in json.loads(last)["resources"]} == {"app", "to-new"}
    assert names.index("eds/to-new.json") < names.index("xds/cds.json") < names.index("rds/egress.json")
    assert names[-1] == "xds/cds.json"
    assert changed[-1] == "eds/to-old.json"  # removed when nobody refers to it any more
    assert not (tmp_path / "eds/to-old.json").exists()


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
