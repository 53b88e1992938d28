# SPDX-License-Identifier: Apache-2.0
"""Units as text, and as systemd's own tools judge them where they are there."""

import re
import shutil
import subprocess

import pytest
from tests.support.golden_proxies import check_golden

from everyhop.core.errors import InputError
from everyhop.policy import parse_policy
from everyhop.targets import compile_policy

POLICY = """
version: 1
trust_domain: shop.example
services:
  started: {workload: [{run: true}], operations: {x: GET /}}
  owned: {workload: [{unix: {user: owned, group: shop}}]}
  placed: {workload: [{unix: {uid: 4711, path: /usr/bin/placed}}]}
  either: {workload: [{unix: {user: owned}}, {run: true}]}
  nowhere: {}
  trap: {canary: true}
allow:
  - {from: owned, to: started, operations: [x]}
targets:
  egress: {bank: {host: api.bank.example, from: [placed]}}
"""
ANALYZE = shutil.which("systemd-analyze")


def compiled(policy=POLICY, settings=""):
    snapshot = parse_policy({"everyhop.yaml": (policy + settings).encode()})
    (found,) = compile_policy(snapshot, ["systemd"])
    units = {file.path.removeprefix("systemd/"): file.content.decode() for file in found.files}
    return units, found


def settings_of(unit, key):
    return re.findall(rf"^{key}=(.*)$", unit, re.MULTILINE)


@pytest.mark.parametrize(
    "path", ["/usr/bin/a b", "/usr/bin/%h", "/usr/bin/$x", "/usr/bin/a;b", '/usr/bin/"x"'], ids=range(5)
)
def test_what_systemd_would_read_as_its_own_is_refused(path):
    policy = POLICY.replace("path: /usr/bin/placed", f"path: '{path}'")
    units, found = compiled(policy)
    assert "everyhop-placed.service" not in units
    assert "systemd.workload" in {one.code for one in found.diagnostics if one.is_error}
    with pytest.raises(InputError):
        compiled(settings="  systemd: {state: '/var/%i'}\n")


def test_a_service_without_a_user_would_run_as_root_so_it_has_no_unit():
    units, found = compiled(POLICY.replace("{uid: 4711, path: /usr/bin/placed}", "{path: /usr/bin/placed}"))
    assert "everyhop-placed.service" not in units
    assert "systemd.workload" in {one.code for one in found.diagnostics if one.is_error}


def test_a_service_that_nothing_can_be_an_instance_of_has_no_unit():
    units, found = compiled()
    assert "everyhop-nowhere.service" not in units
    assert "everyhop-trap.service" not in units
    assert {one.code for one in found.diagnostics} == {"systemd.workload"}


def test_everyhop_run_is_the_agent_s_user_s():
    """The agent launches for nobody else."""
    units, _ = compiled()
    control = units["everyhop.service"]
    for name in ("started", "either"):
        unit = units[f"everyhop-{name}.service"]
        assert settings_of(unit, "User") == settings_of(control, "User") == ["everyhop"]
        assert settings_of(unit, "ExecStart") == [
            f"/usr/local/bin/everyhop run {name} --state /var/lib/everyhop -- /etc/everyhop/commands/{name}"
        ]


def test_others_run_as_the_policy_recognises_them():
    units, _ = compiled()
    owned, placed = units["everyhop-owned.service"], units["everyhop-placed.service"]
    assert (settings_of(owned, "User"), settings_of(owned, "Group")) == (["owned"], ["shop"])
    assert (settings_of(placed, "User"), settings_of(placed, "ExecStart")) == (["4711"], ["/usr/bin/placed"])
    for unit in (owned, placed):
        assert settings_of(unit, "Environment") == [
            "SPIFFE_ENDPOINT_SOCKET=unix:///var/lib/everyhop/run/workload.sock"
        ]
        assert not settings_of(unit, "ReadWritePaths")


def test_only_who_may_call_hosts_outside_leaves_the_machine():
    units, _ = compiled()
    assert settings_of(units["everyhop-owned.service"], "IPAddressDeny") == ["any"]
    assert not settings_of(units["everyhop-placed.service"], "IPAddressDeny")


def test_no_unit_holds_a_secret_or_a_capability():
    for unit in compiled()[0].values():
        assert settings_of(unit, "CapabilityBoundingSet") == [""]
        assert settings_of(unit, "NoNewPrivileges") == ["yes"]
        assert settings_of(unit, "ProtectSystem") == ["strict"]
        assert settings_of(unit, "RestrictAddressFamilies") == ["AF_UNIX AF_INET AF_INET6"]
        assert not re.search(r"(?i)password|token|secret", unit)


def test_a_state_directory_elsewhere_has_to_be_there():
    unit = compiled(settings="  systemd: {state: /srv/hop}\n")[0]["everyhop.service"]
    assert settings_of(unit, "ReadWritePaths") == ["/srv/hop"]
    assert not settings_of(unit, "StateDirectory")
    assert settings_of(compiled()[0]["everyhop.service"], "StateDirectory") == ["everyhop"]


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze on this machine")
def test_systemd_s_own_tools_find_no_fault(tmp_path):
    for name, text in compiled()[0].items():
        file = tmp_path / name
        # What is not installed here stands in for itself.
        commands = {"/usr/local/bin/everyhop", "/usr/bin/placed", "/etc/everyhop/commands/owned"}
        for command in sorted(commands):
            text = text.replace(f"={command}", "=/bin/true")  # noqa: PLW2901
        file.write_text(text)
        verified = subprocess.run(
            [ANALYZE, "verify", "--man=no", "--recursive-errors=no", str(file)],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (verified.returncode, verified.stderr) == (0, "")
        judged = subprocess.run(
            [ANALYZE, "security", "--offline=yes", "--threshold=25", str(file)],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert judged.returncode == 0, judged.stdout


def test_golden():
    check_golden("systemd")
