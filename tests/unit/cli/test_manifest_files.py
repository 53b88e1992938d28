# SPDX-License-Identifier: Apache-2.0
"""Manifests from places that a user names."""

import io
import sys

import pytest
from tests.support.admission_cases import CASES, as_yaml

from everyhop.cli import manifest_files
from everyhop.cli.manifest_files import read_files
from everyhop.core.errors import InputError

ONE = as_yaml(CASES["strict"][0])


def test_what_is_not_there_or_holds_nothing_is_said(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        read_files([str(tmp_path / "none.yaml")])
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="no manifest"):
        read_files([str(tmp_path)])


def test_more_than_can_be_read_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.yaml").write_bytes(ONE)
    monkeypatch.setattr(manifest_files, "MAX_BYTES", 10)
    with pytest.raises(InputError, match="more than"):
        read_files([str(tmp_path)])


def test_directories_files_and_standard_input(tmp_path, monkeypatch):
    for name in ("a.yaml", "deep/b.yml", "c.json", ".git/d.yaml", "e.txt"):
        place = tmp_path / name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(ONE)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ONE)))
    found = read_files([str(tmp_path), "-"])
    assert {name.removeprefix(str(tmp_path)) for name in found} == {
        "/a.yaml", "/deep/b.yml", "/c.json", "<stdin>",
    }  # fmt: skip
