# SPDX-License-Identifier: Apache-2.0
"""A policy on disk: what is read, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from everyhop.core.errors import InputError
from everyhop.runtime import policy_files
from everyhop.runtime.policy_files import PolicyFiles


def test_a_missing_policy_names_the_fix(tmp_path: Path) -> None:
    source = PolicyFiles(tmp_path / "none.yaml")
    with pytest.raises(InputError) as caught:
        source.read()
    assert "everyhop init" in str(caught.value.hint)
    assert isinstance(source.fingerprint(), str)


def test_a_file_that_everybody_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("version: 1")
    path.chmod(0o646)
    with pytest.raises(InputError, match="every user"):
        PolicyFiles(path).read()


def test_a_directory_without_policy_files_and_a_file_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="no policy file"):
        PolicyFiles(tmp_path).read()
    monkeypatch.setattr(policy_files, "MAX_FILE_BYTES", 3)
    (tmp_path / "a.yaml").write_text("four")
    with pytest.raises(InputError, match="larger"):
        PolicyFiles(tmp_path).read()
    monkeypatch.setattr(policy_files, "MAX_FILES", 0)
    with pytest.raises(InputError, match="more than"):
        PolicyFiles(tmp_path).read()


def test_a_directory_is_read_in_name_order_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b.yml", "a.yaml", ".hidden.yaml", "c.txt"):
        (tmp_path / name).write_text(name)
    source = PolicyFiles(tmp_path)
    assert [Path(name).name for name in source.read()] == ["a.yaml", "b.yml"]
    before = source.fingerprint()
    (tmp_path / "d.yaml").write_text("new")
    assert source.fingerprint() != before
