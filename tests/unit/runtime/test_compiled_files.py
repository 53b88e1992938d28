# SPDX-License-Identifier: Apache-2.0
"""Compiled files on disk: what others own is never touched, what is written is whole."""

import json

import pytest

from everyhop.core.errors import InputError
from everyhop.runtime.compiled_files import LIST, difference, write
from everyhop.targets.model import Compilation, File


def compiled(target="istio", **files):
    made = tuple(
        File(path=f"{target}/{name}.yaml", content=text.encode()) for name, text in sorted(files.items())
    )
    return Compilation(target=target, files=made, diagnostics=())


@pytest.mark.parametrize(
    "listed",
    [
        "",
        "[]",
        '{"targets": {"istio": ["../other.yaml"]}}',
        '{"targets": {"istio": ["/etc/passwd"]}}',
        '{"targets": 1}',
    ],
)
def test_a_list_that_cannot_be_trusted_stops_everything(tmp_path, listed):
    outside = tmp_path / "other.yaml"
    outside.write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LIST).write_text(listed)
    with pytest.raises(InputError, match="compiled"):
        write(tmp_path / "out", [compiled(a="1")])
    assert outside.read_text() == "mine"
    assert not (tmp_path / "out" / "istio").exists()


def test_files_of_other_people_and_targets_stay(tmp_path):
    write(tmp_path, [compiled(a="1", b="2")])
    write(tmp_path, [compiled("cilium", a="3")])
    (tmp_path / "istio" / "mine.yaml").write_text("mine")
    done = write(tmp_path, [compiled(a="1x")])
    assert (done.missing, done.changed, done.stale) == ((), ("istio/a.yaml",), ("istio/b.yaml",))
    assert sorted(p.name for p in (tmp_path / "istio").iterdir()) == ["a.yaml", "mine.yaml"]
    assert (tmp_path / "cilium" / "a.yaml").read_text() == "3"
    assert json.loads((tmp_path / LIST).read_text()) == {
        "targets": {"cilium": ["cilium/a.yaml"], "istio": ["istio/a.yaml"]}
    }


def test_what_differs_is_told_and_nothing_is_written(tmp_path):
    write(tmp_path, [compiled(a="1", b="2", c="3")])
    (tmp_path / "istio" / "a.yaml").write_text("edited")
    (tmp_path / "istio" / "b.yaml").unlink()
    found = difference(tmp_path, [compiled(a="1", b="2")])
    assert (found.missing, found.changed, found.stale) == (
        ("istio/b.yaml",),
        ("istio/a.yaml",),
        ("istio/c.yaml",),
    )
    assert (tmp_path / "istio" / "a.yaml").read_text() == "edited"
    assert difference(tmp_path / "nowhere", [compiled(a="1")]).missing == ("istio/a.yaml",)


def test_a_second_run_changes_nothing(tmp_path):
    write(tmp_path / "deep" / "out", [compiled(a="1")])
    before = (tmp_path / "deep" / "out" / "istio" / "a.yaml").stat()
    assert write(tmp_path / "deep" / "out", [compiled(a="1")]).is_none
    assert (tmp_path / "deep" / "out" / "istio" / "a.yaml").stat().st_mtime_ns == before.st_mtime_ns


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "istio").write_text("a file where a directory belongs")
    with pytest.raises(InputError, match="istio"):
        write(tmp_path, [compiled(a="1")])
