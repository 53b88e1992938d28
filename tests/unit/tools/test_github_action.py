# SPDX-License-Identifier: Apache-2.0
"""The GitHub Action and the pre-commit hooks: what they say is well-formed, and the commands that they name do their work."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from everyhop.cli.__main__ import main

ROOT = Path(__file__).parents[3]
ACTION: dict[str, Any] = yaml.safe_load(
    (ROOT / ".github/actions/policy/action.yml").read_text(encoding="utf-8")
)
HOOKS: list[dict[str, Any]] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
STEPS: dict[str, dict[str, Any]] = {step["name"]: step for step in ACTION["runs"]["steps"]}
POLICY = """\
version: 1
trust_domain: cluster.local
services:
  web: {}
  pay: {operations: {charge: POST /v1/payments}}
allow: [{from: web, to: pay, operations: [charge]}]
tests: [{from: web, call: POST /v1/payments, to: pay, expect: allow}]
"""
EXTRA = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: extra, namespace: default}
spec: {action: ACTION, rules: [{}]}
"""


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # comments in the files name the policy as it was given
    Path("everyhop.yaml").write_text(POLICY, encoding="utf-8")
    assert main(["policy", "compile", "everyhop.yaml", "--target", "istio", "--out", "k8s"]) == 0
    capsys.readouterr()
    return tmp_path


def run(step: str, place: Path, **given: str) -> subprocess.CompletedProcess[str]:
    """Run the script of a step as the runner does, with the environment that its inputs make."""
    inputs = {name: one["default"] for name, one in ACTION["inputs"].items()} | {
        "target": "istio",
        "out": "k8s",
        "manifests": "k8s",
    }
    inputs |= given
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "LANG": "C.UTF-8"}
    for name, text in STEPS[step].get("env", {}).items():
        found = re.fullmatch(r"\$\{\{ inputs\.([a-z-]+) \}\}", text)
        assert found is not None, text
        environment[name] = inputs[found[1]]
    script = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS[step]["run"]]
    return subprocess.run(
        script, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_no_input_becomes_a_part_of_a_script() -> None:
    assert ACTION["runs"]["using"] == "composite"
    for step in STEPS.values():
        assert step["shell"] == "bash"
        assert "${{" not in step["run"]
        assert "uses" not in step
    used = set(re.findall(r"inputs\.([a-z-]+)", yaml.safe_dump(ACTION["runs"])))
    assert used == set(ACTION["inputs"])


@pytest.mark.parametrize(
    "step",
    ["Check the policy and its tests", "Compare the compiled files", "Prove the targets", "Look for drift"],
)
def test_a_policy_that_is_in_order_passes_each_step(step: str, place: Path) -> None:
    done = run(step, place)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("step", "file", "old", "new"),
    [
        ("Check the policy and its tests", "everyhop.yaml", "expect: allow", "expect: deny"),
        ("Compare the compiled files", "everyhop.yaml", "/v1/payments", "/v2/payments"),
        ("Prove the targets", "everyhop.yaml", "version: 1", "version: 9"),
        ("Look for drift", "everyhop.yaml", "POST", "GET"),
    ],
)
def test_a_policy_that_is_not_fails_its_step(step: str, file: str, old: str, new: str, place: Path) -> None:
    path = place / file
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    assert run(step, place).returncode != 0


@pytest.mark.parametrize(
    ("action", "fail_on", "fails"),
    [
        ("ALLOW", "widens", True),
        ("ALLOW", "drift", True),
        ("DENY", "drift", True),
        ("DENY", "widens", False),
        ("ALLOW", "never", True),
    ],
)
def test_drift_fails_as_it_was_asked_to(action: str, fail_on: str, fails: bool, place: Path) -> None:
    (place / "k8s" / "extra.yaml").write_text(EXTRA.replace("ACTION", action), encoding="utf-8")
    done = run("Look for drift", place, **{"fail-on": fail_on})
    assert (done.returncode != 0) is fails, done.stdout


def test_a_hostile_name_is_a_name(place: Path) -> None:
    done = run("Check the policy and its tests", place, policy="x; touch owned #.yaml")
    assert done.returncode != 0
    assert not (place / "owned").exists()


@pytest.mark.parametrize("hook", HOOKS, ids=[hook["id"] for hook in HOOKS])
def test_hooks_run_and_fail(hook: dict[str, Any], place: Path) -> None:
    assert hook["language"] == "python"
    assert hook["pass_filenames"] is False
    command = [*shlex.split(hook["entry"]), *hook["args"]]
    command[0] = str(Path(sys.executable).parent / command[0])
    assert subprocess.run(command, cwd=place, capture_output=True, check=False, timeout=120).returncode == 0
    (place / "everyhop.yaml").write_text(
        POLICY.replace("charge: POST /v1", "charge: POST /v3"), encoding="utf-8"
    )
    assert subprocess.run(command, cwd=place, capture_output=True, check=False, timeout=120).returncode == 1


def test_the_action_installs_the_project_that_it_stands_in() -> None:
    script = STEPS["Install everyhop as it is at the ref of this action"]["run"]
    found = re.search(r'pip install --quiet "\$ACTION_PATH/([./]+)"', script)
    assert found is not None
    assert (ROOT / ".github/actions/policy" / found[1]).resolve() == ROOT
    assert (ROOT / "pyproject.toml").is_file()
