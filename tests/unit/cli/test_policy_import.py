# SPDX-License-Identifier: Apache-2.0
"""``everyhop policy import``: exit codes, contracts, and files that are not overwritten."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from everyhop.cli.__main__ import main

WHOLE = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: cart, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]
    to: [{operation: {methods: [GET], paths: [/items]}}]
"""
LOSSY = WHOLE.replace("/items", "/items*")


def run(*arguments: str) -> int:
    return main(["policy", "import", "--from", "istio", *arguments])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "whole.yaml").write_text(WHOLE, encoding="utf-8")
    (tmp_path / "lossy.yaml").write_text(LOSSY, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "code"),
    [("missing.yaml", 2), ("lossy.yaml", 10), ("whole.yaml", 0), (".", 10)],
    ids=["missing", "lossy", "whole", "directory"],
)
def test_exit_codes(source: Path, name: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(source / name)) == code
    capsys.readouterr()


def test_a_file_is_overwritten_by_force_alone(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = source / "everyhop.yaml"
    assert run(str(source / "whole.yaml"), "--out", str(out)) == 0
    out.write_text("mine", encoding="utf-8")
    assert run(str(source / "whole.yaml"), "--out", str(out)) == 5
    assert out.read_text(encoding="utf-8") == "mine"
    assert run(str(source / "whole.yaml"), "--out", str(out), "--force") == 0
    capsys.readouterr()
    assert main(["policy", "check", str(out)]) == 0
    assert "ok: 2 services, 1 rules" in capsys.readouterr().out


def test_it_says_where_it_cannot_write(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(source / "whole.yaml"), "--out", str(source / "none" / "x.yaml")) == 2
    assert "cannot write" in capsys.readouterr().err


def test_the_policy_goes_to_standard_output_and_the_parts_beside_it(
    source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LOSSY.encode())))
    assert run("-", "--methods", "GET") == 10
    printed = capsys.readouterr()
    assert printed.out.startswith("# Imported by everyhop policy import --from istio.")
    assert "<stdin>:1: narrower: AuthorizationPolicy shop/cart rules[0]" in printed.err
    assert "1 of 3 parts are not carried over as they were" in printed.err


def test_the_contract(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(source / "lossy.yaml")
    assert run(path, "-o", "json") == 10
    found = json.loads(capsys.readouterr().out)
    assert found["whole"] is False
    assert found["policy"].startswith("# Imported")
    (lost,) = [part for part in found["parts"] if part["fate"] == "narrower"]
    assert lost == {
        "fate": "narrower",
        "code": "istio.path-prefix",
        "source": "AuthorizationPolicy shop/cart rules[0]",
        "message": "'/items*' goes on within a segment too, as in '/itemsx'",
        "written": "what lies inside of it",
        "file": path,
        "line": 1,
    }


@pytest.mark.parametrize("flag", [("--methods", "BREW"), ("--gateway", "gw"), ("--gateway", "a/b/c")])
def test_flags_are_checked(source: Path, flag: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(str(source / "whole.yaml"), *flag)
    capsys.readouterr()
